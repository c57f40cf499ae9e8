//! A graph attention layer over embedded node inputs, and its backward pass.
//!
//! What is embedded, and its gradient, is in memory for a chunk of graphs at a time: a product with the few numbers
//! of a node costs less than to write its rows and to read them back. So the backward pass computes them again.

// B graphs, V nodes, G numbers of a node, D width of a node, R width of a projected row

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
    chunks::{add_parts, map_tasks},
    embed,
    flat::{Tracked, dims, floats, row_major, tensor},
    gat_layer::{Given, Keep, Outcome, Work, block, cut, forward, ready, register_learned, untracked},
    gat_layer_kernel::{Block, Trace, backward_blocks},
    kept::Kept,
    panels::{Matrix, Panels},
    prefetch::{Soon, prefetch},
    scratch::Scratch,
};

/// Chunks whose gradients are added up before those of others.
const CHUNKS: usize = 4;

/// How many tensors are embedded with: base `[V, D]` and directions `[G, D]` of `x`, those of the projected rows
/// `[V, R]` and `[G, R]`.
const EMBEDDED: usize = 4;

/// What is embedded with; then what is [`Learned`](super::gat_layer::Learned). `N = 9` in GAT, 8 in GATv2.
type Inputs<const N: usize> = [FlexTensor; N];

/// What the backward pass needs.
#[derive(Debug, Clone)]
struct State<const N: usize> {
    inputs: Inputs<N>,
    /// `[B, V, G]`.
    numbers: FlexTensor,
    given: Given,
    trace: Trace<Arc<Kept>>,
}

/// The layer, and sizes: nodes, numbers of a node, width of `x` and of a projected row.
fn layer<'a, const N: usize>(
    inputs: &'a Inputs<N>,
    numbers: &FlexTensor,
    given: &'a Given,
) -> ((Block<'a>, Work), [usize; 4]) {
    let [batch, nodes, numbers] = dims(numbers);
    let [width, row] = [0, 2].map(|at| dims::<2>(&inputs[at])[1]);
    let product = 2 * numbers * (width + row);
    (block(&inputs[EMBEDDED..], given, [batch, nodes], product), [nodes, numbers, width, row])
}

/// Directions as the products with a node's numbers read them.
fn panels(directions: &FlexTensor, nodes: usize) -> Panels<'_> {
    let [numbers, width] = dims(directions);
    Panels::new(Matrix::new(floats(directions), numbers, width), nodes)
}

fn run<const N: usize>(inputs: &Inputs<N>, numbers: &FlexTensor, given: &Given, keep: Keep) -> Outcome {
    let (layer, [nodes, count, width, _]) = layer(inputs, numbers, given);
    let numbers = floats(numbers);
    let directions = [1, 3].map(|at| panels(&inputs[at], nodes));
    forward(&layer, given, keep, |chunk| {
        let [start, end] = chunk.ends;
        let mut passing = Scratch::new(end.x - start.x + end.h - start.h);
        let (x, h) = passing.split_at_mut(end.x - start.x);
        let numbers = &numbers[start.x / width * count..end.x / width * count];
        embed::rows(numbers, &directions[0], floats(&inputs[0]), x);
        embed::rows(numbers, &directions[1], floats(&inputs[2]), h);
        chunk.fill(&layer.0, [x, h]);
    })
}

/// [`crate::gat_layer`] of embedded rows on Flex: nothing is kept.
pub(super) fn flex<const N: usize>(
    inputs: Inputs<N>,
    numbers: FlexTensor,
    given: Given,
) -> (FlexTensor, Option<FlexTensor>) {
    let Outcome { out, seen, .. } = run(&ready(inputs, EMBEDDED), &row_major(numbers), &given, Keep::Nothing);
    (out, seen)
}

#[derive(Debug)]
struct GatEmbedded;

impl<const N: usize> Backward<Flex, N> for GatEmbedded {
    type State = State<N>;

    fn backward(self, ops: Ops<State<N>, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let State { inputs, numbers, given, trace } = &ops.state;
        let ((block, work), [nodes, count, width, row]) = layer(inputs, numbers, given);
        let (numbers, g) = (floats(numbers), floats(&g));
        let trace = trace.each_ref().map(|kept| &kept[..]);
        let directions = panels(&inputs[3], nodes);
        let sizes = [nodes * width, count * width, nodes * row, count * row];
        let graphs = if g.is_empty() { 0 } else { work.batch };
        let tasks: Vec<_> = cut(0..graphs, work.graphs * CHUNKS).collect();
        let parts = map_tasks(tasks, 3 * work.flops, |task| {
            let mut d_parameters = vec![0.0; block.num_parameters()];
            let mut d_embedded = sizes.map(|size| vec![0.0; size]);
            for graphs in cut(task, work.graphs) {
                let ends @ [start, end] = block.ends(&graphs);
                let [from, to] = block.ends(&(graphs.end..work.batch.min(graphs.end + work.graphs)));
                let mut passing = Scratch::new(2 * (end.h - start.h) + end.x - start.x);
                let (h, rest) = passing.split_at_mut(end.h - start.h);
                let (d_h, d_x) = rest.split_at_mut(h.len());
                let numbers = &numbers[start.x / width * count..end.x / width * count];
                let of_g = &g[start.y..end.y];
                embed::rows(numbers, &directions, floats(&inputs[2]), h);
                let of_trace = trace.between(&ends);
                backward_blocks(&block, graphs.clone(), h, of_trace, of_g, d_h, &mut d_parameters);
                let d_x = if block.rows_stay(graphs.clone()) {
                    of_g
                } else {
                    d_x.fill(0.0);
                    block.add_to_own_rows(graphs, of_g, d_x);
                    d_x
                };
                // The next chunk comes while the products of this one are computed.
                prefetch(&trace.attention[from.attention..to.attention]);
                let soon = Soon::of(&g[from.y..to.y]);
                let [d_base, d_directions, d_base_h, d_directions_h] =
                    d_embedded.each_mut().map(|sums| &mut sums[..]);
                embed::add_gradients(numbers, d_h, [d_base_h, d_directions_h], [count, row], soon);
                embed::add_gradients(numbers, d_x, [d_base, d_directions], [count, width], Soon::default());
            }
            (d_parameters, d_embedded)
        });
        let (parameters, embedded): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let mut of_tasks = sizes.map(|_| Vec::with_capacity(embedded.len()));
        for of_task in embedded {
            of_tasks.iter_mut().zip(of_task).for_each(|(parts, part)| parts.push(part));
        }
        for (((node, input), parts), size) in ops.parents.iter().zip(inputs).zip(of_tasks).zip(sizes) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, tensor(add_parts(parts, size), dims::<2>(input)));
            }
        }
        let nodes = ops.parents[EMBEDDED..].iter().map(|node| node.as_ref().map(|node| node.id));
        let rest = add_parts(parameters, block.num_parameters());
        register_learned(grads, nodes, &inputs[EMBEDDED..], block.layer.parts, rest);
    }
}

/// [`crate::gat_layer`] of embedded rows on Flex with its gradient.
pub(super) fn autodiff<C: CheckpointStrategy, const N: usize>(
    inputs: [Tracked<C>; N],
    numbers: Tracked<C>,
    given: Given,
) -> (Tracked<C>, Option<Tracked<C>>) {
    let nodes = inputs.each_ref().map(|input| input.node.clone());
    let inputs = ready(inputs.map(|input| input.primitive), EMBEDDED);
    let numbers = row_major(numbers.primitive);
    let Outcome { out, trace, seen, .. } = run(&inputs, &numbers, &given, Keep::Trace);
    let out = match GatEmbedded.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(State { inputs, numbers, given, trace }, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    };
    (out, seen.map(untracked::<C>))
}
