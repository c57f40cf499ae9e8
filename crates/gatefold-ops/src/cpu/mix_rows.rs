//! The weighted sum of picked rows in one pass, and its backward pass.

// B rows, K picked for each, R items, A width of an item

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
    level::multiversion,
    math::{add_scaled, dot},
};

multiversion! {
    fn forward_rows(weights: &[f32], items: &[f32], rows: &[u32], out: &mut [f32], width: usize) = forward_body
}

#[inline(always)]
fn forward_body<const FMA: bool>(
    weights: &[f32],
    items: &[f32],
    rows: &[u32],
    out: &mut [f32],
    width: usize,
) {
    let picked = weights.len() * width / out.len();
    let each = weights.chunks_exact(picked).zip(rows.chunks_exact(picked));
    for ((weights, rows), out) in each.zip(out.chunks_exact_mut(width)) {
        for (&w, &row) in weights.iter().zip(rows) {
            add_scaled::<FMA>(out, w, &items[row as usize * width..][..width]);
        }
    }
}

multiversion! {
    fn backward_rows(
        weights: &[f32], items: &[f32], rows: &[u32], g: &[f32], d_weights: &mut [f32], d_items: &mut [f32],
        width: usize,
    ) = backward_body
}

#[inline(always)]
fn backward_body<const FMA: bool>(
    weights: &[f32],
    items: &[f32],
    rows: &[u32],
    g: &[f32],
    d_weights: &mut [f32],
    d_items: &mut [f32],
    width: usize,
) {
    let picked = weights.len() * width / g.len();
    for (at, &row) in rows.iter().enumerate() {
        let g = &g[at / picked * width..][..width];
        let item = row as usize * width..(row as usize + 1) * width;
        d_weights[at] = dot::<FMA>(g, &items[item.clone()]);
        add_scaled::<FMA>(&mut d_items[item], weights[at], g);
    }
}

fn run(weights: &FlexTensor, items: &FlexTensor, rows: &[u32]) -> FlexTensor {
    let ([batch, _], [_, width]) = (dims::<2>(weights), dims(items));
    let mut out = vec![0.0; batch * width];
    if !out.is_empty() && !rows.is_empty() {
        forward_rows(floats(weights), floats(items), rows, &mut out, width);
    }
    tensor(out, [batch, width])
}

/// [`crate::mix_rows`] on Flex.
pub(super) fn flex(weights: FlexTensor, items: FlexTensor, rows: &Arc<[u32]>) -> FlexTensor {
    run(&row_major(weights), &row_major(items), rows)
}

#[derive(Debug)]
struct MixRows;

impl Backward<Flex, 2> for MixRows {
    /// weights, items; the picked rows
    type State = ([FlexTensor; 2], Arc<[u32]>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let ([weights, items], rows) = ops.state;
        let ([batch, picked], [count, width]) = (dims(&weights), dims(&items));
        let (mut d_weights, mut d_items) = (vec![0.0; batch * picked], vec![0.0; count * width]);
        if batch * picked * width > 0 {
            let (weights, items, g) = (floats(&weights), floats(&items), floats(&g));
            backward_rows(weights, items, &rows, g, &mut d_weights, &mut d_items, width);
        }
        let [weights_node, items_node] = ops.parents;
        if let Some(node) = weights_node {
            grads.register::<Flex>(node.id, tensor(d_weights, [batch, picked]));
        }
        if let Some(node) = items_node {
            grads.register::<Flex>(node.id, tensor(d_items, [count, width]));
        }
    }
}

/// [`crate::mix_rows`] on Flex with its gradient.
pub(super) fn autodiff<C: CheckpointStrategy>(
    weights: Tracked<C>,
    items: Tracked<C>,
    rows: &Arc<[u32]>,
) -> Tracked<C> {
    let state = [weights.primitive, items.primitive].map(row_major);
    let out = run(&state[0], &state[1], rows);
    match MixRows.prepare::<C>([weights.node, items.node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish((state, rows.clone()), out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}
