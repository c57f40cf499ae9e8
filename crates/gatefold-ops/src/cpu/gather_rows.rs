//! Rows picked by their numbers: copies, and sums on the way back.

// R rows, N wanted rows, D width

use std::sync::Arc;

use burn::backend::{
    Flex,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    flex::FlexTensor,
};

use super::flat::{Tracked, dims, floats, row_major, tensor};

/// The wanted rows of `x`, which is row-major.
pub(super) fn gathered(x: &FlexTensor, rows: &[u32]) -> Vec<f32> {
    let ([_, width], x) = (dims(x), floats(x));
    let mut out = Vec::with_capacity(rows.len() * width);
    for &row in rows {
        out.extend_from_slice(&x[row as usize * width..][..width]);
    }
    out
}

/// The gradient of `count` rows of which some were wanted, from the row-major one of these.
pub(super) fn scattered(g: &FlexTensor, rows: &[u32], count: usize) -> FlexTensor {
    let [_, width] = dims(g);
    let mut d_x = vec![0.0; count * width];
    if width > 0 {
        for (&row, g) in rows.iter().zip(floats(g).chunks_exact(width)) {
            for (d, g) in d_x[row as usize * width..][..width].iter_mut().zip(g) {
                *d += g;
            }
        }
    }
    tensor(d_x, [count, width])
}

/// [`crate::gather_rows`] on Flex.
pub(super) fn flex(x: FlexTensor, rows: &Arc<[u32]>) -> FlexTensor {
    let x = row_major(x);
    let [_, width] = dims(&x);
    tensor(gathered(&x, rows), [rows.len(), width])
}

#[derive(Debug)]
struct GatherRows;

impl Backward<Flex, 1> for GatherRows {
    /// The wanted rows, and how many there are to choose from.
    type State = (Arc<[u32]>, usize);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let [node] = ops.parents;
        let Some(node) = node else { return };
        let (rows, count) = ops.state;
        grads.register::<Flex>(node.id, scattered(&g, &rows, count));
    }
}

/// [`crate::gather_rows`] on Flex with its gradient.
pub(super) fn autodiff<C: CheckpointStrategy>(x: Tracked<C>, rows: &Arc<[u32]>) -> Tracked<C> {
    let [count, _] = dims(&x.primitive);
    let out = flex(x.primitive, rows);
    match GatherRows.prepare::<C>([x.node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish((rows.clone(), count), out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}
