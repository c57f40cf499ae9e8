//! The knowledge graph of delve: its shape, and that activations follow the situation.

use std::collections::HashMap;

use gatefold_env::{Action, Environment, ObservationBatch, Purpose, stream};
use gatefold_envs::delve::{Deed, Delve, DelveConfig, Scripted};

/// Activations by node id.
fn activations(game: &Delve) -> HashMap<String, f32> {
    let spec = game.spec();
    let mut batch = ObservationBatch::new(&spec, 1);
    game.observe(&mut batch.as_mut().row(0));
    let graph = spec.graph.unwrap();
    graph.nodes().map(|node| node.id.clone()).zip(batch.activations).collect()
}

fn drawn(rows: &[&str]) -> Delve {
    Delve::from_map(&DelveConfig::default(), rows, true).unwrap()
}

#[test]
fn the_graph_has_at_most_48_nodes_and_an_expert_for_every_operator() {
    let graph = Delve::new(&DelveConfig::default()).unwrap().spec().graph.unwrap();
    assert!(graph.num_nodes() <= 48, "{}", graph.num_nodes());
    let mut experts: Vec<_> = graph
        .readout_nodes()
        .iter()
        .map(|&node| graph.node(node).expert.clone().unwrap_or_else(|| panic!("{}", graph.node(node).id)))
        .collect();
    experts.sort();
    experts.dedup();
    assert_eq!(experts, ["combat", "exploration", "general", "survival"]);
    assert!(graph.nodes().all(|node| node.label.is_some() || node.expert.is_some()));
    let csr = graph.csr();
    assert!((0..graph.num_nodes()).all(|node| csr.in_edges(node).count() >= 2), "no node stands alone");
}

#[test]
fn every_activation_stays_between_0_and_1_and_moves_in_the_course_of_play() {
    let graph = Delve::new(&DelveConfig::default()).unwrap().spec().graph.unwrap();
    let mut range = HashMap::new();
    for seed in 0..20 {
        let mut rng = stream(seed, Purpose::Environment, 0);
        let mut game = Delve::new(&DelveConfig::default()).unwrap();
        game.reset(&mut rng);
        for _ in 0..600 {
            for (id, value) in activations(&game) {
                assert!((0.0..=1.0).contains(&value), "{id} = {value}");
                let (low, high) = range.entry(id).or_insert((value, value));
                (*low, *high) = (low.min(value), high.max(value));
            }
            let deed = Scripted::default().act(&game, &mut rng);
            if game.step(Action::Discrete(deed.index()), &mut rng).end.is_some() {
                break;
            }
        }
    }
    assert_eq!(range.len(), graph.num_nodes());
    for (id, (low, high)) in range {
        assert!(high - low > 0.2, "{id} only moved between {low} and {high}");
    }
}

#[test]
fn what_the_hero_sees_moves_the_conditions_and_operators_concerned() {
    let quiet = activations(&drawn(&["########", "#@.....#", "########"]));
    let cases: [(&[&str], &[&str], &[&str]); 5] = [
        (&["########", "#@....j#", "########"], &["monster_in_view", "approach", "throw"], &["safe", "rest"]),
        (&["########", "#@j....#", "########"], &["monster_adjacent", "attack", "in_reach"], &["safe"]),
        (&["########", "#.@.O..#", "########"], &["outmatched", "flee"], &["strong", "out_of_reach"]),
        (&["########", "#@..$..#", "########"], &["item_known", "collect"], &[]),
        (&["########", "#@....>#", "########"], &["stairs_known", "at_stairs"], &[]),
    ];
    for (rows, up, down) in cases {
        let now = activations(&drawn(rows));
        for &id in up {
            assert!(now[id] > quiet[id], "{id} in {rows:?}: {} -> {}", quiet[id], now[id]);
        }
        for &id in down {
            // Resting needs wounds too, so it may be 0 in both.
            assert!(now[id] < quiet[id] || quiet[id] == 0.0, "{id} in {rows:?}: {}", now[id]);
        }
    }
}

#[test]
fn wounds_and_hunger_raise_the_operators_of_survival() {
    let mut game = drawn(&["######", "#@...#", "#...O#", "######"]);
    let mut rng = stream(2, Purpose::Environment, 0);
    let before = activations(&game);
    while game.hit_points() > 6 {
        game.step(Action::Discrete(Deed::Rest.index()), &mut rng);
    }
    let hurt = activations(&game);
    for id in ["wounded", "dying", "quaff", "outmatched"] {
        assert!(hurt[id] > before[id], "{id}: {} -> {}", before[id], hurt[id]);
    }
    let mut game = drawn(&["######", "#@...#", "######"]);
    let before = activations(&game);
    for _ in 0..260 {
        game.step(Action::Discrete(Deed::Rest.index()), &mut rng);
    }
    let hungry = activations(&game);
    assert!(hungry["eat"] > before["eat"] && hungry["fed"] < before["fed"]);
    game.step(Action::Discrete(Deed::Eat.index()), &mut rng);
    assert_eq!(activations(&game)["eat"], 0.0, "the ration is gone");
}
