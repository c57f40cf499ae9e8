//! What rollouts and updates must agree on, for every routing and architecture.

use burn::backend::Flex;
use burn::module::{AutodiffModule, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use gatefold_curriculum::Routing;
use gatefold_env::{ObservationBatch, Params, Purpose, stream};
use gatefold_gat::{GatConfig, GraphEncoder, Heads};
use gatefold_graph::TypedGraph;
use gatefold_monitor::names::TRAIN_RATIO_DEVIATION_FIRST;
use gatefold_ops::mix;
use gatefold_policy::{ActorCritic, Architecture, Evaluation, RoutingInput};
use gatefold_tests::camp;
use gatefold_tests::fixture::matrix;
use gatefold_tests::tolerance::{assert_norm, bits, relative_error, values};
use gatefold_tests::trainee::{Train, Trainee, observation, plan, small_policy};

// B rows, V graph nodes, K experts, A actions

const ROUTINGS: [(Routing, usize); 5] = [
    (Routing::Softmax, 4),
    (Routing::Sparsemax, 4),
    (Routing::Blend { weight: 0.3 }, 4),
    (Routing::Uniform, 4),
    (Routing::Dense, 1),
];

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
fn conditional_computation_has_the_bits_of_the_dense_computation() {
    for (routing, num_experts) in ROUTINGS {
        let mut trainee = trainee(Architecture::Routed, num_experts);
        let spec = trainee.learner.spec.clone();
        let host = observations(&mut trainee);
        let (rows, acting) = (host.rows(), trainee.policy.valid());
        let act = acting.act(&observation(&spec, &host, 0..rows), RoutingInput::new(routing, SHARP));
        let dense = acting.evaluate(
            &observation(&spec, &host, 0..rows),
            RoutingInput::new(routing, SHARP),
            usize::MAX,
        );
        let tracked = trainee.policy.evaluate(
            &observation(&spec, &host, 0..rows),
            RoutingInput::new(routing, SHARP),
            usize::MAX,
        );

        let (gates, each) = (act.gates.clone(), dense.expert_logits.clone());
        let got_logits = bits(act.logits.clone());
        // With gradients Burn's softmax sums in another order than without.
        let tracked = (tracked.logits.inner(), tracked.values.inner());
        for (part, got, expected) in [
            ("logits", values(tracked.0), values(dense.logits.clone())),
            ("values", values(tracked.1), values(dense.values.clone())),
        ] {
            let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
            assert_norm(&format!("{routing:?}, {part} with gradients"), &got, &expected, 1e-6);
        }
        for (part, got, expected) in [
            ("logits", bits(act.logits), bits(dense.logits)),
            ("values", bits(act.values), bits(dense.values)),
        ] {
            assert!(got == expected, "{routing:?}: {part} of act and evaluate differ");
        }

        if routing == Routing::Sparsemax {
            let alpha = gates.expect("a router").alpha;
            let gates = values(alpha.clone());
            let zeros = gates.iter().filter(|&&gate| gate == 0.0).count();
            assert!(zeros > rows, "only {zeros} of {} gates are 0", gates.len());
            let mixed = mix(alpha, each.expect("all rows were compared"));
            assert!(bits(mixed) == got_logits, "{routing:?}: skipped experts change the mixed logits");
        }
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
        let batch = parts(policy.evaluate(
            &observation(&spec, &host, 0..rows),
            RoutingInput::new(routing, 0.3),
            usize::MAX,
        ));
        let whole = observation(&spec, &host, 0..rows);
        assert_eq!(bits(policy.values(&whole)), batch[1], "{architecture:?}: the critic alone");
        for row in 0..rows {
            let single = parts(policy.evaluate(
                &observation(&spec, &host, row..row + 1),
                RoutingInput::new(routing, 0.3),
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

/// Names the parameters whose gradient is missing or 0; of a stack of experts, each expert's.
struct Silent<'a> {
    grads: &'a GradientsParams,
    path: Vec<String>,
    visited: usize,
    silent: Vec<String>,
}

impl ModuleVisitor<Train> for Silent<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Train, D>>) {
        let stack = if D == 3 { param.dims()[0] } else { 1 };
        let gradient = self.grads.get::<Flex, D>(param.id).map(values).unwrap_or_default();
        let loud = |slice: usize| {
            let length = gradient.len() / stack;
            gradient[slice * length..(slice + 1) * length].iter().any(|&g| g != 0.0)
        };
        let quiet = (0..stack).filter(|&slice| !loud(slice));
        self.silent.extend(quiet.map(|slice| format!("{} [{slice}]", self.path.join("."))));
        self.visited += 1;
    }
}

fn silent_parameters(policy: &ActorCritic<Train>, evaluation: Evaluation<Train>) -> (usize, Vec<String>) {
    let [rows, num_actions] = evaluation.logits.dims();
    let weights: Vec<f64> = (0..rows * num_actions).map(|i| (1.7 * i as f64).sin()).collect();
    let by_logit: Vec<Vec<f64>> = weights.chunks_exact(num_actions).map(<[f64]>::to_vec).collect();
    let loss = (evaluation.logits * matrix(&by_logit)).sum() + evaluation.values.square().sum();
    let grads = GradientsParams::from_grads(loss.backward(), policy);
    let mut visitor = Silent { grads: &grads, path: Vec::new(), visited: 0, silent: Vec::new() };
    burn::module::Module::visit(policy, &mut visitor);
    (visitor.visited, visitor.silent)
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
