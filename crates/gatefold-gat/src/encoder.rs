//! The graph encoder: activations and node features in, one vector for the whole graph out.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use gatefold_graph::TypedGraph;
use gatefold_ops::{
    Activation, GatRows, OpsBackend, embed_nodes, gather_rows, init, linear, mix, probe, softmax,
};
use rand::Rng;

use crate::draws::LayerDraws;
use crate::topology::Topology;
use crate::{Attended, GatConfig, GraphDraws, LayerStatistics, layer::GatLayer};

mod over_distinct;

// B batch, V graph nodes, G features of a node, S rows of the first layer, T readout rows, E edges, H heads, D hidden

/// Graph attention over a static graph whose nodes are more or less active.
///
/// Node input: `kind embedding + identity embedding + a_v * activation embedding`, and `f_v P` if the
/// environment gives its nodes features; then layers of
/// `x + ReLU(LayerNorm(GAT(x)))`; then `s_v = q . tanh(W x_v + b)` and
/// `h_graph = sum_v softmax(s)_v x_v` over the readout nodes.
///
/// Only nodes that the readout reaches are computed. The first projection exploits that the input
/// is `c_v + a_v e + f_v P`: `W x_v = W c_v + a_v W e + f_v P W`, so it costs a product of width
/// `1 + G` for G features.
///
/// What repeats is computed once: where few nodes are active, most rows of a batch are equal to others,
/// because row v of layer l depends on the inputs within l steps of v alone. Then each distinct row is
/// computed, with the bits that it has without this, and the readout is put together from them.
#[derive(Module, Debug)]
pub struct GraphEncoder<B: Backend> {
    kind_embedding: Param<Tensor<B, 2>>,             // [kinds, D]
    node_embedding: Param<Tensor<B, 2>>,             // [V, D]
    activation_embedding: Param<Tensor<B, 2>>,       // [1, D]
    feature_projection: Option<Param<Tensor<B, 2>>>, // [G, D]
    layers: Vec<GatLayer<B>>,
    readout: Linear<B>,
    readout_query: Param<Tensor<B, 2>>, // [D, 1]
    #[module(skip)]
    input_kinds: Vec<i32>,
    #[module(skip)]
    topology: Topology,
    #[module(skip)]
    config: GatConfig,
}

/// What the encoder makes of a batch of activations.
#[derive(Debug, Clone)]
pub struct GraphEncoding<B: Backend> {
    /// The graph vector `h_graph` `[B, D]`.
    pub graph: Tensor<B, 2>,
    /// Readout scores `[B, T]`; for a knowledge graph the operator scores.
    pub scores: Tensor<B, 2>,
    /// Vectors of the readout nodes, of which the graph vector is made.
    pub readout: Readout<B>,
    /// Attention of each layer `[B, E, H]`, untracked; empty unless traced.
    pub attention: Vec<Tensor<B, 3>>,
    /// Attention of each layer that has edges on the first rows, as many as were asked for, with its
    /// gradient; empty if none were.
    pub attended: Vec<Attended<B>>,
    /// Node vectors after each layer `[B, T, D]`; empty unless traced.
    pub nodes: Vec<Tensor<B, 3>>,
    /// How many distinct rows were computed, those of the input among them; `None` if all rows were.
    pub distinct: Option<usize>,
}

/// Vectors of the readout nodes of a batch, as they were computed.
#[derive(Debug, Clone)]
pub struct Readout<B: Backend> {
    /// All `[B * T, D]`, or the distinct ones.
    rows: Tensor<B, 2>,
    /// Which of the distinct rows each is.
    picked: Option<Arc<[u32]>>,
    /// B and T.
    shape: [usize; 2],
}

impl<B: OpsBackend> Readout<B> {
    /// `[B, T, D]`.
    pub fn nodes(&self) -> Tensor<B, 3> {
        let rows = match &self.picked {
            None => self.rows.clone(),
            Some(picked) => gather_rows(self.rows.clone(), picked),
        };
        let ([batch, targets], [_, hidden]) = (self.shape, rows.dims());
        rows.reshape([batch, targets, hidden])
    }
}

impl<B: Backend> GraphEncoding<B> {
    /// The same without gradients.
    pub fn detach(self) -> Self {
        let all = |tensors: Vec<Tensor<B, 3>>| tensors.into_iter().map(Tensor::detach).collect();
        Self {
            graph: self.graph.detach(),
            scores: self.scores.detach(),
            readout: Readout { rows: self.readout.rows.detach(), ..self.readout },
            attention: all(self.attention),
            attended: Vec::new(),
            nodes: all(self.nodes),
            distinct: self.distinct,
        }
    }
}

impl<B: OpsBackend> GraphEncoder<B> {
    /// An encoder of `graph` whose nodes have `node_features` numbers each beside their activation
    /// (0 for none), its weights drawn from `rng`.
    ///
    /// Panics if the settings or the graph do not validate; check them first.
    pub fn new(
        config: &GatConfig,
        graph: &TypedGraph,
        node_features: usize,
        rng: &mut impl Rng,
        device: &B::Device,
    ) -> Self {
        config.validate().expect("settings were validated");
        graph.validate().expect("the graph was validated");
        let hidden = config.hidden;
        let topology = Topology::new(graph, config.layers);
        let layers =
            topology.layers.iter().map(|layer| GatLayer::new(config, layer.clone(), rng, device)).collect();
        Self {
            kind_embedding: init::normal(0.5, [graph.kinds().len(), hidden], rng, device),
            node_embedding: init::normal(0.5, [graph.num_nodes(), hidden], rng, device),
            activation_embedding: init::normal(1.0, [1, hidden], rng, device),
            feature_projection: (node_features > 0)
                .then(|| init::glorot([node_features, hidden], [node_features, hidden], rng, device)),
            layers,
            readout: init::orthogonal_linear([hidden, hidden], 1.0, rng, device),
            readout_query: init::glorot([hidden, 1], [hidden, 1], rng, device),
            input_kinds: topology.input_nodes.iter().map(|&n| graph.node(n as usize).kind as i32).collect(),
            topology,
            config: config.clone(),
        }
    }

    /// What the dropouts drop in one forward pass over `rows` rows; `None` if every dropout is 0.
    ///
    /// For updates alone: a rollout evaluates the whole graph.
    pub fn draw(&self, rows: usize, rng: &mut impl Rng, device: &B::Device) -> Option<GraphDraws<B>> {
        if !self.config.drops() {
            return None;
        }
        let of = |layer: &GatLayer<B>| {
            LayerDraws::new(&self.config, &layer.topology().edges, rows, &mut *rng, device)
        };
        Some(GraphDraws { rows, layers: self.layers.iter().map(of).collect() })
    }

    /// Encodes activations `[B, V]`, each in [0, 1], one per graph node, and the nodes' features
    /// `[B, V, G]`, if the encoder has any. The result is traced: it has attention and all node vectors.
    ///
    /// Panics if nodes or features are not as many as the encoder was made for.
    pub fn forward(
        &self,
        activations: Tensor<B, 2>,
        node_features: Option<Tensor<B, 3>>,
    ) -> GraphEncoding<B> {
        self.forward_all(activations, node_features, None, 0, true)
    }

    /// [`forward`](Self::forward), less what was drawn to be dropped; the first `attended` rows also with
    /// the gradient of their attention.
    ///
    /// Without draws and such rows, distinct rows alone are computed where they are few enough. The result
    /// is traced if something was drawn: `attention` is over the edges that were kept, before its own
    /// dropout.
    /// Panics if the draws are not of this encoder and as many rows, or nodes or features not as many as it
    /// was made for.
    pub fn forward_with(
        &self,
        activations: Tensor<B, 2>,
        node_features: Option<Tensor<B, 3>>,
        drawn: Option<&GraphDraws<B>>,
        attended: usize,
    ) -> GraphEncoding<B> {
        self.assert_inputs(&activations, node_features.as_ref());
        if drawn.is_none() && attended == 0 {
            let distinct = self.distinct_rows(&activations, node_features.as_ref());
            if let Some(distinct) = distinct {
                let [batch, _] = activations.dims();
                return self.forward_distinct(batch, distinct, &activations.device());
            }
        }
        self.forward_all(activations, node_features, drawn, attended, drawn.is_some())
    }

    fn assert_inputs(&self, activations: &Tensor<B, 2>, node_features: Option<&Tensor<B, 3>>) {
        let [_, num_nodes] = activations.dims();
        assert_eq!(num_nodes, self.node_embedding.dims()[0], "one activation per graph node");
        let given = node_features.map_or(0, |features| features.dims()[2]);
        let expected = self.feature_projection.as_ref().map_or(0, |projection| projection.dims()[0]);
        assert_eq!(given, expected, "features of a node, and those that the encoder was made for");
    }

    /// All rows of all states.
    fn forward_all(
        &self,
        activations: Tensor<B, 2>,
        node_features: Option<Tensor<B, 3>>,
        drawn: Option<&GraphDraws<B>>,
        attended: usize,
        traced: bool,
    ) -> GraphEncoding<B> {
        let [batch, num_nodes] = activations.dims();
        if let Some(drawn) = drawn {
            let expected = (batch, self.layers.len());
            assert_eq!((drawn.rows, drawn.layers.len()), expected, "rows and layers of the draws");
        }
        self.assert_inputs(&activations, node_features.as_ref());
        let device = activations.device();
        let rows = self.topology.input_nodes.len();
        let (activations, node_features) = if rows == num_nodes {
            (activations, node_features)
        } else {
            let features = node_features.map(|features| features.select(1, self.input_nodes(&device)));
            (activations.select(1, self.input_nodes(&device)), features)
        };
        let inputs = activations.unsqueeze_dim(2); // [B, S, 1 + G]
        let inputs = match node_features {
            None => inputs,
            Some(features) => Tensor::cat(vec![inputs, features], 2),
        };
        let base = self.input_base(&device); // [S, D]
        let directions = self.input_directions(); // [1 + G, D]

        let mut attention = Vec::with_capacity(self.layers.len());
        let mut rows_of_layers = Vec::with_capacity(self.layers.len());
        let mut tracked = Vec::new();
        let embedded = |base, directions| embed_nodes(base, inputs.clone(), directions);
        // Node vectors `[B, S, D]`; `None` as long as the layer itself can embed them.
        let mut x = (drawn.is_some() || probe::is_installed())
            .then(|| probe::tensor("activation/gat_input", embedded(base.clone(), directions.clone())));
        for (i, layer) in self.layers.iter().enumerate() {
            let drawn = drawn.map(|drawn| &drawn.layers[i]);
            let reads_whole_vectors = drawn.is_none_or(|drawn| drawn.features.is_none());
            let projected = || [&base, &directions].map(|rows| layer.project(rows.clone()));
            let rows = match x.take() {
                None => {
                    let embedding = [base.clone(), directions.clone()];
                    GatRows::Embedded { inputs: inputs.clone(), x: embedding, h: projected() }
                }
                Some(x) if i == 0 && reads_whole_vectors => {
                    let [base, directions] = projected();
                    GatRows::Projected { x, h: embedded(base, directions) }
                }
                Some(x) if drawn.is_some() => {
                    GatRows::Projected { h: layer.project_rows(x.clone(), drawn), x }
                }
                Some(x) => layer.rows(x),
            };
            if attended > 0 {
                let first = |rows: &Tensor<B, 3>| rows.clone().narrow(0, 0, attended.min(batch));
                tracked.extend(layer.attended(match &rows {
                    GatRows::Projected { h, .. } => first(h),
                    GatRows::Project { x, .. } => layer.project_rows(first(x), None),
                    GatRows::Embedded { inputs, h: [base, directions], .. } => {
                        embed_nodes(base.clone(), first(inputs), directions.clone())
                    }
                }));
            }
            let (next, weights) = layer.attend(rows, drawn, traced);
            #[cfg(feature = "chaos")]
            let next = probe::tensor(&format!("activation/gat_layer{i}"), next);
            if traced {
                attention.extend(weights);
                rows_of_layers.push(next.clone());
            }
            x = Some(next);
        }

        let x = x.expect("an encoder has layers");
        let [_, targets, hidden] = x.dims();
        let scores = self.readout_scores(x.clone().reshape([batch * targets, hidden]));
        let scores = probe::tensor("activation/operator_scores", scores.reshape([batch, targets])); // [B, T]
        let graph = mix(softmax(scores.clone()), x.clone()); // [B, D]
        let rows = x.reshape([batch * targets, hidden]);
        let readout = Readout { rows, picked: None, shape: [batch, targets] };
        let (attended, nodes) = (tracked, rows_of_layers);
        GraphEncoding { graph, scores, readout, attention, attended, nodes, distinct: None }
    }

    /// `kind embedding + identity embedding` of the encoder's input rows `[S, D]`.
    fn input_base(&self, device: &B::Device) -> Tensor<B, 2> {
        let identity = self.node_embedding.val();
        let rows = self.topology.input_nodes.len();
        let identity =
            if rows == identity.dims()[0] { identity } else { identity.select(0, self.input_nodes(device)) };
        self.kind_embedding.val().select(0, index(self.input_kinds.clone(), device)) + identity
    }

    /// What a node's activation and features move its input along `[1 + G, D]`.
    fn input_directions(&self) -> Tensor<B, 2> {
        let activation = self.activation_embedding.val();
        match &self.feature_projection {
            None => activation,
            Some(projection) => Tensor::cat(vec![activation, projection.val()], 0),
        }
    }

    /// Graph node of each input row.
    fn input_nodes(&self, device: &B::Device) -> Tensor<B, 1, Int> {
        index(self.topology.input_nodes.iter().map(|&n| n as i32).collect(), device)
    }

    /// `q . tanh(W x + b)` of node vectors `[R, D]`, as `[R, 1]`.
    fn readout_scores(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let zero = Tensor::zeros([1], &x.device());
        let keys = init::apply_linear(&self.readout, x, Activation::Tanh);
        linear(keys, self.readout_query.val(), zero, Activation::Identity)
    }

    /// Width of the graph vector.
    pub fn hidden(&self) -> usize {
        self.node_embedding.dims()[1]
    }

    /// Graph node of each readout score.
    pub fn readout_nodes(&self) -> &[u32] {
        &self.topology.readout_nodes
    }

    /// What each layer's attention and node vectors look like, first layer first.
    ///
    /// Panics unless the encoding is traced.
    pub fn statistics(&self, encoding: &GraphEncoding<B>) -> Vec<LayerStatistics> {
        let traced = (encoding.attention.len(), encoding.nodes.len());
        assert_eq!(traced, (self.layers.len(), self.layers.len()), "statistics are of a traced encoding");
        let traces = encoding.attention.iter().zip(&encoding.nodes);
        let layers = self.layers.iter().zip(traces);
        layers
            .map(|(layer, (attention, nodes))| {
                LayerStatistics::new(layer.topology().edges.offsets(), attention, nodes)
            })
            .collect()
    }
}

fn index<B: Backend>(values: Vec<i32>, device: &B::Device) -> Tensor<B, 1, Int> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}
