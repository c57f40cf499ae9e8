//! The encoder's options: each changes what it should, and nothing when it is off.

use burn::backend::{Autodiff, Flex};
use burn::module::{AutodiffModule, Module, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData, backend::AutodiffBackend};
use gatefold_gat::{Attention, AttentionTemperature, GatConfig, GraphEncoder, GraphEncoding, Heads};
use gatefold_graph::TypedGraph;
use gatefold_ops::OpsBackend;
use rand::RngExt as _;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

type Train = Autodiff<Flex>;
const ROWS: usize = 3;
const NODES: usize = 4;

/// A ring of four nodes of two kinds, one chord, self loops; everything is read out.
fn graph() -> TypedGraph {
    let mut graph = TypedGraph::new("ring", &["even", "odd"], &["even", "odd"]);
    for (id, kind) in [("a", "even"), ("b", "odd"), ("c", "even"), ("d", "odd")] {
        graph.add_node(id, kind, None).unwrap();
    }
    for (from, to) in [("a", "b"), ("b", "c"), ("c", "d"), ("d", "a"), ("a", "c")] {
        graph.add_edge(from, to, "next").unwrap();
    }
    graph.with_self_loops()
}

fn small() -> GatConfig {
    GatConfig { hidden: 8, heads: 2, ..GatConfig::default() }
}

fn encoder<B: OpsBackend>(config: &GatConfig) -> GraphEncoder<B> {
    GraphEncoder::new(config, &graph(), 2, &mut ChaCha8Rng::seed_from_u64(5), &Default::default())
}

fn inputs<B: OpsBackend>() -> (Tensor<B, 2>, Option<Tensor<B, 3>>) {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let mut draw = |count: usize| (0..count).map(|_| rng.random::<f32>()).collect::<Vec<_>>();
    let device = Default::default();
    let activations = TensorData::new(draw(ROWS * NODES), [ROWS, NODES]);
    let features = TensorData::new(draw(ROWS * NODES * 2), [ROWS, NODES, 2]);
    (Tensor::from_data(activations, &device), Some(Tensor::from_data(features, &device)))
}

fn forward<B: OpsBackend>(encoder: &GraphEncoder<B>) -> GraphEncoding<B> {
    let (activations, features) = inputs();
    encoder.forward(activations, features)
}

/// With draws of this seed.
fn drawn<B: OpsBackend>(encoder: &GraphEncoder<B>, seed: u64) -> GraphEncoding<B> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let draws = encoder.draw(ROWS, &mut rng, &Default::default()).expect("a dropout is on");
    let (activations, features) = inputs();
    encoder.forward_with(activations, features, Some(&draws), 0)
}

fn bits<B: OpsBackend>(encoding: &GraphEncoding<B>) -> Vec<u32> {
    let values = encoding.graph.to_data().to_vec::<f32>().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

fn dropouts() -> [GatConfig; 3] {
    [
        GatConfig { attention_dropout: 0.5, ..small() },
        GatConfig { feature_dropout: 0.5, ..small() },
        GatConfig { edge_dropout: 0.5, ..small() },
    ]
}

#[test]
fn without_dropout_nothing_is_drawn() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let clipped = GatConfig { node_norm_clip: 1.0, ..small() };
    assert!(encoder::<Flex>(&clipped).draw(ROWS, &mut rng, &Default::default()).is_none());
    assert_eq!(
        rng.random::<u64>(),
        ChaCha8Rng::seed_from_u64(1).random::<u64>(),
        "the stream was left alone"
    );
}

#[test]
fn a_dropout_leaves_rollouts_alone_and_changes_updates_by_its_draws() {
    let plain = bits(&forward(&encoder::<Flex>(&small())));
    for config in dropouts() {
        let encoder = encoder::<Flex>(&config);
        assert_eq!(bits(&forward(&encoder)), plain, "{config:?}: without draws");
        assert_ne!(bits(&drawn(&encoder, 1)), plain, "{config:?}: with draws");
        assert_eq!(bits(&drawn(&encoder, 1)), bits(&drawn(&encoder, 1)), "{config:?}: the same draws");
        assert_ne!(bits(&drawn(&encoder, 1)), bits(&drawn(&encoder, 2)), "{config:?}: other draws");
    }
}

#[test]
fn a_dropout_that_hits_nothing_is_the_whole_pass_up_to_rounding_and_its_scale() {
    // So rare that none of the few hundred draws of this seed drops anything.
    let rare = GatConfig { attention_dropout: 1e-6, feature_dropout: 1e-6, edge_dropout: 1e-6, ..small() };
    let (whole, kept) = (forward(&encoder::<Flex>(&small())), drawn(&encoder::<Flex>(&rare), 1));
    let difference = (whole.graph - kept.graph).abs().max().into_scalar();
    assert!(difference < 2e-5, "{difference}");
}

#[test]
fn kept_edges_carry_all_attention_and_self_loops_are_among_them() {
    let config = GatConfig { edge_dropout: 0.9, ..small() };
    let encoding = drawn(&encoder::<Flex>(&config), 3);
    let (csr, mut dropped) = (graph().csr(), 0);
    for attention in &encoding.attention {
        let attention = attention.to_data().to_vec::<f32>().unwrap();
        for row in attention.chunks_exact(csr.num_edges() * 2) {
            for target in 0..NODES {
                for head in 0..2 {
                    let range = csr.offsets[target] as usize..csr.offsets[target + 1] as usize;
                    let sum: f32 = range.clone().map(|edge| row[edge * 2 + head]).sum();
                    assert!((sum - 1.0).abs() < 1e-6, "{sum}");
                    let loops = range.clone().find(|&edge| csr.sources[edge] as usize == target).unwrap();
                    assert!(row[loops * 2 + head] > 0.0);
                    dropped += range.filter(|&edge| row[edge * 2 + head] == 0.0).count();
                }
            }
        }
    }
    // 2 layers, 3 rows, 5 edges that are no loops, 2 heads.
    assert!((40..=60).contains(&dropped), "{dropped} of 60 are about nine tenths");
}

#[test]
fn a_limit_bounds_every_node_vector_after_every_layer() {
    let norms = |config: &GatConfig| -> Vec<f32> {
        let encoding = forward(&encoder::<Flex>(config));
        let of = |nodes: &Tensor<Flex, 3>| nodes.clone().square().sum_dim(2).sqrt().into_data();
        encoding.nodes.iter().flat_map(|nodes| of(nodes).into_vec::<f32>().unwrap()).collect()
    };
    let free = norms(&small());
    assert!(free.iter().all(|&norm| norm > 1.5), "the case must need the limit: {free:?}");
    let clipped = norms(&GatConfig { node_norm_clip: 1.5, ..small() });
    assert!(clipped.iter().all(|&norm| (norm - 1.5).abs() < 1e-5), "{clipped:?}");
    let wide = GatConfig { node_norm_clip: 1e4, ..small() };
    assert_eq!(bits(&forward(&encoder::<Flex>(&wide))), bits(&forward(&encoder::<Flex>(&small()))));
}

#[test]
fn a_learned_temperature_starts_at_one_and_adds_a_number_per_layer_and_head() {
    let learned = GatConfig { attention_temperature: AttentionTemperature::Learned, ..small() };
    let (fixed, learned) = (encoder::<Flex>(&small()), encoder::<Flex>(&learned));
    assert_eq!(learned.num_params(), fixed.num_params() + 2 * 2);
    assert_eq!(bits(&forward(&learned)), bits(&forward(&fixed)));
}

#[test]
fn attention_with_a_gradient_is_the_attention_of_the_first_rows_and_changes_nothing_else() {
    let average = GatConfig { combine: Heads::Average, ..small() };
    let gatv2 = GatConfig { attention: Attention::Gatv2, ..small() };
    for config in dropouts().into_iter().chain([small(), average, gatv2]) {
        let encoder = encoder::<Train>(&config);
        let plain = forward(&encoder);
        let (activations, features) = inputs();
        let asked = encoder.forward_with(activations, features, None, 2);
        assert_eq!(bits(&asked), bits(&plain), "{config:?}");
        assert!(plain.attended.is_empty());
        assert_eq!(asked.attended.len(), 2, "a layer each");
        for (attended, attention) in asked.attended.iter().zip(&plain.attention) {
            let expected = attention.clone().narrow(0, 0, 2);
            let difference = (attended.weights.clone() - expected).abs().max().into_scalar();
            assert!(difference < 1e-6, "{config:?}: {difference}");
            assert_eq!(attended.edges.num_edges(), attention.dims()[1]);
        }
        let last = asked.attended.last().unwrap().weights.clone();
        let upstream = Tensor::<_, 1>::from_floats([1.0, -2.0], &Default::default()).reshape([1, 1, 2]);
        let grads = (last.square() * upstream).sum().backward();
        let mut reached = Reached::<Train> { grads: &grads, path: vec![], count: 0, missed: vec![] };
        encoder.visit(&mut reached);
        let of_last = |name: &str| reached.missed.iter().any(|missed| missed.starts_with(name));
        // Of GATv2 there is no target.
        for name in ["layers.1.weight", "layers.1.source", "layers.1.target", "layers.1.relation_bias"] {
            assert!(!of_last(name), "{config:?}: {:?}", reached.missed);
        }
        assert!(of_last("readout"), "the readout takes no part in attention");
    }
}

/// Parameters, and those of them without any gradient.
struct Reached<'a, B: AutodiffBackend> {
    grads: &'a B::Gradients,
    path: Vec<String>,
    count: usize,
    missed: Vec<String>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Reached<'_, B> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<B, D>>) {
        self.count += 1;
        let gradient = parameter.val().grad(self.grads).map(|gradient| gradient.abs().max().into_data());
        let largest = gradient.map_or(0.0, |largest| largest.to_vec::<f32>().unwrap()[0]);
        if !(largest.is_finite() && largest > 0.0) {
            self.missed.push(format!("{}: {largest}", self.path.join(".")));
        }
    }
}

#[test]
fn with_every_option_on_every_parameter_receives_a_gradient() {
    let choices = [
        (Heads::Concatenate, Attention::Gat, 7),
        (Heads::Average, Attention::Gat, 7),
        (Heads::Concatenate, Attention::Gatv2, 6),
        (Heads::Average, Attention::Gatv2, 6),
    ];
    for (combine, attention, of_layer) in choices {
        let plain = GatConfig { combine, attention, ..small() };
        let config = GatConfig {
            attention_dropout: 0.2,
            feature_dropout: 0.2,
            edge_dropout: 0.2,
            attention_temperature: AttentionTemperature::Learned,
            node_norm_clip: 2.0,
            ..plain.clone()
        };
        for (config, of_layer) in [(config, of_layer), (plain, of_layer - 1)] {
            let encoder = encoder::<Train>(&config);
            let out = if config.edge_dropout > 0.0 {
                let rng = &mut ChaCha8Rng::seed_from_u64(1);
                assert!(encoder.valid().draw(ROWS, rng, &Default::default()).is_some());
                drawn(&encoder, 1).graph
            } else {
                forward(&encoder).graph
            };
            let [rows, width] = out.dims();
            let upstream = (0..rows * width).map(|i| (i as f32 * 1.7).sin()).collect::<Vec<_>>();
            let upstream = Tensor::from_data(TensorData::new(upstream, [rows, width]), &Default::default());
            let grads = (out * upstream).sum().backward();
            let mut reached = Reached::<Train> { grads: &grads, path: vec![], count: 0, missed: vec![] };
            encoder.visit(&mut reached);
            assert_eq!(reached.count, 4 + 2 * of_layer + 3, "embeddings and features, two layers, readout");
            assert!(reached.missed.is_empty(), "{config:?}: {:?}", reached.missed);
        }
    }
}

#[test]
fn gatv2_doubles_the_projection_in_place_of_the_targets_weights_and_its_options_act_alike() {
    let gatv2 = GatConfig { attention: Attention::Gatv2, ..small() };
    let (one, two) = (encoder::<Flex>(&small()), encoder::<Flex>(&gatv2));
    assert_eq!(two.num_params(), one.num_params() + 2 * (8 * 8 - 8));
    assert_ne!(bits(&forward(&two)), bits(&forward(&one)));

    let plain = bits(&forward(&two));
    for config in dropouts() {
        let encoder = encoder::<Flex>(&GatConfig { attention: Attention::Gatv2, ..config });
        assert_eq!(bits(&forward(&encoder)), plain, "without draws");
        assert_ne!(bits(&drawn(&encoder, 1)), plain, "with draws");
        assert_eq!(bits(&drawn(&encoder, 1)), bits(&drawn(&encoder, 1)), "the same draws");
    }
    let rare =
        GatConfig { attention_dropout: 1e-6, feature_dropout: 1e-6, edge_dropout: 1e-6, ..gatv2.clone() };
    let difference = (forward(&two).graph - drawn(&encoder::<Flex>(&rare), 1).graph).abs().max();
    assert!(difference.into_scalar() < 2e-5);
    let learned = GatConfig { attention_temperature: AttentionTemperature::Learned, ..gatv2 };
    assert_eq!(bits(&forward(&encoder::<Flex>(&learned))), plain, "a temperature of 1");
}

#[test]
#[should_panic(expected = "rows and layers of the draws")]
fn draws_of_other_rows_are_refused() {
    let config = GatConfig { edge_dropout: 0.5, ..small() };
    let encoder = encoder::<Flex>(&config);
    let draws = encoder.draw(ROWS + 1, &mut ChaCha8Rng::seed_from_u64(1), &Default::default());
    let (activations, features) = inputs();
    encoder.forward_with(activations, features, draws.as_ref(), 0);
}
