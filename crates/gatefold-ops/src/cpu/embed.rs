//! The node inputs of a batch of graphs in one pass, and their backward pass.

// B graphs, V nodes, D width

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
    level::{mul_add, multiversion},
    math::add_scaled,
};

/// Graphs per chunk forward, nodes per chunk backward.
const CHUNK: usize = 8;

multiversion! {
    fn forward_graph(base: &[f32], activations: &[f32], direction: &[f32], out: &mut [f32]) = forward_body
}

#[inline(always)]
fn forward_body<const FMA: bool>(base: &[f32], activations: &[f32], direction: &[f32], out: &mut [f32]) {
    let width = direction.len();
    let rows = base.chunks_exact(width).zip(out.chunks_exact_mut(width));
    for ((base, out), &a) in rows.zip(activations) {
        for i in 0..width {
            out[i] = mul_add::<FMA>(a, direction[i], base[i]);
        }
    }
}

multiversion! {
    /// The gradients of some nodes' rows, summed over the batch in its order.
    fn backward_nodes(
        activations: &[f32], g: &[f32], shape: [usize; 3], first: usize,
        d_base: &mut [f32], d_direction: &mut [f32],
    ) = backward_body
}

#[inline(always)]
fn backward_body<const FMA: bool>(
    activations: &[f32],
    g: &[f32],
    [batch, nodes, width]: [usize; 3],
    first: usize,
    d_base: &mut [f32],
    d_direction: &mut [f32],
) {
    let count = d_base.len() / width;
    for b in 0..batch {
        for v in 0..count {
            let at = b * nodes + first + v;
            let g = &g[at * width..(at + 1) * width];
            for (d, &g) in d_base[v * width..(v + 1) * width].iter_mut().zip(g) {
                *d += g;
            }
            add_scaled::<FMA>(d_direction, activations[at], g);
        }
    }
}

fn run(base: &FlexTensor, activations: &FlexTensor, direction: &FlexTensor) -> FlexTensor {
    let ([batch, nodes], [width]) = (dims(activations), dims(direction));
    let mut out = vec![0.0; batch * nodes * width];
    if !out.is_empty() {
        let flops = 2 * out.len();
        let tasks: Vec<_> =
            out.chunks_mut(CHUNK * nodes * width).zip(floats(activations).chunks(CHUNK * nodes)).collect();
        map_tasks(tasks, flops, |(out, activations)| {
            for (out, activations) in out.chunks_exact_mut(nodes * width).zip(activations.chunks_exact(nodes))
            {
                forward_graph(floats(base), activations, floats(direction), out);
            }
        });
    }
    tensor(out, [batch, nodes, width])
}

/// [`crate::embed_activations`] on Flex.
pub(super) fn flex(base: FlexTensor, activations: FlexTensor, direction: FlexTensor) -> FlexTensor {
    run(&row_major(base), &row_major(activations), &row_major(direction))
}

#[derive(Debug)]
struct Embed;

impl Backward<Flex, 2> for Embed {
    /// The activations.
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let shape: [usize; 3] = dims(&g);
        let [_, nodes, width] = shape;
        let mut d_base = vec![0.0; nodes * width];
        let parts = if floats(&g).is_empty() {
            Vec::new()
        } else {
            let tasks: Vec<_> = d_base.chunks_mut(CHUNK * width).enumerate().collect();
            map_tasks(tasks, 3 * floats(&g).len(), |(chunk, d_base)| {
                let mut d_direction = vec![0.0; width];
                let activations = floats(&ops.state);
                backward_nodes(activations, floats(&g), shape, chunk * CHUNK, d_base, &mut d_direction);
                d_direction
            })
        };
        let [base_node, direction_node] = ops.parents;
        if let Some(node) = base_node {
            grads.register::<Flex>(node.id, tensor(d_base, [nodes, width]));
        }
        if let Some(node) = direction_node {
            grads.register::<Flex>(node.id, tensor(add_parts(parts, width), [width]));
        }
    }
}

/// [`crate::embed_activations`] on Flex with its gradient.
pub(super) fn autodiff<C: CheckpointStrategy>(
    base: Tracked<C>,
    activations: Tracked<C>,
    direction: Tracked<C>,
) -> Tracked<C> {
    let activations = row_major(activations.primitive);
    let out = run(&row_major(base.primitive), &activations, &row_major(direction.primitive));
    match Embed.prepare::<C>([base.node, direction.node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(activations, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}
