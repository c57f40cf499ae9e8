//! The inputs of picked nodes in one pass, and the backward pass.

// V rows to pick from, R picked rows, D width

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
    level::{mul_add, multiversion},
    math::add_scaled,
};

multiversion! {
    fn embed(base: &[f32], rows: &[u32], activations: &[f32], direction: &[f32], out: &mut [f32]) = embed_body
}

#[inline(always)]
fn embed_body<const FMA: bool>(
    base: &[f32],
    rows: &[u32],
    activations: &[f32],
    direction: &[f32],
    out: &mut [f32],
) {
    let width = direction.len();
    for ((&row, &a), out) in rows.iter().zip(activations).zip(out.chunks_exact_mut(width)) {
        let base = &base[row as usize * width..][..width];
        for i in 0..width {
            out[i] = mul_add::<FMA>(a, direction[i], base[i]);
        }
    }
}

multiversion! {
    /// Adds up the gradients of all rows, in their order.
    fn embed_back(rows: &[u32], activations: &[f32], g: &[f32], d_base: &mut [f32], d_direction: &mut [f32]) = back_body
}

#[inline(always)]
fn back_body<const FMA: bool>(
    rows: &[u32],
    activations: &[f32],
    g: &[f32],
    d_base: &mut [f32],
    d_direction: &mut [f32],
) {
    let width = d_direction.len();
    for ((&row, &a), g) in rows.iter().zip(activations).zip(g.chunks_exact(width)) {
        for (d, &g) in d_base[row as usize * width..][..width].iter_mut().zip(g) {
            *d += g;
        }
        if a != 0.0 {
            add_scaled::<FMA>(d_direction, a, g);
        }
    }
}

fn run(base: &FlexTensor, rows: &[u32], activations: &FlexTensor, direction: &FlexTensor) -> FlexTensor {
    let [width] = dims(direction);
    let mut out = vec![0.0; rows.len() * width];
    if width > 0 {
        embed(floats(base), rows, floats(activations), floats(direction), &mut out);
    }
    tensor(out, [rows.len(), width])
}

/// [`crate::embed_rows`] on Flex.
pub(super) fn flex(
    base: FlexTensor,
    rows: &Arc<[u32]>,
    activations: FlexTensor,
    direction: FlexTensor,
) -> FlexTensor {
    run(&row_major(base), rows, &row_major(activations), &row_major(direction))
}

#[derive(Debug, Clone)]
struct State {
    rows: Arc<[u32]>,
    activations: FlexTensor,
    /// Rows to pick from.
    count: usize,
}

#[derive(Debug)]
struct EmbedRows;

impl Backward<Flex, 2> for EmbedRows {
    type State = State;

    fn backward(self, ops: Ops<State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let State { rows, activations, count } = ops.state;
        let [_, width] = dims(&g);
        let (mut d_base, mut d_direction) = (vec![0.0; count * width], vec![0.0; width]);
        if width > 0 {
            embed_back(&rows, floats(&activations), floats(&g), &mut d_base, &mut d_direction);
        }
        let [base_node, direction_node] = ops.parents;
        if let Some(node) = base_node {
            grads.register::<Flex>(node.id, tensor(d_base, [count, width]));
        }
        if let Some(node) = direction_node {
            grads.register::<Flex>(node.id, tensor(d_direction, [width]));
        }
    }
}

/// [`crate::embed_rows`] on Flex with its gradient.
pub(super) fn autodiff<C: CheckpointStrategy>(
    base: Tracked<C>,
    rows: &Arc<[u32]>,
    activations: Tracked<C>,
    direction: Tracked<C>,
) -> Tracked<C> {
    let activations = row_major(activations.primitive);
    let [count, _] = dims(&base.primitive);
    let out = run(&row_major(base.primitive), rows, &activations, &row_major(direction.primitive));
    match EmbedRows.prepare::<C>([base.node, direction.node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(State { rows: rows.clone(), activations, count }, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}
