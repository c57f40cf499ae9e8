//! The inputs of picked nodes in one pass, and the backward pass.

// V rows to pick from, R picked rows, G numbers of a row, D width

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

use super::{
    flat::{Tracked, dims, floats, row_major, tensor},
    gather_rows::{gathered, scattered},
    level::level,
    panels::{Matrix, Panels},
    sgemm::{Init, gemm},
};

fn run(base: &FlexTensor, rows: &[u32], inputs: &FlexTensor, directions: &FlexTensor) -> FlexTensor {
    let [numbers, width] = dims(directions);
    let mut out = gathered(base, rows);
    let panels = Panels::new(Matrix::new(floats(directions), numbers, width), rows.len());
    let inputs = Matrix::new(floats(inputs), rows.len(), numbers);
    gemm(level(), inputs, &panels, Init::Held, &mut out, |_| {});
    tensor(out, [rows.len(), width])
}

/// [`crate::embed_rows`] on Flex.
pub(super) fn flex(
    base: FlexTensor,
    rows: &Arc<[u32]>,
    inputs: FlexTensor,
    directions: FlexTensor,
) -> FlexTensor {
    run(&row_major(base), rows, &row_major(inputs), &row_major(directions))
}

#[derive(Debug, Clone)]
struct State {
    rows: Arc<[u32]>,
    inputs: FlexTensor,
    /// Rows to pick from.
    count: usize,
}

#[derive(Debug)]
struct EmbedRows;

impl Backward<Flex, 2> for EmbedRows {
    type State = State;

    fn backward(self, ops: Ops<State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let State { rows, inputs, count } = ops.state;
        let ([picked, width], [_, numbers]) = (dims(&g), dims(&inputs));
        let [base_node, directions_node] = ops.parents;
        if let Some(node) = base_node {
            grads.register::<Flex>(node.id, scattered(&g, &rows, count));
        }
        if let Some(node) = directions_node {
            let mut d_directions = vec![0.0; numbers * width];
            let inputs = Matrix::new(floats(&inputs), picked, numbers).t();
            let panels = Panels::new(Matrix::new(floats(&g), picked, width), numbers);
            gemm(level(), inputs, &panels, Init::Zero, &mut d_directions, |_| {});
            grads.register::<Flex>(node.id, tensor(d_directions, [numbers, width]));
        }
    }
}

/// [`crate::embed_rows`] on Flex with its gradient.
pub(super) fn autodiff<C: CheckpointStrategy>(
    base: Tracked<C>,
    rows: &Arc<[u32]>,
    inputs: Tracked<C>,
    directions: Tracked<C>,
) -> Tracked<C> {
    let inputs = row_major(inputs.primitive);
    let [count, _] = dims(&base.primitive);
    let out = run(&row_major(base.primitive), rows, &inputs, &row_major(directions.primitive));
    match EmbedRows.prepare::<C>([base.node, directions.node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(State { rows: rows.clone(), inputs, count }, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}
