//! One graph attention layer with its norm and residual.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use gatefold_ops::{Activation, OpsBackend, gat_attention, init, linear, norm_relu};
use rand::Rng;

use crate::topology::LayerTopology;
use crate::{GatConfig, Heads};

// B batch, S source rows, T target rows, E edges, H heads, C width of a head, D hidden, R relations

/// Slope of the LeakyReLU of the attention scores (Velickovic et al. 2018).
const LEAKY_SLOPE: f32 = 0.2;

/// `x + ReLU(LayerNorm(GAT(x)))`.
///
/// `e_ij = LeakyReLU_0.2(a_s . W h_j + a_d . W h_i + r_rel)` over the in-neighbours j of i, softmax
/// over j. `r_rel` is a learned scalar per relation and head.
#[derive(Module, Debug)]
pub struct GatLayer<B: Backend> {
    weight: Param<Tensor<B, 2>>,        // [D, H * C]
    source: Param<Tensor<B, 2>>,        // [H, C]
    target: Param<Tensor<B, 2>>,        // [H, C]
    relation_bias: Param<Tensor<B, 2>>, // [R, H]
    norm_gain: Param<Tensor<B, 1>>,     // [D]
    norm_bias: Param<Tensor<B, 1>>,     // [D]
    #[module(skip)]
    topology: LayerTopology,
    #[module(skip)]
    combine: Heads,
}

impl<B: OpsBackend> GatLayer<B> {
    pub(crate) fn new(
        config: &GatConfig,
        topology: LayerTopology,
        rng: &mut impl Rng,
        device: &B::Device,
    ) -> Self {
        let (hidden, heads, width) = (config.hidden, config.heads, config.head_width());
        Self {
            weight: init::glorot([hidden, heads * width], [hidden, heads * width], rng, device),
            source: init::glorot([heads, width], [heads * width, 1], rng, device),
            target: init::glorot([heads, width], [heads * width, 1], rng, device),
            relation_bias: init::constant(0.0, [topology.edges.num_relations(), heads], device),
            norm_gain: init::constant(1.0, [hidden], device),
            norm_bias: init::constant(0.0, [hidden], device),
            topology,
            combine: config.combine,
        }
    }

    /// The projection `x W`: `[rows, D]` to `[rows, H * C]`.
    pub(crate) fn project(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let [_, width] = self.weight.dims();
        let zero = Tensor::zeros([width], &x.device());
        linear(x, self.weight.val(), zero, Activation::Identity)
    }

    /// Attention over projected rows `h` `[B, S, H * C]`, then norm and residual of `x` `[B, S, D]`.
    ///
    /// Returns the new rows `[B, T, D]` and the attention `[B, E, H]`.
    pub(crate) fn attend(&self, x: Tensor<B, 3>, h: Tensor<B, 3>) -> (Tensor<B, 3>, Tensor<B, 3>) {
        let [batch, _, hidden] = x.dims();
        let edges = &self.topology.edges;
        let targets = edges.num_targets();
        let (out, attention) = gat_attention(
            h,
            self.source.val(),
            self.target.val(),
            self.relation_bias.val(),
            edges,
            LEAKY_SLOPE,
        );
        let out = match self.combine {
            Heads::Concatenate => out.reshape([batch * targets, hidden]),
            Heads::Average => {
                let [heads, width] = self.source.dims();
                out.reshape([batch * targets, heads, width]).mean_dim(1).reshape([batch * targets, hidden])
            }
        };
        let residual = match &self.topology.kept {
            None => x,
            Some(rows) => {
                let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
                let rows = Tensor::<B, 1, Int>::from_data(TensorData::new(rows, [targets]), &x.device());
                x.select(1, rows)
            }
        };
        let residual = residual.reshape([batch * targets, hidden]);
        let out = norm_relu(out, self.norm_gain.val(), self.norm_bias.val(), Some(residual));
        (out.reshape([batch, targets, hidden]), attention)
    }

    /// The whole layer: `[B, S, D]` to `[B, T, D]` and the attention `[B, E, H]`.
    pub(crate) fn forward(&self, x: Tensor<B, 3>) -> (Tensor<B, 3>, Tensor<B, 3>) {
        let [batch, rows, hidden] = x.dims();
        let h = self.project(x.clone().reshape([batch * rows, hidden]));
        let width = h.dims()[1];
        self.attend(x, h.reshape([batch, rows, width]))
    }

    pub(crate) fn topology(&self) -> &LayerTopology {
        &self.topology
    }
}
