//! How the edges of a layer are scored: what of it is learned, and the two ways to attend by it.

// B batch, S source rows, T target rows, E edges, H heads, C width of a head, R relations

use burn::tensor::{Tensor, backend::Backend};
use gatefold_ops::{GatEdges, OpsBackend, gat_attention, gatv2_attention};

/// Slope of the LeakyReLU of the attention scores (Velickovic et al. 2018).
pub(crate) const LEAKY_SLOPE: f32 = 0.2;

/// What the scores of one layer are computed with, already divided by the temperature.
#[derive(Debug, Clone)]
pub(crate) enum Scoring<B: Backend> {
    /// `LeakyReLU(a_s . h_j + a_d . h_i + r_rel)` over projected rows `[B, S, H * C]`.
    Gat {
        /// a_s `[H, C]`
        source: Tensor<B, 2>,
        /// a_d `[H, C]`
        target: Tensor<B, 2>,
        /// r `[R, H]`
        relation_bias: Tensor<B, 2>,
    },
    /// `a . LeakyReLU(s_j + d_i) + r_rel` over projected rows `[s ; d]`, `[B, S, 2 * H * C]`.
    Gatv2 {
        /// a `[H, C]`
        weight: Tensor<B, 2>,
        /// r `[R, H]`
        relation_bias: Tensor<B, 2>,
    },
}

impl<B: Backend> Scoring<B> {
    /// Heads, and width of a head.
    pub(crate) fn dims(&self) -> [usize; 2] {
        match self {
            Self::Gat { source: weight, .. } | Self::Gatv2 { weight, .. } => weight.dims(),
        }
    }

    /// What the rows of `h` send: all of them in GAT, their first half in GATv2; `[B, S, H, C]`.
    pub(crate) fn sent(&self, h: Tensor<B, 3>) -> Tensor<B, 4> {
        let ([batch, rows, _], [heads, channels]) = (h.dims(), self.dims());
        h.narrow(2, 0, heads * channels).reshape([batch, rows, heads, channels])
    }
}

impl<B: OpsBackend> Scoring<B> {
    /// The fused attention over all edges: new rows `[B, T, H * C]`, and the attention `[B, E, H]`.
    pub(crate) fn attend(self, h: Tensor<B, 3>, edges: &GatEdges) -> (Tensor<B, 3>, Tensor<B, 3>) {
        match self {
            Self::Gat { source, target, relation_bias } => {
                gat_attention(h, source, target, relation_bias, edges, LEAKY_SLOPE)
            }
            Self::Gatv2 { weight, relation_bias } => {
                gatv2_attention(h, weight, relation_bias, edges, LEAKY_SLOPE)
            }
        }
    }
}
