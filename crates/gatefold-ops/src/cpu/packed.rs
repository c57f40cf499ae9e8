//! Packing rows for their experts and mixing what comes back, and the backward passes.

// B rows, K experts, P pairs, A width of the items

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
    prefetch::prefetch,
    unset::Unset,
};
use crate::ActivePairs;

/// Rows or pairs per chunk.
const CHUNK: usize = 256;

/// So many rows or pairs ahead one that lies anywhere is asked for.
const AHEAD: usize = 8;

fn run_pack(x: FlexTensor, pairs: &ActivePairs) -> FlexTensor {
    let x = row_major(x);
    let [_, width] = dims(&x);
    let x = floats(&x);
    let mut out = Vec::with_capacity(pairs.len() * width);
    for (pair, &row) in pairs.rows().iter().enumerate() {
        if let Some(&row) = pairs.rows().get(pair + AHEAD) {
            prefetch(&x[row * width..(row + 1) * width]);
        }
        out.extend_from_slice(&x[row * width..(row + 1) * width]);
    }
    tensor(out, [pairs.len(), width])
}

multiversion! {
    /// Adds to each row of `out`, from row `first` on, its pairs' rows of `items`, times their weight
    /// if there are weights.
    fn add_pairs(
        weights: Option<&[f32]>, items: &[f32], width: usize, pairs: &ActivePairs, first: usize, out: &mut [f32],
    ) = add_body
}

#[inline(always)]
fn add_body<const FMA: bool>(
    weights: Option<&[f32]>,
    items: &[f32],
    width: usize,
    pairs: &ActivePairs,
    first: usize,
    out: &mut [f32],
) {
    for (row, out) in out.chunks_exact_mut(width).enumerate() {
        if first + row + AHEAD < pairs.num_rows() {
            let soon = pairs.of_row(first + row + AHEAD);
            for &pair in soon {
                prefetch(&items[pair * width..(pair + 1) * width]);
                if let Some(weights) = weights {
                    prefetch(&weights[pairs.gates()[pair]..][..1]);
                }
            }
        }
        for &pair in pairs.of_row(first + row) {
            let weight = weights.map_or(1.0, |weights| weights[pairs.gates()[pair]]);
            add_scaled::<FMA>(out, weight, &items[pair * width..(pair + 1) * width]);
        }
    }
}

/// `[B, width]` from `[P, width]`: for each row the (weighted) sum over its pairs, experts ascending.
fn sum_pairs(weights: Option<&[f32]>, items: &FlexTensor, pairs: &ActivePairs) -> FlexTensor {
    let [_, width] = dims(items);
    let mut out = Unset::new(pairs.num_rows() * width);
    let mut rest = out.whole();
    if !rest.is_empty() {
        let chunks = (0..pairs.num_rows()).step_by(CHUNK);
        let tasks = chunks.map(|first| (first, rest.take(CHUNK.min(pairs.num_rows() - first) * width)));
        map_tasks(tasks.collect(), 2 * pairs.len() * width, |(first, out)| {
            add_pairs(weights, floats(items), width, pairs, first, out.cleared());
        });
    }
    tensor(out.finish(), [pairs.num_rows(), width])
}

multiversion! {
    /// The gradients of some pairs' weights and items, from pair `first` on; it sets every number of both.
    fn backward_pairs(
        weights: &[f32], items: &[f32], g: &[f32], pairs: &ActivePairs, first: usize,
        d_weights: &mut [f32], d_items: &mut [MaybeUninit<f32>],
    ) = backward_body
}

#[inline(always)]
fn backward_body<const FMA: bool>(
    weights: &[f32],
    items: &[f32],
    g: &[f32],
    pairs: &ActivePairs,
    first: usize,
    d_weights: &mut [f32],
    d_items: &mut [MaybeUninit<f32>],
) {
    let width = d_items.len() / d_weights.len();
    for (at, (d_weight, d_item)) in d_weights.iter_mut().zip(d_items.chunks_exact_mut(width)).enumerate() {
        let pair = first + at;
        if let Some(&row) = pairs.rows().get(pair + AHEAD) {
            prefetch(&g[row * width..(row + 1) * width]);
            prefetch(&weights[pairs.gates()[pair + AHEAD]..][..1]);
        }
        let (row, weight) = (pairs.rows()[pair], weights[pairs.gates()[pair]]);
        let g = &g[row * width..(row + 1) * width];
        *d_weight = dot::<FMA>(g, &items[pair * width..(pair + 1) * width]);
        for (d, &g) in d_item.iter_mut().zip(g) {
            d.write(weight * g);
        }
    }
}

/// [`crate::pack`] on Flex.
pub(super) fn flex_pack(x: FlexTensor, pairs: &ActivePairs) -> FlexTensor {
    run_pack(x, pairs)
}

#[derive(Debug)]
struct Pack;

impl Backward<Flex, 1> for Pack {
    type State = ActivePairs;

    fn backward(self, ops: Ops<ActivePairs, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let [node] = ops.parents;
        if let Some(node) = node {
            grads.register::<Flex>(node.id, sum_pairs(None, &g, &ops.state));
        }
    }
}

/// [`crate::pack`] on Flex with its gradient.
pub(super) fn autodiff_pack<C: CheckpointStrategy>(x: Tracked<C>, pairs: &ActivePairs) -> Tracked<C> {
    let out = run_pack(x.primitive, pairs);
    match Pack.prepare::<C>([x.node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(pairs.clone(), out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}

/// [`crate::packed_mix`] on Flex.
pub(super) fn flex_mix(weights: FlexTensor, items: FlexTensor, pairs: &ActivePairs) -> FlexTensor {
    let (weights, items) = (row_major(weights), row_major(items));
    sum_pairs(Some(floats(&weights)), &items, pairs)
}

#[derive(Debug)]
struct Mix;

impl Backward<Flex, 2> for Mix {
    /// weights, items, pairs
    type State = (FlexTensor, FlexTensor, ActivePairs);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let (weights, items, pairs) = ops.state;
        let ([rows, experts], [count, width]) = (dims(&weights), dims(&items));
        let (mut d_pairs, mut d_items) = (vec![0.0; count], Unset::new(count * width));
        let mut rest = d_items.whole();
        if !rest.is_empty() {
            let tasks = d_pairs.chunks_mut(CHUNK).enumerate().map(|(chunk, d_weights)| {
                let d_items = rest.take(d_weights.len() * width);
                (chunk * CHUNK, d_weights, d_items)
            });
            map_tasks(tasks.collect(), 3 * count * width, |(first, d_weights, d_items)| {
                let (weights, items, g) = (floats(&weights), floats(&items), floats(&g));
                let set = |d_items: &mut [_]| {
                    backward_pairs(weights, items, g, &pairs, first, d_weights, d_items);
                };
                // SAFETY: there is a weight for each item, so every number is set.
                unsafe { d_items.set_by(set) };
            });
        }
        let [weights_node, items_node] = ops.parents;
        if let Some(node) = weights_node {
            let mut d_weights = vec![0.0; rows * experts];
            for (&gate, d) in pairs.gates().iter().zip(d_pairs) {
                d_weights[gate] = d;
            }
            grads.register::<Flex>(node.id, tensor(d_weights, [rows, experts]));
        }
        if let Some(node) = items_node {
            grads.register::<Flex>(node.id, tensor(d_items.finish(), [count, width]));
        }
    }
}

/// [`crate::packed_mix`] on Flex with its gradient.
pub(super) fn autodiff_mix<C: CheckpointStrategy>(
    weights: Tracked<C>,
    items: Tracked<C>,
    pairs: &ActivePairs,
) -> Tracked<C> {
    let (w, i) = (row_major(weights.primitive), row_major(items.primitive));
    let out = sum_pairs(Some(floats(&w)), &i, pairs);
    match Mix.prepare::<C>([weights.node, items.node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish((w, i, pairs.clone()), out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}
