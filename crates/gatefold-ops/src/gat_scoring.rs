//! How the edges of a graph attention layer are scored, with what is learned for it.

// B batch, S source rows, T target rows, E edges, H heads, C width of a head, R relations

use burn::tensor::{DType, Tensor, backend::Backend};

use crate::{GatEdges, OpsBackend, gat_attention, gatv2_attention};

/// How edges are scored before the softmax, and the tensors that it takes.
#[derive(Debug, Clone)]
pub enum GatScoring<B: Backend> {
    /// [`gat_attention`]: `LeakyReLU(a_src . h_j + a_dst . h_i + r_rel)` over rows `[B, S, H * C]`.
    Gat {
        /// `a_src` `[H, C]`
        source: Tensor<B, 2>,
        /// `a_dst` `[H, C]`
        target: Tensor<B, 2>,
        /// `r` `[R, H]`
        relation_bias: Tensor<B, 2>,
    },
    /// [`gatv2_attention`]: `a . LeakyReLU(s_j + d_i) + r_rel` over rows `[s ; d]`, `[B, S, 2 * H * C]`.
    Gatv2 {
        /// `a` `[H, C]`
        weight: Tensor<B, 2>,
        /// `r` `[R, H]`
        relation_bias: Tensor<B, 2>,
    },
}

impl<B: Backend> GatScoring<B> {
    /// Heads, and width of a head.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::Gat { source: weight, .. } | Self::Gatv2 { weight, .. } => weight.dims(),
        }
    }

    /// Width of a projected row.
    pub fn row(&self) -> usize {
        let [heads, channels] = self.dims();
        match self {
            Self::Gat { .. } => heads * channels,
            Self::Gatv2 { .. } => 2 * heads * channels,
        }
    }

    /// The element type of its tensors; that of the first one that is not `f32`.
    pub(crate) fn dtype(&self) -> DType {
        let types = match self {
            Self::Gat { source, target, relation_bias } => {
                [source.dtype(), target.dtype(), relation_bias.dtype()]
            }
            Self::Gatv2 { weight, relation_bias } => [weight.dtype(), DType::F32, relation_bias.dtype()],
        };
        types.into_iter().find(|&dtype| dtype != DType::F32).unwrap_or(DType::F32)
    }

    /// What projected rows `[B, S, ..]` send: all of them in GAT, their first half in GATv2;
    /// `[B, S, H, C]`.
    pub fn sent(&self, h: Tensor<B, 3>) -> Tensor<B, 4> {
        let ([batch, rows, _], [heads, channels]) = (h.dims(), self.dims());
        h.narrow(2, 0, heads * channels).reshape([batch, rows, heads, channels])
    }
}

impl<B: OpsBackend> GatScoring<B> {
    /// Attention over projected rows `h` `[B, S, ..]`: the new rows `[B, T, H * C]`, and the attention
    /// `[B, E, H]`, untracked.
    pub fn attend(self, h: Tensor<B, 3>, edges: &GatEdges, slope: f32) -> (Tensor<B, 3>, Tensor<B, 3>) {
        match self {
            Self::Gat { source, target, relation_bias } => {
                gat_attention(h, source, target, relation_bias, edges, slope)
            }
            Self::Gatv2 { weight, relation_bias } => gatv2_attention(h, weight, relation_bias, edges, slope),
        }
    }
}
