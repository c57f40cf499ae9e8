//! What rollouts and updates must agree on, for every routing and architecture.

use std::ops::Range;

use burn::backend::Flex;
use burn::module::AutodiffModule;
use burn::tensor::{Tensor, TensorData, backend::Backend};
use gatefold_curriculum::Routing;
use gatefold_env::{ObservationBatch, Params, Purpose, stream};
use gatefold_gat::{GatConfig, GraphEncoder, Heads};
use gatefold_graph::TypedGraph;
use gatefold_monitor::names::TRAIN_RATIO_DEVIATION_FIRST;
use gatefold_ops::mix;
use gatefold_policy::{ActorCritic, Architecture, Evaluation, RoutingInput};
use gatefold_tests::camp;
use gatefold_tests::fixture::matrix;
use gatefold_tests::gradients::gradients;
use gatefold_tests::tolerance::{assert_norm, bits, relative_error, values};
use gatefold_tests::trainee::{Train, Trainee, observation, plan, small_policy};

// B rows, V graph nodes, K experts, A actions

const ROUTINGS: [(Routing, usize); 9] = [
    (Routing::Softmax, 4),
    (Routing::Sparsemax, 4),
    (Routing::Blend { weight: 0.3 }, 4),
    (Routing::Entmax15, 4),
    (Routing::TopK { k: 2 }, 4),
    (Routing::Gumbel, 4),
    (Routing::Uniform, 4),
    (Routing::Random, 4),
    (Routing::Dense, 1),
];

/// Those whose updates leave out experts.
const SPARSE: [Routing; 3] = [Routing::Sparsemax, Routing::Entmax15, Routing::TopK { k: 2 }];

/// Those that draw or select something, which the rollout keeps for the update.
const DRAWN: [Routing; 3] = [Routing::TopK { k: 2 }, Routing::Gumbel, Routing::Random];

/// Sharp enough for sparsemax gates that are exactly 0, also at initialisation.
const SHARP: f32 = 0.02;

fn trainee(architecture: Architecture, num_experts: usize) -> Trainee {
    let mut config = small_policy(architecture, num_experts);
    config.normalize_observations = true;
    Trainee::new(&camp::ENTRY, &Params::new(6, 7), &config)
}

/// Observations of a rollout, as many as there are rows.
fn observations(trainee: &mut Trainee) -> ObservationBatch {
    trainee.collect(&plan(Routing::Softmax, 1.0, 0.0)).expect("a rollout").observations
}

/// What a routing draws for `rows` rows, `[rows, K]`; empty where it draws nothing before it routes.
fn draws(trainee: &Trainee, routing: Routing, rows: usize) -> Vec<f32> {
    let mut rng = stream(3, Purpose::Actions, 0);
    let drawn = trainee.policy.valid().draw(routing, rows, &mut rng, &Default::default());
    drawn.map_or_else(Vec::new, values)
}

/// A routing of rows `rows` with what was drawn for them.
fn input<B: Backend>(
    routing: Routing,
    temperature: f32,
    drawn: &[f32],
    rows: Range<usize>,
) -> RoutingInput<B> {
    const K: usize = 4;
    let drawn = (!drawn.is_empty()).then(|| {
        let of_rows = drawn[rows.start * K..rows.end * K].to_vec();
        Tensor::from_data(TensorData::new(of_rows, [rows.len(), K]), &Default::default())
    });
    RoutingInput::new(routing, temperature).with_drawn(drawn)
}

#[test]
fn the_ratio_is_1_on_the_first_minibatch_of_every_iteration() {
    for (routing, num_experts) in ROUTINGS {
        for temperature in [0.5, SHARP] {
            let mut trainee = trainee(Architecture::Routed, num_experts);
            let plan = plan(routing, temperature, 3e-3);
            for iteration in 0..4 {
                let metrics = trainee.iterate(&plan);
                let deviation = metrics.get(TRAIN_RATIO_DEVIATION_FIRST).expect("a metric of every update");
                let allowed = if iteration == 0 { 1e-6 } else { 1e-5 };
                assert!(
                    deviation <= allowed,
                    "{routing:?} at {temperature}, iteration {iteration}: {deviation:.1e}"
                );
            }
        }
    }
}

#[test]
fn the_update_routes_with_what_the_rollout_drew() {
    for (routing, num_experts) in ROUTINGS {
        let plan = plan(routing, 1.0, 3e-3);
        let deviation = |spoil: fn(&mut [f32])| {
            let mut trainee = trainee(Architecture::Routed, num_experts);
            let rollout = trainee.collect(&plan).expect("a rollout");
            let mut batch = trainee.batch(rollout);
            assert_eq!(batch.rollout.drawn.is_empty(), !DRAWN.contains(&routing), "{routing:?}");
            batch.rollout.drawn.chunks_exact_mut(4).for_each(spoil);
            let metrics = trainee.update(&batch, &plan).expect("an update");
            metrics.get(TRAIN_RATIO_DEVIATION_FIRST).expect("a metric of every update")
        };
        let (kept, spoiled) = (deviation(|_| ()), deviation(|row| row.rotate_left(1)));
        assert!(kept <= 1e-6, "{routing:?}: {kept:.1e}");
        if DRAWN.contains(&routing) {
            assert!(spoiled > 1e-2, "{routing:?} with other draws: {spoiled:.1e}");
        } else {
            assert_eq!(spoiled, kept, "{routing:?} draws nothing");
        }
    }
}

#[test]
fn conditional_computation_has_the_bits_of_the_dense_computation() {
    for (routing, num_experts) in ROUTINGS {
        let mut trainee = trainee(Architecture::Routed, num_experts);
        let spec = trainee.learner.spec.clone();
        let host = observations(&mut trainee);
        let (rows, acting) = (host.rows(), trainee.policy.valid());
        let drawn = draws(&trainee, routing, rows);
        let act = acting.act(&observation(&spec, &host, 0..rows), input(routing, SHARP, &drawn, 0..rows));
        let update = acting.evaluate(
            &observation(&spec, &host, 0..rows),
            input(routing, SHARP, &drawn, 0..rows),
            usize::MAX,
        );
        let tracked = trainee.policy.evaluate(
            &observation(&spec, &host, 0..rows),
            input(routing, SHARP, &drawn, 0..rows),
            usize::MAX,
        );

        // With gradients Burn's softmax sums in another order than without.
        let tracked = (tracked.logits.inner(), tracked.values.inner());
        for (part, got, expected) in [
            ("logits", values(tracked.0), values(update.logits.clone())),
            ("values", values(tracked.1), values(update.values.clone())),
        ] {
            let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
            assert_norm(&format!("{routing:?}, {part} with gradients"), &got, &expected, 1e-6);
        }
        let act_logits = bits(act.logits);
        assert!(act_logits == bits(update.logits), "{routing:?}: logits of act and evaluate differ");
        assert!(bits(act.values) == bits(update.values), "{routing:?}: values of act and evaluate differ");

        if let (Some(gates), Some(each)) = (act.gates, update.expert_logits) {
            let zeros = values(gates.alpha.clone()).into_iter().filter(|&gate| gate == 0.0).count();
            let sparse = routing.skips_in_rollouts();
            assert!(!sparse || zeros > rows, "{routing:?}: only {zeros} of {} gates are 0", 4 * rows);
            let dense = mix(gates.alpha, each);
            assert!(bits(dense) == act_logits, "{routing:?}: skipped experts change the mixed logits");
        }
    }
}

/// A loss in which every logit and value counts differently.
fn loss(logits: Tensor<Train, 2>, state_values: Tensor<Train, 1>) -> Tensor<Train, 1> {
    let [rows, num_actions] = logits.dims();
    let weights: Vec<f64> = (0..rows * num_actions).map(|i| (1.7 * i as f64).sin()).collect();
    let by_logit: Vec<Vec<f64>> = weights.chunks_exact(num_actions).map(<[f64]>::to_vec).collect();
    (logits * matrix(&by_logit)).sum() + state_values.square().sum()
}

#[test]
fn gradients_that_skip_experts_are_those_of_the_dense_computation() {
    for routing in SPARSE {
        let mut trainee = trainee(Architecture::Routed, 4);
        let spec = trainee.learner.spec.clone();
        let host = observations(&mut trainee);
        let rows = host.rows();
        let policy = &trainee.policy;
        let evaluate = || {
            let observation = observation(&spec, &host, 0..rows);
            policy.evaluate(&observation, RoutingInput::new(routing, SHARP), usize::MAX)
        };
        let skipping = evaluate();
        let skipping = gradients(policy, loss(skipping.logits, skipping.values));
        let dense = evaluate();
        let mixed =
            mix(dense.gates.expect("a router").alpha, dense.expert_logits.expect("all were compared"));
        let dense = gradients(policy, loss(mixed, dense.values));
        for (skipping, dense) in skipping.iter().zip(&dense) {
            assert!(!dense.is_silent(), "{routing:?}: no gradient in {}", dense.path);
            let expected: Vec<f64> = dense.values.iter().map(|&x| f64::from(x)).collect();
            assert_norm(&format!("{routing:?}, {}", dense.path), &skipping.values, &expected, 1e-6);
        }
    }
}

#[test]
fn an_expert_outside_the_support_gets_no_gradient_at_all() {
    for routing in SPARSE {
        let mut trainee = trainee(Architecture::Routed, 4);
        let spec = trainee.learner.spec.clone();
        let host = observations(&mut trainee);
        let mut outside = 0;
        for row in 0..8 {
            let input = RoutingInput::new(routing, SHARP);
            let evaluation = trainee.policy.evaluate(&observation(&spec, &host, row..row + 1), input, 0);
            let gates = values(evaluation.gates.expect("a router").alpha);
            let all = gradients(&trainee.policy, loss(evaluation.logits, evaluation.values));
            for gradient in all.iter().filter(|gradient| gradient.path.starts_with("head")) {
                let each = gradient.values.chunks_exact(gradient.values.len() / gates.len());
                for (values, &gate) in each.zip(&gates) {
                    let silent = values.iter().all(|&g| g == 0.0);
                    assert_eq!(
                        silent,
                        gate == 0.0,
                        "{routing:?}, row {row}: {} at gate {gate}",
                        gradient.path
                    );
                    outside += usize::from(silent);
                }
            }
        }
        assert!(outside > 8, "{routing:?}: {outside}");
    }
}

#[test]
fn a_batch_has_the_bits_of_its_rows_one_by_one() {
    let cases = ROUTINGS
        .map(|(routing, experts)| (Architecture::Routed, routing, experts))
        .into_iter()
        .chain([(Architecture::MlpGat, Routing::Dense, 1), (Architecture::Mlp, Routing::Dense, 1)]);
    for (architecture, routing, num_experts) in cases {
        let mut trainee = trainee(architecture, num_experts);
        let spec = trainee.learner.spec.clone();
        let host = observations(&mut trainee);
        let policy = trainee.policy.valid();
        let rows = 37;
        let parts = |evaluation: Evaluation<Flex>| {
            let gates = evaluation.gates.map_or_else(Vec::new, |gates| bits(gates.alpha));
            [bits(evaluation.logits), bits(evaluation.values), gates]
        };
        let drawn = draws(&trainee, routing, rows);
        let batch = parts(policy.evaluate(
            &observation(&spec, &host, 0..rows),
            input(routing, 0.3, &drawn, 0..rows),
            usize::MAX,
        ));
        let whole = observation(&spec, &host, 0..rows);
        assert_eq!(bits(policy.values(&whole)), batch[1], "{architecture:?}: the critic alone");
        for row in 0..rows {
            let single = parts(policy.evaluate(
                &observation(&spec, &host, row..row + 1),
                input(routing, 0.3, &drawn, row..row + 1),
                usize::MAX,
            ));
            for ((part, batch), single) in ["logits", "values", "gates"].iter().zip(&batch).zip(&single) {
                let width = single.len();
                assert_eq!(
                    batch[row * width..(row + 1) * width],
                    single[..],
                    "{architecture:?}, {routing:?}: {part} of row {row}"
                );
            }
        }
    }
}

/// How many parameters there are, and the names of those whose gradient is 0; of a stack of experts,
/// each expert's.
fn silent_parameters(policy: &ActorCritic<Train>, evaluation: Evaluation<Train>) -> (usize, Vec<String>) {
    let all = gradients(policy, loss(evaluation.logits, evaluation.values));
    let quiet = all.iter().flat_map(|gradient| {
        let stack = if gradient.shape.len() == 3 { gradient.shape[0] } else { 1 };
        let each = gradient.values.chunks_exact(gradient.values.len() / stack).enumerate();
        each.filter(|(_, values)| values.iter().all(|&g| g == 0.0))
            .map(|(slice, _)| format!("{} [{slice}]", gradient.path))
    });
    (all.len(), quiet.collect())
}

#[test]
fn every_trainable_parameter_gets_a_gradient() {
    let cases = [
        (Architecture::Routed, 4, "router"),
        (Architecture::Routed, 1, "head"),
        (Architecture::MlpGat, 1, "graph"),
        (Architecture::Mlp, 1, "value"),
    ];
    for (architecture, num_experts, part) in cases {
        let mut trainee = trainee(architecture, num_experts);
        let spec = trainee.learner.spec.clone();
        let host = observations(&mut trainee);
        let rows = observation(&spec, &host, 0..host.rows());
        let evaluation = trainee.policy.evaluate(&rows, RoutingInput::new(Routing::Softmax, 1.0), usize::MAX);
        let (visited, silent) = silent_parameters(&trainee.policy, evaluation);
        assert!(silent.is_empty(), "{architecture:?} with {num_experts} experts: no gradient in {silent:?}");
        let parameters = gatefold_optim::export(&trainee.policy);
        assert_eq!(visited, parameters.len());
        let found = parameters.iter().any(|parameter| parameter.path.starts_with(part));
        assert!(found, "{architecture:?} has no {part}: {:?}", parameters.last().map(|p| &p.path));
    }
}

#[test]
fn a_parameter_that_takes_no_part_is_named_as_silent() {
    let mut trainee = trainee(Architecture::Routed, 4);
    let spec = trainee.learner.spec.clone();
    let host = observations(&mut trainee);
    let rows = observation(&spec, &host, 0..host.rows());
    let evaluation = trainee.policy.evaluate(&rows, RoutingInput::new(Routing::Uniform, 1.0), usize::MAX);
    let (_, silent) = silent_parameters(&trainee.policy, evaluation);
    assert!(!silent.is_empty() && silent.iter().all(|name| name.starts_with("router")), "{silent:?}");
}

/// Whether each node's activation can reach a readout node through `layers` layers.
fn reaches_readout(graph: &TypedGraph, layers: usize) -> Vec<bool> {
    let csr = graph.csr();
    let mut reached = vec![false; graph.num_nodes()];
    for node in graph.readout_nodes() {
        reached[node] = true;
    }
    for _ in 0..layers {
        let before = reached.clone();
        for target in (0..graph.num_nodes()).filter(|&node| before[node]) {
            csr.in_edges(target).for_each(|(source, _, _)| reached[source as usize] = true);
        }
    }
    reached
}

/// A chain of conditions of which the first is too far from the operator to matter.
fn chain() -> TypedGraph {
    let mut graph = TypedGraph::new("chain", &["condition", "operator"], &["operator"]);
    let ids = ["far", "near", "next"];
    for id in ids {
        graph.add_node(id, "condition", None).expect("a new id");
    }
    graph.add_node("do", "operator", None).expect("a new id");
    for (from, to) in [("far", "near"), ("near", "next"), ("next", "do")] {
        graph.add_edge(from, to, "precondition").expect("known ids");
    }
    graph.with_self_loops()
}

#[test]
fn flipping_an_activation_that_reaches_a_readout_node_moves_the_graph_vector() {
    let params = Params::new(1, 3);
    let mut delve = (gatefold_envs::delve::ENTRY.build)(&params).expect("delve builds");
    let mut seen = ObservationBatch::new(delve.spec(), 1);
    delve.reset(seen.as_mut()).expect("delve resets");
    let knowledge = delve.spec().graph.clone().expect("delve has a graph");
    let everywhere = reaches_readout(&knowledge, 1);
    assert!(everywhere.iter().all(|&reaches| reaches), "every node of delve is one step from an operator");

    let average = GatConfig { combine: Heads::Average, ..GatConfig::default() };
    let cases = [
        (&*knowledge, GatConfig::default(), seen.activations),
        (&*knowledge, average, vec![0.5; knowledge.num_nodes()]),
        (&chain(), GatConfig::default(), vec![0.0, 1.0, 0.0, 1.0]),
    ];
    for (graph, config, start) in cases {
        let mut rng = stream(5, Purpose::Initialisation, 0);
        let encoder = GraphEncoder::<Flex>::new(&config, graph, 0, &mut rng, &Default::default());
        let reaches = reaches_readout(graph, config.layers);
        for base in [vec![0.0; start.len()], vec![1.0; start.len()], start] {
            let flipped = (0..base.len()).map(|node| {
                let mut row = base.clone();
                row[node] = if row[node] < 0.5 { 1.0 } else { 0.0 };
                row
            });
            let rows: Vec<Vec<f64>> = std::iter::once(base.clone())
                .chain(flipped)
                .map(|row| row.into_iter().map(f64::from).collect())
                .collect();
            let vectors = values(encoder.forward(matrix(&rows), None).graph);
            let mut vectors = vectors.chunks_exact(encoder.hidden());
            let before: Vec<f64> = vectors.next().expect("the base").iter().map(|&x| f64::from(x)).collect();
            for (node, after) in vectors.enumerate() {
                let moved = relative_error(after, &before);
                let id = &graph.node(node).id;
                if reaches[node] {
                    assert!(moved >= 1e-3, "{}: flipping `{id}` moves it by {moved:.1e}", graph.name());
                } else {
                    assert_eq!(moved, 0.0, "{}: `{id}` reaches no readout node", graph.name());
                }
            }
        }
    }
}
