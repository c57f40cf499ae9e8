//! The node inputs of a batch of graphs in one pass, and their backward pass.

// B graphs, V nodes, G numbers of a node, D width

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
    flat::{Tracked, dims, floats, row_major, tensor},
    level::level,
    linear::{add_rows, add_weight_gradient},
    panels::{Matrix, Panels},
    prefetch::Soon,
    sgemm::{Init, gemm, gemm_unset},
    unset::Unset,
};

/// Graphs per chunk.
const CHUNK: usize = 16;

fn run(base: &FlexTensor, inputs: &FlexTensor, directions: &FlexTensor) -> FlexTensor {
    let ([batch, nodes, numbers], [_, width]) = (dims(inputs), dims(directions));
    let mut out = Unset::new(batch * nodes * width);
    let mut rest = out.whole();
    if !rest.is_empty() {
        let panels = Panels::new(Matrix::new(floats(directions), numbers, width), nodes);
        let tasks: Vec<_> = (0..batch)
            .step_by(CHUNK)
            .map(|first| {
                let graphs = first..batch.min(first + CHUNK);
                (rest.take(graphs.len() * nodes * width), graphs)
            })
            .collect();
        map_tasks(tasks, 2 * batch * nodes * width * numbers, |(mut out, graphs)| {
            for graph in graphs {
                let inputs = &floats(inputs)[graph * nodes * numbers..][..nodes * numbers];
                let (inputs, out) = (Matrix::new(inputs, nodes, numbers), out.take(nodes * width));
                gemm_unset(level(), inputs, &panels, Init::Rows(floats(base)), out, |_| {});
            }
        });
    }
    tensor(out.finish(), [batch, nodes, width])
}

/// The rows of some graphs, from the `numbers` of their nodes.
pub(super) fn rows(numbers: &[f32], directions: &Panels<'_>, base: &[f32], out: &mut [f32]) {
    let (nodes, count) = (base.len() / directions.n, directions.k);
    for (graph, out) in out.chunks_exact_mut(base.len()).enumerate() {
        let numbers = Matrix::new(&numbers[graph * nodes * count..][..nodes * count], nodes, count);
        gemm(level(), numbers, directions, Init::Rows(base), out, |_| {});
    }
}

/// [`crate::embed_nodes`] on Flex.
pub(super) fn flex(base: FlexTensor, inputs: FlexTensor, directions: FlexTensor) -> FlexTensor {
    run(&row_major(base), &row_major(inputs), &row_major(directions))
}

/// Adds to the gradients of base and directions that of the rows `g` of some graphs, before what is wanted `soon`.
pub(super) fn add_gradients(
    numbers: &[f32],
    g: &[f32],
    [d_base, d_directions]: [&mut [f32]; 2],
    [count, width]: [usize; 2],
    soon: Soon,
) {
    add_rows(g, d_base);
    add_weight_gradient(numbers, g, d_directions, [g.len() / width, count, width], soon);
}

#[derive(Debug)]
struct Embed;

impl Backward<Flex, 2> for Embed {
    /// The inputs.
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let ([_, nodes, width], [_, _, numbers]) = (dims(&g), dims(&ops.state));
        let (inputs, g) = (floats(&ops.state), floats(&g));
        let size = nodes * width;
        let tasks: Vec<_> = match g.len() {
            0 => Vec::new(),
            _ => inputs.chunks(CHUNK * nodes * numbers).zip(g.chunks(CHUNK * size)).collect(),
        };
        let parts = map_tasks(tasks, (1 + 2 * numbers) * g.len(), |(inputs, g)| {
            let (mut d_base, mut d_directions) = (vec![0.0; size], vec![0.0; numbers * width]);
            for (graph, (inputs, of_graph)) in
                inputs.chunks_exact(nodes * numbers).zip(g.chunks_exact(size)).enumerate()
            {
                let next = Soon::of(g.chunks_exact(size).nth(graph + 1).unwrap_or_default());
                add_gradients(inputs, of_graph, [&mut d_base, &mut d_directions], [numbers, width], next);
            }
            (d_base, d_directions)
        });
        let (of_base, of_directions): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let [base_node, directions_node] = ops.parents;
        if let Some(node) = base_node {
            grads.register::<Flex>(node.id, tensor(add_parts(of_base, size), [nodes, width]));
        }
        if let Some(node) = directions_node {
            grads.register::<Flex>(
                node.id,
                tensor(add_parts(of_directions, numbers * width), [numbers, width]),
            );
        }
    }
}

/// [`crate::embed_nodes`] on Flex with its gradient.
pub(super) fn autodiff<C: CheckpointStrategy>(
    base: Tracked<C>,
    inputs: Tracked<C>,
    directions: Tracked<C>,
) -> Tracked<C> {
    let inputs = row_major(inputs.primitive);
    let out = run(&row_major(base.primitive), &inputs, &row_major(directions.primitive));
    match Embed.prepare::<C>([base.node, directions.node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(inputs, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}
