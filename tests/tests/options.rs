//! Each option of the policy: it changes what it should and nothing else.

use std::path::PathBuf;

use burn::backend::Flex;
use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use gatefold_curriculum::{Coefficients, Plan, Routing};
use gatefold_env::{EnvSpec, ObservationBatch, Params};
use gatefold_gat::{Attention, AttentionTemperature};
use gatefold_monitor::names;
use gatefold_optim::{NamedTensor, export, import};
use gatefold_policy::{Architecture, Evaluation, PolicyConfig, RoutingInput, Values};
use gatefold_ppo::Rollout;
use gatefold_runner::events::{Event, Reporter};
use gatefold_runner::{RunOptions, checkpoint, layers, train};
use gatefold_tests::camp;
use gatefold_tests::gradients::gradients;
use gatefold_tests::tolerance::{assert_near, bits, relative_error, values};
use gatefold_tests::trainee::{Train, Trainee, observation, plan, small_policy};

type Change = fn(&mut PolicyConfig);

fn trainee(change: Change) -> Trainee {
    let mut config = small_policy(Architecture::Routed, 3);
    change(&mut config);
    Trainee::new(&camp::ENTRY, &Params::new(6, 7), &config)
}

fn softmax<B: Backend>() -> RoutingInput<B> {
    RoutingInput::new(Routing::Softmax, 0.5)
}

/// Observations of a rollout of camp, the same for every policy.
fn seen() -> ObservationBatch {
    trainee(|_| ()).collect(&plan(Routing::Softmax, 0.5, 0.0)).expect("a rollout").observations
}

fn evaluated(trainee: &Trainee) -> Evaluation<Flex> {
    let (host, spec) = (seen(), &trainee.learner.spec);
    trainee.policy.valid().evaluate(&observation(spec, &host, 0..host.rows()), softmax(), 0)
}

/// Logits, values and gates.
fn parts(evaluation: &Evaluation<Flex>) -> [Vec<u32>; 3] {
    let gates = evaluation.gates.as_ref().expect("a router").alpha.clone();
    [bits(evaluation.logits.clone()), bits(evaluation.values.clone()), bits(gates)]
}

#[test]
fn an_option_adds_its_own_parameters_and_moves_only_what_it_should() {
    let plain = trainee(|_| ());
    let (without, outputs) = (export(&plain.policy), parts(&evaluated(&plain)));
    // Option, its parameters, and whether it moves logits, values and gates.
    let cases: [(Change, &str, [bool; 3]); 9] = [
        (|c| c.shared_expert = true, "shared_expert.", [true, false, false]),
        (|c| c.cross_attention = true, "cross_attention.", [true, true, true]),
        (|c| c.twin_critics = true, "second_critic.", [false; 3]),
        (|c| c.next_operator = true, "next_operator.", [false; 3]),
        (|c| c.gat.attention_temperature = AttentionTemperature::Learned, "log_temperature", [false; 3]),
        (|c| c.gat.node_norm_clip = 0.5, "", [true, true, true]),
        (|c| c.gat.attention_dropout = 0.5, "", [false; 3]),
        (|c| c.gat.feature_dropout = 0.5, "", [false; 3]),
        (|c| c.gat.edge_dropout = 0.5, "", [false; 3]),
    ];
    for (change, own, moves) in cases {
        let trainee = trainee(change);
        let with = export(&trainee.policy);
        let added: Vec<&NamedTensor> =
            with.iter().filter(|t| !without.iter().any(|u| u.path == t.path)).collect();
        assert_eq!(added.is_empty(), own.is_empty(), "`{own}`");
        assert!(added.iter().all(|t| t.path.contains(own)), "`{own}`: {:?}", added[0].path);
        for tensor in &without {
            let same = with.iter().find(|t| t.path == tensor.path).map(|t| &t.data);
            assert_eq!(same, Some(&tensor.data), "`{own}`: initial {}", tensor.path);
        }
        let now = parts(&evaluated(&trainee));
        let moved = [0, 1, 2].map(|i| now[i] != outputs[i]);
        assert_eq!(moved, moves, "logits, values and gates of `{own}`, {:?}", trainee.learner.experts);
    }
}

#[test]
fn gatv2_reshapes_the_layers_of_the_graph_encoder_and_no_other_parameter() {
    let (plain, gatv2) = (trainee(|_| ()), trainee(|c| c.gat.attention = Attention::Gatv2));
    let (without, with) = (export(&plain.policy), export(&gatv2.policy));
    let targets = |tensors: &[NamedTensor]| tensors.iter().filter(|t| t.path.ends_with(".target")).count();
    assert_eq!((targets(&without), targets(&with)), (2, 0), "one vector scores an edge of GATv2");
    for tensor in &with {
        let before = without.iter().find(|t| t.path == tensor.path).expect("no parameter is new");
        let doubled = tensor.path.starts_with("graph.layers.") && tensor.path.ends_with(".weight");
        let columns = if doubled { 2 * before.shape[1] } else { *before.shape.last().expect("a shape") };
        assert_eq!(tensor.shape.last(), Some(&columns), "{}", tensor.path);
        assert_eq!(tensor.shape[0], before.shape[0], "{}", tensor.path);
        if tensor.path.contains("trunk") {
            assert_eq!(tensor.data, before.data, "drawn before the graph encoder: {}", tensor.path);
        }
    }
    let (before, now) = (parts(&evaluated(&plain)), parts(&evaluated(&gatv2)));
    assert!(before.iter().zip(&now).all(|(before, now)| before != now), "logits, values and gates");
    assert_eq!(now, parts(&evaluated(&trainee(|c| c.gat.attention = Attention::Gatv2))), "the same bits");
}

/// The same policy with every parameter under `prefix` set to 0.
fn silenced(mut trainee: Trainee, prefix: &str) -> Trainee {
    let mut tensors = export(&trainee.policy);
    let own = tensors.iter_mut().filter(|t| t.path.starts_with(prefix));
    own.for_each(|t| t.data.fill(0.0));
    trainee.policy = import::<Train, _>(trainee.policy, &tensors).expect("the same shapes");
    trainee
}

#[test]
fn a_shared_expert_is_added_with_weight_one_to_the_routed_ones() {
    let (plain, shared) = (trainee(|_| ()), trainee(|c| c.shared_expert = true));
    let (routed, both) = (evaluated(&plain).logits, evaluated(&shared).logits);
    let alone = evaluated(&silenced(shared, "head")).logits;
    let sum: Vec<f64> = values(routed + alone).into_iter().map(f64::from).collect();
    assert!(relative_error(&values(both), &sum) < 1e-6);
}

#[test]
fn a_graph_vector_attends_to_node_vectors() {
    let attending = trainee(|c| c.cross_attention = true);
    let (host, spec) = (seen(), &attending.learner.spec);
    let rows = observation(spec, &host, 0..host.rows());
    let graph = attending.policy.encode(&rows).expect("camp has a graph").graph;
    let [_, width] = graph.dims();
    let all = gradients(&attending.policy, graph.narrow(1, 0, width / 2).square().sum());
    let own: Vec<_> = all.iter().filter(|gradient| gradient.path.starts_with("cross_attention")).collect();
    assert!(own.len() >= 7, "{own:?}");
    // The keys' bias moves all scores of a row alike.
    let silent = own.iter().filter(|gradient| gradient.values.iter().all(|g| g.abs() < 1e-6));
    let silent: Vec<_> = silent.map(|gradient| gradient.path.as_str()).collect();
    assert_eq!(silent, ["cross_attention.key.bias"]);
    let silenced = silenced(attending, "cross_attention.output");
    assert_eq!(parts(&evaluated(&silenced)), parts(&evaluated(&trainee(|_| ()))));
}

#[test]
fn an_option_that_the_environment_cannot_serve_is_refused() {
    let spec = trainee(|_| ()).learner.spec;
    let no_graph = EnvSpec { graph: None, node_features: 0, ..spec.clone() };
    let mut graph = gatefold_graph::TypedGraph::new("lonely", &["condition", "operator"], &["operator"]);
    graph.add_node("do", "operator", None).expect("a new id");
    let lonely = EnvSpec { graph: Some(graph.with_self_loops().into()), ..no_graph.clone() };
    let cases: [(Change, &EnvSpec, &str); 5] = [
        (|c| c.cross_attention = true, &no_graph, "cross_attention = true: needs at least 2 graph nodes"),
        (|c| c.cross_attention = true, &lonely, "this policy reads 1"),
        (|c| c.next_operator = true, &no_graph, "next_operator = true: needs an environment with a graph"),
        (
            |c| (c.next_operator, c.architecture) = (true, Architecture::Mlp),
            &spec,
            "an architecture that reads it",
        ),
        (|c| (c.shared_expert, c.architecture) = (true, Architecture::MlpGat), &spec, "needs experts"),
    ];
    for (change, spec, expected) in cases {
        let mut config = small_policy(Architecture::Routed, 3);
        change(&mut config);
        let error = config.validate_for(spec).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

fn mean_half_square(values: impl Iterator<Item = f32>, targets: &[f32]) -> f64 {
    let squares = values.zip(targets).map(|(v, &r)| (f64::from(v) - f64::from(r)).powi(2));
    0.5 * squares.sum::<f64>() / targets.len() as f64
}

#[test]
fn two_critics_learn_the_same_returns_and_the_smaller_one_bootstraps() {
    let mut twins = trainee(|c| c.twin_critics = true);
    let plan = plan(Routing::Softmax, 0.5, 3e-3);
    (0..6).for_each(|_| drop(twins.iterate(&plan))); // until now one, now the other is smaller
    let rollout = twins.collect(&plan).expect("a rollout");
    let (rows, spec) = (rollout.actions.len(), twins.learner.spec.clone());
    let seen = observation(&spec, &rollout.observations, 0..rows);
    let both = twins.policy.valid().evaluate(&seen, softmax(), 0);
    let second = values(both.second_values.clone().expect("there are two"));
    let first = values(both.values.clone());
    let smaller: Vec<f32> = first.iter().zip(&second).map(|(&a, &b)| a.min(b)).collect();
    let from_second = first.iter().zip(&smaller).filter(|(a, b)| a != b).count();
    assert!((1..rows).contains(&from_second), "{from_second} of {rows} are the second's");
    assert_eq!(values(Values { first: both.values, second: both.second_values }.bootstrap()), smaller);
    assert_eq!(values(twins.policy.valid().values(&seen)), smaller);
    assert_eq!(rollout.values.iter().copied().collect::<Vec<_>>(), smaller);

    let batch = twins.batch(rollout);
    let returns: Vec<f32> = batch.returns.iter().copied().collect();
    (twins.learner.ppo.epochs, twins.learner.ppo.minibatch) = (1, rows);
    let before = export(&twins.policy);
    let metrics = twins.update(&batch, &plan).expect("an update");
    for (name, predicted) in [(names::TRAIN_VALUE_LOSS, first), (names::TRAIN_SECOND_VALUE_LOSS, second)] {
        let expected = mean_half_square(predicted.into_iter(), &returns);
        assert_near(name, metrics.get(name).expect(name), expected, 1e-5);
    }
    for (before, after) in before.iter().zip(export(&twins.policy)) {
        let critic = before.path.starts_with("second_critic");
        assert!(!critic || before.data != after.data, "{} does not learn", before.path);
    }
}

#[test]
fn a_value_clamp_limits_what_advantages_are_made_of_and_not_what_is_done() {
    let rollout = |clamp: f32| -> Rollout {
        let mut trainee = trainee(|_| ());
        trainee.collector = trainee.collector.with_value_clamp(clamp);
        trainee.collect(&plan(Routing::Softmax, 0.5, 0.0)).expect("a rollout")
    };
    let (free, narrow) = (rollout(0.0), rollout(0.05));
    let clamped = |values: &ndarray::Array2<f32>| values.mapv(|v| v.clamp(-0.05, 0.05));
    assert!(free.values.iter().any(|v| v.abs() > 0.05), "the case must need the clamp");
    assert_eq!(narrow.values, clamped(&free.values));
    assert_eq!(narrow.next_values, clamped(&free.next_values));
    assert_eq!((narrow.actions, narrow.log_probs), (free.actions, free.log_probs));
}

fn dropouts() -> [Change; 3] {
    [|c| c.gat.attention_dropout = 0.5, |c| c.gat.feature_dropout = 0.5, |c| c.gat.edge_dropout = 0.5]
}

#[test]
fn a_dropout_acts_in_updates_alone_by_the_draws_of_its_own_stream() {
    let plan = plan(Routing::Softmax, 0.5, 3e-3);
    let iterate = |change: Change, frozen: bool| {
        let mut trainee = trainee(change);
        trainee.policy = trainee.policy.with_graph_frozen(frozen);
        let rollout = trainee.collect(&plan).expect("a rollout");
        let log_probs = rollout.log_probs.clone();
        let batch = trainee.batch(rollout);
        let metrics = trainee.update(&batch, &plan).expect("an update");
        let deviation = metrics.get(names::TRAIN_RATIO_DEVIATION_FIRST).expect("a metric of every update");
        let parameters: Vec<Vec<f32>> = export(&trainee.policy).into_iter().map(|t| t.data).collect();
        (log_probs, deviation, parameters)
    };
    let plain = iterate(|_| (), false);
    for (i, change) in dropouts().into_iter().enumerate() {
        let dropped = iterate(change, false);
        assert_eq!(dropped.0, plain.0, "{i}: rollouts are whole");
        assert!(plain.1 <= 1e-6 && dropped.1 > 1e-3, "{i}: {:.1e}, {:.1e}", plain.1, dropped.1);
        assert_ne!(dropped.2, plain.2, "{i}");
        assert_eq!(dropped.2, iterate(change, false).2, "{i}: the same seed, the same draws");
        assert_eq!(iterate(change, true).2, iterate(|_| (), true).2, "{i}: nothing to drop when frozen");
    }
}

#[test]
fn version_two_routes_one_expert_by_what_is_observed_not_by_its_encoding() {
    let silent_trunk = |architecture: Architecture| {
        let mut trainee = Trainee::new(&camp::ENTRY, &Params::new(6, 7), &small_policy(architecture, 3));
        let rollout = trainee.collect(&plan(Routing::Gumbel, 1.0, 0.0)).expect("a rollout");
        let whole = rollout.gates.iter().all(|&gate| gate == 0.0 || gate == 1.0);
        assert!(whole && rollout.gates.iter().sum::<f32>() == rollout.actions.len() as f32);
        let spec = &trainee.learner.spec;
        let rows = observation(spec, &rollout.observations, 0..20);
        let gates = trainee.policy.evaluate(&rows, softmax(), 0).gates.expect("a router");
        let all = gradients(&trainee.policy, gates.logits.square().sum());
        let part = |name: &str| {
            let mut own = all.iter().filter(move |gradient| gradient.path.starts_with(name));
            own.all(|gradient| gradient.is_silent())
        };
        assert!(!part("router") && !part("graph"), "{architecture:?}: the router reads h_graph");
        part("actor_trunk")
    };
    assert!(silent_trunk(Architecture::V2));
    assert!(!silent_trunk(Architecture::Routed));
}

const CAMP: &str = r#"
    about = "options test"
    [env]
    name = "camp"
    [run]
    total_steps = 288
    num_envs = 6
    checkpoint_every = 1
    keep_checkpoints = 100
    [policy]
    experts = ["survival", "combat", "general"]
    trunk = [16]
    expert_hidden = [16]
    router_hidden = [16]
    [policy.gat]
    hidden = 8
    heads = 2
    [ppo]
    num_steps = 16
    minibatch = 48
    epochs = 2
    [curriculum]
    lr_scale = 30.0
    lr_warmup_steps = 0
    [eval]
    episodes = 1
"#;

/// What a run on camp left behind.
struct Ran {
    metrics: Vec<serde_json::Value>,
    /// Saved states, oldest first.
    states: Vec<serde_json::Value>,
    warnings: Vec<String>,
}

struct Warnings(Vec<String>);

impl Reporter for Warnings {
    fn event(&mut self, event: &Event) {
        if let Event::Warning(text) = event {
            self.0.push(text.clone());
        }
    }
}

fn ran(overrides: &[&str]) -> Ran {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    let entries = [camp::ENTRY];
    let config = layers::resolve("test", CAMP, &overrides, &entries).unwrap_or_else(|e| panic!("{e}"));
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let options = RunOptions { run_dir: Some(run.clone()), threads: 1, ..RunOptions::default() };
    let mut warnings = Warnings(Vec::new());
    train(&config, &options, &entries, &mut warnings).unwrap_or_else(|e| panic!("{overrides:?}: {e}"));
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let mut saved = checkpoint::list(&run.join("checkpoints")).unwrap();
    saved.sort();
    let state = |(_, path): (u64, PathBuf)| checkpoint::load(&path).unwrap().state().unwrap();
    Ran {
        metrics: metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
        states: saved.into_iter().map(state).collect(),
        warnings: warnings.0,
    }
}

#[test]
fn version_two_routes_by_gumbel_noise_in_every_phase() {
    let routed = ran(&[]);
    let v2 = ran(&["policy.architecture=v2"]);
    assert_eq!(v2.metrics.len(), 3, "an iteration in each phase");
    for (routed, v2) in routed.metrics.iter().zip(&v2.metrics) {
        assert_eq!(v2["router/entropy"], 0.0, "one expert at a time");
        assert_ne!(routed["router/entropy"], 0.0);
        assert!(v2["train/ratio_deviation_first"].as_f64().unwrap() <= 1e-5);
        for constant in ["losses/gate_entropy", "losses/overlap", "losses/temporal"] {
            assert!(v2[constant].is_null(), "{constant} is constant where one expert acts");
        }
    }
}

#[test]
fn a_selection_bias_moves_by_a_thousandth_per_iteration_against_the_load() {
    let balanced = ran(&["losses.load_balance=bias", "curriculum.routing=top-k", "curriculum.top_k=1"]);
    let biases = |state: &serde_json::Value| -> Vec<f64> {
        let bias = state["learned"]["selection_bias"].as_array().expect("a state with biases");
        bias.iter().map(|b| b.as_f64().unwrap()).collect()
    };
    assert_eq!(biases(&balanced.states[0]), [0.0; 3]);
    for (i, metrics) in balanced.metrics.iter().enumerate() {
        assert!(metrics["losses/load_balance"].is_null(), "no loss");
        let (before, after) = (biases(&balanced.states[i]), biases(&balanced.states[i + 1]));
        for (k, expert) in ["survival", "combat", "general"].into_iter().enumerate() {
            // With one expert a decision its mean gate is its load.
            let load = metrics[format!("router/usage/{expert}")].as_f64().unwrap();
            let expected = if load > 1.0 / 3.0 { -1e-3 } else { 1e-3 };
            let moved = after[k] - before[k];
            assert!((moved - expected).abs() < 1e-8, "{expert} at load {load}: {moved}");
        }
    }
    assert!(ran(&[]).states.iter().all(|state| biases(state).is_empty()), "none without the option");
}

#[test]
fn every_dropout_warns_at_the_start_of_a_run() {
    let dropping = ran(&["policy.gat.edge_dropout=0.25", "policy.gat.feature_dropout=0.5"]);
    let of_dropouts =
        |ran: &Ran| ran.warnings.iter().filter(|text| text.contains("_dropout")).cloned().collect();
    let warnings: Vec<String> = of_dropouts(&dropping);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("policy.gat.feature_dropout = 0.5: "), "{warnings:?}");
    assert!(warnings[1].starts_with("policy.gat.edge_dropout = 0.25: "), "{warnings:?}");
    let without: Vec<String> = of_dropouts(&ran(&[]));
    assert_eq!(without, Vec::<String>::new());
}

#[test]
fn a_gradient_of_a_frozen_graph_is_none_and_cross_attention_over_it_learns() {
    let mut trainee = trainee(|c| c.cross_attention = true);
    trainee.policy = trainee.policy.with_graph_frozen(true);
    let before = export(&trainee.policy);
    let weights = Coefficients { alignment: 1.0, ..Coefficients::default() };
    trainee.iterate(&Plan { coefficients: weights, ..plan(Routing::Softmax, 0.5, 3e-3) });
    for (before, after) in before.iter().zip(export(&trainee.policy)) {
        let same = before.data == after.data;
        assert_eq!(same, before.path.starts_with("graph"), "{}", before.path);
    }
}
