//! The weighted sum of experts' outputs in one pass, and its backward pass.

// B rows, K experts, A outputs

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
    chunks::map_tasks,
    flat::{Tracked, dims, floats, row_major, tensor},
    level::multiversion,
    math::{add_scaled, dot},
};

/// Rows per chunk.
const CHUNK: usize = 256;

multiversion! {
    fn forward_rows(weights: &[f32], items: &[f32], experts: usize, out: &mut [f32]) = forward_body
}

#[inline(always)]
fn forward_body<const FMA: bool>(weights: &[f32], items: &[f32], experts: usize, out: &mut [f32]) {
    let width = items.len() / weights.len();
    let rows = weights.chunks_exact(experts).zip(items.chunks_exact(experts * width));
    for ((weights, items), out) in rows.zip(out.chunks_exact_mut(width)) {
        for (&w, item) in weights.iter().zip(items.chunks_exact(width)) {
            add_scaled::<FMA>(out, w, item);
        }
    }
}

multiversion! {
    fn backward_rows(
        weights: &[f32], items: &[f32], g: &[f32], experts: usize, d_weights: &mut [f32], d_items: &mut [f32],
    ) = backward_body
}

#[inline(always)]
fn backward_body<const FMA: bool>(
    weights: &[f32],
    items: &[f32],
    g: &[f32],
    experts: usize,
    d_weights: &mut [f32],
    d_items: &mut [f32],
) {
    let width = items.len() / weights.len();
    for (at, (item, d_item)) in items.chunks_exact(width).zip(d_items.chunks_exact_mut(width)).enumerate() {
        let g = &g[at / experts * width..][..width];
        d_weights[at] = dot::<FMA>(g, item);
        for (d, &g) in d_item.iter_mut().zip(g) {
            *d = weights[at] * g;
        }
    }
}

fn run(weights: &FlexTensor, items: &FlexTensor) -> FlexTensor {
    let [rows, experts, width] = dims(items);
    let mut out = vec![0.0; rows * width];
    if rows * experts * width > 0 {
        let tasks: Vec<_> = out
            .chunks_mut(CHUNK * width)
            .zip(floats(weights).chunks(CHUNK * experts))
            .zip(floats(items).chunks(CHUNK * experts * width))
            .collect();
        map_tasks(tasks, 2 * rows * experts * width, |((out, weights), items)| {
            forward_rows(weights, items, experts, out);
        });
    }
    tensor(out, [rows, width])
}

/// [`crate::mix`] on Flex.
pub(super) fn flex(weights: FlexTensor, items: FlexTensor) -> FlexTensor {
    run(&row_major(weights), &row_major(items))
}

#[derive(Debug)]
struct Mix;

impl Backward<Flex, 2> for Mix {
    /// weights, items
    type State = [FlexTensor; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let [weights, items] = ops.state;
        let [rows, experts, width] = dims(&items);
        let (mut d_weights, mut d_items) = (vec![0.0; rows * experts], vec![0.0; rows * experts * width]);
        if rows * experts * width > 0 {
            let (weights, items, g) = (floats(&weights), floats(&items), floats(&g));
            let tasks: Vec<_> = d_weights
                .chunks_mut(CHUNK * experts)
                .zip(d_items.chunks_mut(CHUNK * experts * width))
                .enumerate()
                .collect();
            map_tasks(tasks, 4 * items.len(), |(chunk, (d_weights, d_items))| {
                let (first, count) = (chunk * CHUNK * experts, d_weights.len());
                let items = &items[first * width..(first + count) * width];
                let g = &g[chunk * CHUNK * width..][..count / experts * width];
                backward_rows(&weights[first..first + count], items, g, experts, d_weights, d_items);
            });
        }
        let [weights_node, items_node] = ops.parents;
        if let Some(node) = weights_node {
            grads.register::<Flex>(node.id, tensor(d_weights, [rows, experts]));
        }
        if let Some(node) = items_node {
            grads.register::<Flex>(node.id, tensor(d_items, [rows, experts, width]));
        }
    }
}

/// [`crate::mix`] on Flex with its gradient.
pub(super) fn autodiff<C: CheckpointStrategy>(weights: Tracked<C>, items: Tracked<C>) -> Tracked<C> {
    let state = [weights.primitive, items.primitive].map(row_major);
    let out = run(&state[0], &state[1]);
    match Mix.prepare::<C>([weights.node, items.node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(state, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}
