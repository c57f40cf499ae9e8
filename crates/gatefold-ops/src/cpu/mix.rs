//! The weighted sum of experts' outputs in one pass, and its backward pass.

// B rows, K experts, A outputs

#![allow(unsafe_code)]

use std::mem::MaybeUninit;

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
    unset::Unset,
};

/// Numbers of the items of a chunk, at least.
const CHUNK: usize = 1 << 14;

/// Rows per chunk.
fn rows_of_chunk(experts: usize, width: usize) -> usize {
    CHUNK.div_ceil((experts * width).max(1))
}

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
    /// The gradient of the weights.
    fn dots(items: &[f32], g: &[f32], experts: usize, d_weights: &mut [f32]) = dots_body
}

#[inline(always)]
fn dots_body<const FMA: bool>(items: &[f32], g: &[f32], experts: usize, d_weights: &mut [f32]) {
    let width = items.len() / d_weights.len();
    for (at, (item, d)) in items.chunks_exact(width).zip(d_weights).enumerate() {
        *d = dot::<FMA>(&g[at / experts * width..][..width], item);
    }
}

multiversion! {
    /// The gradient of the items, of which it sets every number.
    fn scale(weights: &[f32], g: &[f32], experts: usize, d_items: &mut [MaybeUninit<f32>]) = scale_body
}

#[inline(always)]
fn scale_body<const FMA: bool>(weights: &[f32], g: &[f32], experts: usize, d_items: &mut [MaybeUninit<f32>]) {
    let width = d_items.len() / weights.len();
    for (at, (d_item, &weight)) in d_items.chunks_exact_mut(width).zip(weights).enumerate() {
        for (d, &g) in d_item.iter_mut().zip(&g[at / experts * width..][..width]) {
            d.write(weight * g);
        }
    }
}

fn run(weights: &FlexTensor, items: &FlexTensor) -> FlexTensor {
    let [rows, experts, width] = dims(items);
    let mut out = vec![0.0; rows * width];
    if rows * experts * width > 0 {
        let chunk = rows_of_chunk(experts, width);
        let tasks: Vec<_> = out
            .chunks_mut(chunk * width)
            .zip(floats(weights).chunks(chunk * experts))
            .zip(floats(items).chunks(chunk * experts * width))
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
        let [weights_node, items_node] = ops.parents;
        let (work, flops) = (rows * experts * width, 2 * rows * experts * width);
        let chunk = rows_of_chunk(experts, width);
        if let Some(node) = weights_node {
            let mut d_weights = vec![0.0; rows * experts];
            if work > 0 {
                let rows_of =
                    floats(&items).chunks(chunk * experts * width).zip(floats(&g).chunks(chunk * width));
                let tasks: Vec<_> = d_weights.chunks_mut(chunk * experts).zip(rows_of).collect();
                map_tasks(tasks, flops, |(d_weights, (items, g))| dots(items, g, experts, d_weights));
            }
            grads.register::<Flex>(node.id, tensor(d_weights, [rows, experts]));
        }
        if let Some(node) = items_node {
            let mut d_items = Unset::new(work);
            if work > 0 {
                let rows_of = floats(&weights).chunks(chunk * experts).zip(floats(&g).chunks(chunk * width));
                let mut rest = d_items.whole();
                let tasks =
                    rows_of.map(|(weights, g)| (rest.take(weights.len() * width), weights, g)).collect();
                map_tasks(tasks, flops, |(d_items, weights, g)| {
                    // SAFETY: there is a weight for each item, so every number is set.
                    unsafe { d_items.set_by(|d_items| scale(weights, g, experts, d_items)) };
                });
            }
            grads.register::<Flex>(node.id, tensor(d_items.finish(), [rows, experts, width]));
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
