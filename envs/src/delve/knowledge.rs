//! The knowledge graph's activations: graded truths of what the hero can observe.
//!
//! A condition's activation is computed from statistics, known map and visible monsters. An
//! operator's is the least of its preconditions (read from the graph): how applicable it is. An
//! effect's says how far it holds already.

use std::sync::{Arc, LazyLock};

use gatefold_graph::{TypedGraph, parse_knowledge};

use super::Delve;
use super::hero::MAX_NUTRITION;
use super::paths::Hint;

/// Conditions in the order of the file.
const CONDITIONS: [&str; 20] = [
    "hungry",
    "has_food",
    "wounded",
    "dying",
    "has_potion",
    "safe",
    "monster_in_view",
    "monster_adjacent",
    "outmatched",
    "strong",
    "can_retreat",
    "clear_shot",
    "has_darts",
    "edge_known",
    "dead_end",
    "item_known",
    "stairs_known",
    "on_stairs",
    "level_explored",
    "room_to_move",
];

/// Effects in the order of the file.
const EFFECTS: [&str; 11] = [
    "fed",
    "healed",
    "out_of_reach",
    "in_reach",
    "monster_slain",
    "map_known",
    "at_stairs",
    "deeper",
    "richer",
    "supplied",
    "experienced",
];

/// Preconditions that an operator may have.
const MOST: usize = 4;

/// The graph with the preconditions of each operator, as condition indices.
struct Knowledge {
    graph: Arc<TypedGraph>,
    /// Filled up with the index after the last condition, where something stands that always holds.
    preconditions: Vec<[u8; MOST]>,
}

static KNOWLEDGE: LazyLock<Knowledge> = LazyLock::new(|| {
    let graph = parse_knowledge("delve/knowledge.toml", include_str!("knowledge.toml"))
        .expect("the shipped knowledge file is valid");
    let ids: Vec<_> = graph.nodes().map(|node| node.id.as_str()).collect();
    let operators = graph.readout_nodes();
    assert_eq!(ids[..CONDITIONS.len()], CONDITIONS, "conditions are computed in the file's order");
    assert_eq!(
        ids[CONDITIONS.len() + operators.len()..],
        EFFECTS,
        "effects are computed in the file's order"
    );
    let relation =
        graph.relations().iter().position(|r| r == "precondition").expect("operators need something");
    let csr = graph.csr();
    let sources = |&operator: &usize| {
        let mut needs = [CONDITIONS.len() as u8; MOST];
        let edges = csr.in_edges(operator).filter(|&(_, r, _)| r as usize == relation);
        for (i, (source, _, _)) in edges.enumerate() {
            *needs.get_mut(i).expect("an operator has few preconditions") = source as u8;
        }
        needs
    };
    let preconditions = operators.iter().map(sources).collect();
    Knowledge { graph: Arc::new(graph), preconditions }
});

/// The knowledge graph of delve.
pub(super) fn graph() -> Arc<TypedGraph> {
    Arc::clone(&KNOWLEDGE.graph)
}

/// Writes one activation in [0, 1] per node; `explored` is [`Delve::explored`].
pub(super) fn activate(game: &Delve, explored: f32, activations: &mut [f32]) {
    let preconditions = &KNOWLEDGE.preconditions;
    let (conditions, rest) = activations.split_at_mut(CONDITIONS.len());
    let (operators, effects) = rest.split_at_mut(preconditions.len());
    let holds = condition_values(game, explored);
    conditions.copy_from_slice(&holds[..CONDITIONS.len()]);
    for (operator, needs) in operators.iter_mut().zip(preconditions) {
        let [a, b, c, d] = needs.map(|need| holds[usize::from(need)]);
        *operator = least(least(a, b), least(c, d));
    }
    effects.copy_from_slice(&effect_values(game, explored));
}

fn truth(value: bool) -> f32 {
    f32::from(u8::from(value))
}

fn share(count: u8, enough: u8) -> f32 {
    f32::from(count.min(enough)) / f32::from(enough)
}

/// At least one half as soon as a way is known.
fn nearness(hint: Option<Hint>) -> f32 {
    hint.map_or(0.0, |hint| 0.5 + 0.5 * hint.proximity())
}

/// 1 next to the nearest monster in view, falling with distance, 0 if none is.
fn menace(game: &Delve) -> f32 {
    game.outlook.nearest[0]
        .map_or(0.0, |index| 1.0 / f32::from(game.level.monsters[index as usize].pos.distance(game.hero.pos)))
}

/// The smaller of two numbers.
fn least(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// The conditions, and 1 behind the last.
fn condition_values(game: &Delve, explored: f32) -> [f32; CONDITIONS.len() + 1] {
    let (hero, outlook) = (&game.hero, &game.outlook);
    let health = hero.health();
    let outmatched = (f32::from(outlook.danger) / f32::from(hero.hp.max(1))).min(1.0);
    let menace = menace(game);
    [
        1.0 - f32::from(hero.nutrition) / f32::from(MAX_NUTRITION),
        share(hero.food, 2),
        1.0 - health,
        (1.0 - 2.0 * health).max(0.0),
        share(hero.potions, 2),
        truth(outlook.in_view == 0),
        menace,
        if outlook.adjacent > 0 { 0.5 + 0.5 * share(outlook.adjacent - 1, 2) } else { 0.0 },
        outmatched,
        1.0 - outmatched,
        truth(outlook.flee.is_some()),
        truth(outlook.target.is_some()),
        share(hero.darts, 4),
        nearness(outlook.frontier),
        if outlook.at_dead_end { 1.0 } else { 0.25 * truth(outlook.can_search) },
        nearness(outlook.item),
        if outlook.on_stairs { 1.0 } else { nearness(outlook.stairs) },
        truth(outlook.on_stairs),
        explored,
        outlook.moves.count_ones() as f32 / 8.0,
        1.0,
    ]
}

fn effect_values(game: &Delve, explored: f32) -> [f32; EFFECTS.len()] {
    let (hero, outlook) = (&game.hero, &game.outlook);
    let nearest = outlook.nearest[0].map(|i| &game.level.monsters[i as usize]);
    let supplies = f32::from(hero.food) + f32::from(hero.potions) + f32::from(hero.darts) / 3.0;
    [
        f32::from(hero.nutrition) / f32::from(MAX_NUTRITION),
        hero.health(),
        1.0 - menace(game),
        truth(outlook.adjacent > 0),
        nearest.map_or(1.0, |monster| 1.0 - monster.health()),
        explored,
        if outlook.on_stairs { 1.0 } else { outlook.stairs.map_or(0.0, Hint::proximity) },
        if game.levels > 1 { f32::from(game.depth - 1) / f32::from(game.levels - 1) } else { 1.0 },
        hero.gold as f32 / (hero.gold as f32 + 200.0),
        supplies / (supplies + 3.0),
        1.0 - 1.0 / f32::from(hero.level),
    ]
}
