//! Computing distinct rows alone: the bits of computing all rows, and their gradients.

use burn::backend::{Autodiff, Flex};
use burn::module::{AutodiffModule, Module, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData, backend::AutodiffBackend};
use gatefold_gat::{Attention, AttentionTemperature, GatConfig, GraphEncoder, GraphEncoding, Heads};
use gatefold_graph::TypedGraph;
use gatefold_ops::OpsBackend;
use rand::RngExt as _;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

type Train = Autodiff<Flex>;

/// What a case draws: an encoder, and a batch in which little is active and much repeats.
struct Case {
    config: GatConfig,
    graph: TypedGraph,
    features: usize,
    states: usize,
    activations: Vec<f32>,
    node_features: Vec<f32>,
    /// What the loss weighs graph vectors and scores by.
    weights: Vec<f32>,
}

impl Case {
    fn draw(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let nodes = rng.random_range(20..60);
        let mut graph = TypedGraph::new("random", &["inner", "read"], &["read"]);
        for node in 0..nodes {
            graph.add_node(&node.to_string(), if node < 3 { "read" } else { "inner" }, None).unwrap();
        }
        for _ in 0..3 * nodes {
            let [from, to] = [0; 2].map(|_| rng.random_range(0..nodes).to_string());
            graph.add_edge(&from, &to, ["a", "b"][rng.random_range(0..2)]).unwrap();
        }
        // Without loops a node that nothing leads to is only carried on.
        let graph = if rng.random() { graph.with_self_loops() } else { graph };
        let config = GatConfig {
            hidden: [32, 12][rng.random_range(0..2)],
            heads: [4, 2][rng.random_range(0..2)],
            layers: rng.random_range(1..4),
            attention: [Attention::Gat, Attention::Gatv2][rng.random_range(0..2)],
            combine: [Heads::Concatenate, Heads::Average][rng.random_range(0..2)],
            attention_temperature: [AttentionTemperature::Fixed, AttentionTemperature::Learned]
                [rng.random_range(0..2)],
            node_norm_clip: [0.0, 2.0][rng.random_range(0..2)],
            ..GatConfig::default()
        };
        let features = [0, 2][rng.random_range(0..2)];
        let states = rng.random_range(2..300);
        let known = rng.random_range(1..6);
        let draw = |_| {
            let mut activations = vec![0.0; nodes];
            for _ in 0..rng.random_range(0..3) {
                activations[rng.random_range(0..nodes)] = [1.0, 0.5, 0.25][rng.random_range(0..3)];
            }
            let mut node_features = vec![0.0; nodes * features];
            if features > 0 && rng.random() {
                node_features[rng.random_range(0..nodes * features)] = rng.random_range(-1.0..1.0);
            }
            (activations, node_features)
        };
        let library: Vec<_> = (0..known).map(draw).collect();
        let (mut activations, mut node_features) = (Vec::new(), Vec::new());
        for _ in 0..states {
            let (of_nodes, of_features) = &library[rng.random_range(0..known)];
            activations.extend_from_slice(of_nodes);
            node_features.extend_from_slice(of_features);
        }
        let weights = (0..states * (config.hidden + 3)).map(|_| rng.random_range(-1.0..1.0)).collect();
        Self { config, graph, features, states, activations, node_features, weights }
    }

    fn encoder<B: OpsBackend>(&self) -> GraphEncoder<B> {
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        GraphEncoder::new(&self.config, &self.graph, self.features, rng, &Default::default())
    }

    fn inputs<B: OpsBackend>(&self) -> (Tensor<B, 2>, Option<Tensor<B, 3>>) {
        let (nodes, device) = (self.graph.num_nodes(), Default::default());
        let activations = TensorData::new(self.activations.clone(), [self.states, nodes]);
        let features = TensorData::new(self.node_features.clone(), [self.states, nodes, self.features]);
        let features = (self.features > 0).then(|| Tensor::from_data(features, &device));
        (Tensor::from_data(activations, &device), features)
    }

    /// By distinct rows where they are few.
    fn some<B: OpsBackend>(&self, encoder: &GraphEncoder<B>) -> GraphEncoding<B> {
        let (activations, features) = self.inputs();
        encoder.forward_with(activations, features, None, 0)
    }

    fn all<B: OpsBackend>(&self, encoder: &GraphEncoder<B>) -> GraphEncoding<B> {
        let (activations, features) = self.inputs();
        encoder.forward(activations, features)
    }

    /// Every parameter's gradient.
    fn gradients(&self, encode: fn(&Self, &GraphEncoder<Train>) -> GraphEncoding<Train>) -> Vec<Vec<f32>> {
        let encoder = self.encoder::<Train>();
        let encoding = encode(self, &encoder);
        let both = Tensor::cat(vec![encoding.graph, encoding.scores], 1);
        let weights = TensorData::new(self.weights.clone(), both.dims());
        let grads = (both * Tensor::from_data(weights, &Default::default())).sum().backward();
        let mut found = Gradients { grads: &grads, of: Vec::new() };
        encoder.visit(&mut found);
        found.of
    }
}

struct Gradients<'a> {
    grads: &'a <Train as AutodiffBackend>::Gradients,
    of: Vec<Vec<f32>>,
}

impl ModuleVisitor<Train> for Gradients<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Train, D>>) {
        let gradient = param.val().grad(self.grads).expect("every parameter learns");
        self.of.push(gradient.into_data().to_vec().unwrap());
    }
}

fn bits<B: OpsBackend, const D: usize>(tensor: &Tensor<B, D>) -> Vec<u32> {
    tensor.to_data().to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

fn seen<B: OpsBackend>(encoding: &GraphEncoding<B>) -> [Vec<u32>; 3] {
    [bits(&encoding.graph), bits(&encoding.scores), bits(&encoding.readout.nodes())]
}

fn is_over_distinct_rows<B: OpsBackend>(encoding: &GraphEncoding<B>) -> bool {
    encoding.distinct.is_some()
}

#[test]
fn distinct_rows_give_the_bits_and_the_gradients_of_all_rows() {
    let mut over_distinct = 0;
    for seed in 0..60 {
        let case = Case::draw(seed);
        let about = format!("seed {seed}: {:?}, {} states", case.config, case.states);
        let encoder = case.encoder::<Train>();
        let (some, all) = (case.some(&encoder), case.all(&encoder));
        assert!(seen(&some) == seen(&all), "{about}");
        assert!(!is_over_distinct_rows(&all), "{about}");
        assert!(seen(&case.some(&encoder.valid())) == seen(&all), "{about}: without gradients");
        if !is_over_distinct_rows(&some) {
            continue;
        }
        over_distinct += 1;
        let of_some = case.gradients(Case::some);
        for (some, all) in of_some.iter().zip(case.gradients(Case::all)) {
            let norm = |xs: &[f32]| xs.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let difference: Vec<f32> = some.iter().zip(&all).map(|(a, b)| a - b).collect();
            // Gradients of weights before a norm cancel to nothing.
            assert!(
                norm(&difference) <= 1e-5 * norm(&all) + 1e-4,
                "{about}: {} of {}",
                norm(&difference),
                norm(&all)
            );
        }
        assert!(of_some == case.gradients(Case::some), "{about}: the same bits again");
    }
    assert!(over_distinct > 30, "{over_distinct} cases repeat enough");
}

#[test]
fn what_an_earlier_batch_left_changes_nothing() {
    for seed in 0..20 {
        let mut case = Case::draw(seed);
        let encoder = case.encoder::<Flex>();
        case.some(&encoder);
        let nodes = case.graph.num_nodes();
        // Fewer states, other activations, and then all of these.
        let (whole, features) = ((case.states, case.activations.clone()), case.node_features.clone());
        case.activations.iter_mut().for_each(|activation| *activation *= 0.5);
        for states in [case.states.div_ceil(3), whole.0] {
            case.states = states;
            case.activations.truncate(states * nodes);
            case.node_features.truncate(states * nodes * case.features);
            let (again, fresh) = (case.some(&encoder), case.some(&case.encoder::<Flex>()));
            assert!(seen(&again) == seen(&fresh), "seed {seed}: {states} states");
            assert_eq!(again.distinct, fresh.distinct, "seed {seed}: {states} states");
            case.activations.clone_from(&whole.1);
            case.node_features.clone_from(&features);
        }
    }
}

#[test]
fn what_repeats_is_computed_once() {
    let mut graph = TypedGraph::new("star", &["leaf", "centre"], &["centre"]);
    graph.add_node("centre", "centre", None).unwrap();
    for leaf in 0..20 {
        graph.add_node(&leaf.to_string(), "leaf", None).unwrap();
        graph.add_edge(&leaf.to_string(), "centre", "leads").unwrap();
    }
    let mut case = Case::draw(0);
    (case.config, case.features) = (GatConfig { layers: 1, ..GatConfig::default() }, 0);
    (case.graph, case.node_features) = (graph.with_self_loops(), Vec::new());
    // Graphs of 128 states; of 128 and 22; of 200 each; of 256 each and 88.
    for (states, graphs) in [(128, 1), (150, 2), (400, 2), (600, 3)] {
        // One of three leaves is active in each state, one of them to two degrees.
        case.states = states;
        case.activations = vec![0.0; states * 21];
        for state in 0..states {
            case.activations[state * 21 + 1 + state % 3] = if state % 12 == 0 { 0.5 } else { 1.0 };
        }
        // In each graph 21 rows at rest and 4 moved ones lead to 1 and 4.
        let distinct = case.some(&case.encoder::<Flex>()).distinct;
        assert_eq!(distinct, Some(graphs * (21 + 4 + 1 + 4)), "{states} states");
    }
}

#[test]
fn states_that_do_not_repeat_are_computed_whole() {
    let mut case = Case::draw(3);
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    case.activations.iter_mut().for_each(|activation| *activation = rng.random());
    assert!(!is_over_distinct_rows(&case.some(&case.encoder::<Flex>())));
}

#[test]
fn a_nan_stays_one() {
    let mut case = Case::draw(3);
    let encoder = case.encoder::<Flex>();
    let node = encoder.readout_nodes()[0] as usize;
    let nodes = case.graph.num_nodes();
    case.activations[nodes + node] = f32::NAN;
    let encoding = case.some(&encoder);
    assert!(is_over_distinct_rows(&encoding));
    let of_state = |state| encoding.graph.clone().slice([state..state + 1, 0..1]).into_scalar().is_nan();
    assert!(of_state(1) && !of_state(0), "in its own state alone");
}
