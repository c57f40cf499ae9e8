//! Attention of the graph vector over node vectors: the method's fourth version.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Tensor, backend::Backend};
use gatefold_ops::{Activation, OpsBackend, init, mix, softmax};
use rand::Rng;

// B batch, T nodes that are read out, D hidden

/// Gain of the output projection: at first the graph vector passes nearly unchanged.
const OUTPUT_GAIN: f32 = 0.1;

/// `h + O sum_t softmax_t(<Q h, K x_t> / sqrt D) V x_t`: one head whose query is the graph vector and
/// whose keys are the node vectors. Source: Vaswani et al. 2017, with a single query.
#[derive(Module, Debug)]
pub(crate) struct CrossAttention<B: Backend> {
    query: Linear<B>,
    key: Linear<B>,
    value: Linear<B>,
    output: Linear<B>,
}

impl<B: OpsBackend> CrossAttention<B> {
    pub(crate) fn new(hidden: usize, rng: &mut impl Rng, device: &B::Device) -> Self {
        let linear = |gain, rng: &mut _| init::orthogonal_linear([hidden, hidden], gain, rng, device);
        let (query, key, value) = (linear(1.0, rng), linear(1.0, rng), linear(1.0, rng));
        Self { query, key, value, output: linear(OUTPUT_GAIN, rng) }
    }

    /// The graph vectors `[B, D]` and what they attend to `[B, T, D]`, to new graph vectors `[B, D]`.
    pub(crate) fn forward(&self, graph: Tensor<B, 2>, nodes: Tensor<B, 3>) -> Tensor<B, 2> {
        let [batch, targets, hidden] = nodes.dims();
        let flat = nodes.reshape([batch * targets, hidden]);
        let each = |linear| init::apply_linear(linear, flat.clone(), Activation::Identity);
        let keys = each(&self.key).reshape([batch, targets, hidden]);
        let values = each(&self.value).reshape([batch, targets, hidden]);
        let query = init::apply_linear(&self.query, graph.clone(), Activation::Identity);
        let scores = (keys * query.unsqueeze_dim::<3>(1)).sum_dim(2).squeeze_dim::<2>(2); // [B, T]
        let weights = softmax(scores / (hidden as f32).sqrt());
        graph + init::apply_linear(&self.output, mix(weights, values), Activation::Identity)
    }
}
