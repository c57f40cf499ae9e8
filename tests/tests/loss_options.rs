//! Each auxiliary loss and its settings: what it moves, and what it leaves alone.

use gatefold_curriculum::{Coefficients, Plan, Routing};
use gatefold_env::Params;
use gatefold_monitor::{Metrics, names};
use gatefold_optim::{NamedTensor, export};
use gatefold_policy::Architecture;
use gatefold_ppo::{Learner, LoadBalance, PetTarget, ValueLoss};
use gatefold_tests::camp;
use gatefold_tests::trainee::{Trainee, plan, small_policy};

/// What is too small to move anything and yet switches a loss on.
const SILENT: f32 = 1e-30;

fn trainee() -> Trainee {
    let mut config = small_policy(Architecture::Routed, 3);
    config.experts = ["survival", "combat", "general"].map(String::from).to_vec();
    config.next_operator = true;
    Trainee::new(&camp::ENTRY, &Params::new(6, 7), &config)
}

/// A plan with these coefficients.
fn weighing(coefficients: Coefficients, rate: f64) -> Plan {
    Plan { coefficients, ..plan(Routing::Softmax, 0.5, rate) }
}

/// Parameters and metrics after one optimizer step on one minibatch of a whole rollout, unclipped.
fn one_step(change: impl Fn(&mut Learner), coefficients: Coefficients) -> (Vec<NamedTensor>, Metrics) {
    let mut trainee = trainee();
    let ppo = &mut trainee.learner.ppo;
    (ppo.epochs, ppo.minibatch, ppo.max_grad_norm) = (1, 96, 0.0);
    change(&mut trainee.learner);
    let metrics = trainee.iterate(&weighing(coefficients, 1e-3));
    (export(&trainee.policy), metrics)
}

/// Paths of the parameters that differ in a bit.
fn moved(a: &[NamedTensor], b: &[NamedTensor]) -> Vec<String> {
    let bits = |t: &NamedTensor| t.data.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let differing = a.iter().zip(b).filter(|(a, b)| bits(a) != bits(b));
    differing.map(|(a, _)| a.path.clone()).collect()
}

#[test]
fn every_loss_moves_the_parts_it_reads_and_leaves_the_others_alone() {
    /// A loss, what it needs of the learner, its coefficient, and the parts it moves.
    type Case = (&'static str, fn(&mut Learner), Set, &'static [&'static str]);

    type Set = fn(&mut Coefficients, f32);
    let all = ["actor_trunk", "critic_trunk", "graph", "head", "next_operator", "router", "value"];
    let router: &[&str] = &["actor_trunk", "graph", "router"];
    let experts: &[&str] = &["actor_trunk", "head"];
    let both: &[&str] = &["actor_trunk", "graph", "head", "router"];
    let h_obs: fn(&mut Learner) = |learner| learner.losses.pet_on = PetTarget::HObs;
    let gates: fn(&mut Learner) = |learner| learner.losses.pet_on = PetTarget::Gates;
    let switch: fn(&mut Learner) = |learner| learner.losses.load_balance = LoadBalance::Switch;
    let nothing: fn(&mut Learner) = |_| ();
    let cases: [Case; 15] = [
        (names::LOSSES_LOAD_BALANCE, nothing, |c, x| c.load_balance = x, router),
        (names::LOSSES_LOAD_BALANCE, switch, |c, x| c.load_balance = x, router),
        (names::LOSSES_GATE_ENTROPY, nothing, |c, x| c.gate_entropy = x, router),
        (names::LOSSES_GATE_ENTROPY, nothing, |c, x| c.gate_entropy = -x, router),
        (names::LOSSES_IMPORTANCE, nothing, |c, x| c.importance = x, router),
        (names::LOSSES_ROUTER_Z, nothing, |c, x| c.router_z = x, router),
        (names::LOSSES_ALIGNMENT, nothing, |c, x| c.alignment = x, router),
        (names::LOSSES_TEMPORAL, nothing, |c, x| c.temporal = x, router),
        (names::LOSSES_PET, gates, |c, x| c.pet = x, router),
        (names::LOSSES_PET, h_obs, |c, x| c.pet = x, &["actor_trunk"]),
        (names::LOSSES_DIVERSITY, nothing, |c, x| c.diversity = x, experts),
        (names::LOSSES_SEMANTIC, nothing, |c, x| c.semantic = x, experts),
        (names::LOSSES_OVERLAP, nothing, |c, x| c.overlap = x, both),
        (names::LOSSES_ATTENTION_GINI, nothing, |c, x| c.attention_gini = x, &["graph"]),
        (names::LOSSES_NEXT_OPERATOR, nothing, |c, x| c.next_operator = x, &["graph", "next_operator"]),
    ];
    for (loss, change, set, reads) in cases {
        let with = |x: f32| {
            let mut coefficients = Coefficients::default();
            set(&mut coefficients, x);
            one_step(change, coefficients)
        };
        let ((silent, _), (loud, metrics), (_, without)) = (with(SILENT), with(3.0), with(0.0));
        assert!(metrics.get(loss).is_some_and(f64::is_finite), "{loss} is reported");
        assert_eq!(without.get(loss), None, "{loss} is not computed at coefficient 0");
        let moved = moved(&silent, &loud);
        for part in all {
            let inside = |path: &&String| path.split('.').next() == Some(part);
            let is_moved = moved.iter().any(|path| inside(&path));
            assert_eq!(is_moved, reads.contains(&part), "{loss}: {part}; it moved {moved:?}");
        }
    }
}

#[test]
fn balance_by_bias_is_no_loss() {
    let bias = |learner: &mut Learner| learner.losses.load_balance = LoadBalance::Bias;
    let weighed = Coefficients { load_balance: 3.0, ..Coefficients::default() };
    let (with, metrics) = one_step(bias, weighed);
    let (without, _) = one_step(|_| (), Coefficients::default());
    assert_eq!(metrics.get(names::LOSSES_LOAD_BALANCE), None);
    assert_eq!(moved(&with, &without), Vec::<String>::new());
}

#[test]
fn minibatches_are_segments_only_where_a_loss_looks_at_several_steps() {
    let switches = names::loss_statistic(names::LOSSES_TEMPORAL, "switches");
    let of = |coefficients| one_step(|_| (), coefficients).1.get(&switches);
    let single =
        Coefficients { importance: 1.0, overlap: 1.0, attention_gini: 1.0, ..Coefficients::default() };
    assert_eq!(of(single), None, "shuffled rows have no neighbours");
    for over_time in [
        Coefficients { temporal: 0.1, ..single },
        Coefficients { pet: 0.1, ..single },
        Coefficients { next_operator: 0.1, ..single },
    ] {
        let share = of(over_time).expect("rows of a segment have neighbours");
        assert!((0.0..=1.0).contains(&share), "{share}");
    }
}

#[test]
fn attention_moves_to_the_gini_coefficient_that_its_loss_pulls_to() {
    let value = names::loss_statistic(names::LOSSES_ATTENTION_GINI, "value");
    let distances = |coefficient: f32| {
        let mut trainee = trainee();
        let weights = Coefficients { attention_gini: coefficient, ..Coefficients::default() };
        let plan = weighing(weights, 1e-2);
        let mut distance =
            || (trainee.iterate(&plan).get(&value).expect("a statistic of every update") - 0.3).abs();
        let first = distance();
        let last = (0..25).map(|_| distance()).last().expect("iterations");
        (first, last)
    };
    let (first, last) = distances(10.0);
    assert!(first > 0.05, "the case must start elsewhere: {first}");
    assert!(last < 0.25 * first, "from {first} to {last}");
    let (unweighed, left) = distances(SILENT);
    assert_eq!(unweighed, first);
    assert!(left > 2.0 * last, "without the loss it stays {left} away");
}

#[test]
fn the_gini_loss_reaches_the_vectors_that_score_attention() {
    let of = |attention_gini| one_step(|_| (), Coefficients { attention_gini, ..Coefficients::default() }).0;
    let moved = moved(&of(SILENT), &of(3.0));
    for layer in [0, 1] {
        for part in ["weight", "source", "target", "relation_bias"] {
            let path = format!("graph.layers.{layer}.{part}");
            assert!(moved.contains(&path), "{path} is not among {moved:?}");
        }
    }
    assert!(!moved.iter().any(|path| path.contains("readout")), "{moved:?}");
}

#[test]
fn a_frozen_graph_is_not_asked_for_its_attention() {
    let mut trainee = trainee();
    trainee.policy = trainee.policy.with_graph_frozen(true);
    let before = export(&trainee.policy);
    let weights = Coefficients { attention_gini: 3.0, ..Coefficients::default() };
    let metrics = trainee.iterate(&weighing(weights, 1e-2));
    assert_eq!(metrics.get(names::LOSSES_ATTENTION_GINI), None);
    let moved = moved(&before, &export(&trainee.policy));
    assert!(moved.iter().any(|path| path.starts_with("router")), "the rest learns: {moved:?}");
    assert!(!moved.iter().any(|path| path.starts_with("graph")), "{moved:?}");
}

#[test]
fn the_next_steps_operators_are_learned() {
    let mut trainee = trainee();
    let weights = Coefficients { next_operator: 1.0, ..Coefficients::default() };
    let plan = weighing(weights, 1e-2);
    let mut loss = || trainee.iterate(&plan).get(names::LOSSES_NEXT_OPERATOR).expect("a loss");
    let first = loss();
    let last = (0..40).map(|_| loss()).last().expect("iterations");
    // Every state is drawn anew: hungry half of the time, a third threatened, a third tired and calm.
    let entropy = |p: f64| -p * p.ln() - (1.0 - p) * (1.0 - p).ln();
    let least = (entropy(0.5) + 3.0 * entropy(1.0 / 3.0)) / 4.0;
    assert!(first > least + 0.05, "{first}, at best {least}");
    assert!(last < least + 0.03, "from {first} to {last}, at best {least}");
}

#[test]
fn a_hotter_alignment_target_is_nearer_to_even() {
    let entropy = names::loss_statistic(names::LOSSES_ALIGNMENT, "target_entropy");
    let of = |temperature: f32| {
        let weights = Coefficients { alignment: 0.1, ..Coefficients::default() };
        let (_, metrics) = one_step(|learner| learner.losses.alignment_temperature = temperature, weights);
        metrics.get(&entropy).expect("camp's operators belong to experts")
    };
    let (cold, usual, hot) = (of(0.05), of(1.0), of(100.0));
    assert!(cold < usual && usual < hot, "{cold}, {usual}, {hot}");
    assert!((hot - 3f64.ln()).abs() < 1e-3, "three experts have operators: {hot}");
}

#[test]
fn huber_counts_large_second_differences_and_value_errors_less() {
    let pet = |pet_on: PetTarget, pet_huber: f32| {
        let change = |learner: &mut Learner| {
            (learner.losses.pet_on, learner.losses.pet_huber) = (pet_on, pet_huber);
        };
        let (_, metrics) = one_step(change, Coefficients { pet: 0.1, ..Coefficients::default() });
        metrics.get(names::LOSSES_PET).expect("a loss")
    };
    for target in [PetTarget::HObs, PetTarget::Gates] {
        let (squared, limited) = (pet(target, 0.0), pet(target, 1e-3));
        assert!(squared > 0.0 && limited < 0.5 * squared, "{target:?}: {squared}, limited {limited}");
    }
    let value = |value_loss: ValueLoss| {
        let (_, metrics) = one_step(|learner| learner.ppo.value_loss = value_loss, Coefficients::default());
        metrics.get(names::TRAIN_VALUE_LOSS).expect("a loss")
    };
    let (squared, limited) = (value(ValueLoss::Mse), value(ValueLoss::Huber));
    assert!(limited < 0.95 * squared, "{squared}, limited {limited}");
}
