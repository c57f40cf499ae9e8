//! The rows of a graph attention layer: what it moves, and what it attends over.

// B batch, S source rows, H heads, C width of a head, D width of a node, G numbers of a node

use burn::tensor::{DType, Tensor, backend::Backend};

use crate::{Activation, GatScoring, OpsBackend, composed as compositions, embed_nodes};

/// The rows `x` of a layer, and those that it attends over.
#[derive(Debug, Clone)]
pub enum GatRows<B: Backend> {
    /// Attended over as `x W`.
    Project {
        /// `[B, S, D]`
        x: Tensor<B, 3>,
        /// `W` `[D, H * C]` (GATv2: `[D, 2 * H * C]`)
        weight: Tensor<B, 2>,
    },
    /// Attended over as rows that were projected before.
    Projected {
        /// `[B, S, D]`
        x: Tensor<B, 3>,
        /// `[B, S, H * C]` (GATv2: `[B, S, 2 * H * C]`)
        h: Tensor<B, 3>,
    },
    /// Both are [`embed_nodes`] of the same inputs: never as a whole in memory where that can be helped.
    Embedded {
        /// `[B, S, G]` (data: they get no gradient)
        inputs: Tensor<B, 3>,
        /// Base `[S, D]` and directions `[G, D]` of `x`.
        x: [Tensor<B, 2>; 2],
        /// Those of the rows that are attended over, `[S, H * C]` and `[G, H * C]` (GATv2: twice as wide).
        h: [Tensor<B, 2>; 2],
    },
}

impl<B: Backend> GatRows<B> {
    /// Batch, rows and width of `x`.
    pub fn dims(&self) -> [usize; 3] {
        match self {
            Self::Project { x, .. } | Self::Projected { x, .. } => x.dims(),
            Self::Embedded { inputs, x: [base, _], .. } => {
                let ([batch, rows, _], [_, width]) = (inputs.dims(), base.dims());
                [batch, rows, width]
            }
        }
    }

    /// The element type of its tensors; that of the first one that is not `f32`.
    pub(crate) fn dtype(&self) -> DType {
        let types = match self {
            Self::Project { x, weight } => [x.dtype(), weight.dtype(), DType::F32, DType::F32, DType::F32],
            Self::Projected { x, h } => [x.dtype(), h.dtype(), DType::F32, DType::F32, DType::F32],
            Self::Embedded { inputs, x: [a, b], h: [c, d] } => {
                [inputs.dtype(), a.dtype(), b.dtype(), c.dtype(), d.dtype()]
            }
        };
        types.into_iter().find(|&dtype| dtype != DType::F32).unwrap_or(DType::F32)
    }

    /// Panics unless shapes are those of a layer with these scores.
    pub(crate) fn check(&self, scoring: &GatScoring<B>) {
        let ([batch, rows, width], row) = (self.dims(), scoring.row());
        match self {
            Self::Project { weight, .. } => assert_eq!(weight.dims(), [width, row], "gat_layer: weight"),
            Self::Projected { h, .. } => assert_eq!(h.dims(), [batch, rows, row], "gat_layer: rows"),
            Self::Embedded { inputs, x, h } => {
                let [_, _, numbers] = inputs.dims();
                for ([base, directions], width) in [(x, width), (h, row)] {
                    let expected = [[rows, width], [numbers, width]];
                    let given = [base.dims(), directions.dims()];
                    assert_eq!(given, expected, "gat_layer: base and directions of embedded rows");
                }
            }
        }
    }

    /// `x`, and the rows that are attended over, by plain tensor operations.
    pub(crate) fn composed(self) -> [Tensor<B, 3>; 2] {
        match self {
            Self::Projected { x, h } => [x, h],
            Self::Project { x, weight } => {
                let ([batch, rows, width], [_, row]) = (x.dims(), weight.dims());
                let zero = Tensor::<B, 1>::zeros([row], &x.device()).cast(x.dtype());
                let flat = x.clone().reshape([batch * rows, width]);
                let h = compositions::linear(flat, weight, zero, Activation::Identity);
                [x, h.reshape([batch, rows, row])]
            }
            Self::Embedded { inputs, x, h } => {
                [x, h].map(|[base, directions]| compositions::embed_nodes(base, inputs.clone(), directions))
            }
        }
    }
}

impl<B: OpsBackend> GatRows<B> {
    /// The same with embedded rows in memory.
    pub(crate) fn in_memory(self) -> Self {
        match self {
            Self::Embedded { inputs, x, h } => {
                let [x, h] = [x, h].map(|[base, directions]| embed_nodes(base, inputs.clone(), directions));
                Self::Projected { x, h }
            }
            rows => rows,
        }
    }
}
