//! Graph attention over CSR edges: chunks of graphs, and the backward pass.
//!
//! Only the attention is kept for the backward pass, beside the inputs.

use burn::backend::{
    Autodiff, Flex,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    flex::FlexTensor,
};
use burn::tensor::Tensor;

use super::{
    chunks::{add_parts, map_tasks},
    flat::{Tracked, dims, floats, row_major, tensor, unwrap, wrap},
    gat_kernel::{Layer, backward_graphs, forward_graphs},
    gat_parts::{for_parts, of_heads},
};
use crate::GatEdges;

/// Graphs per chunk.
const CHUNK: usize = 8;

/// `h`, the weights of the scores, and `relation_bias`: with `N = 4` those of GAT, `a_src` and `a_dst`
/// between the others, with `N = 3` GATv2's `a`.
type Inputs<const N: usize> = [FlexTensor; N];

/// What the backward pass needs.
#[derive(Debug, Clone)]
pub(super) struct State<const N: usize> {
    inputs: Inputs<N>,
    edges: GatEdges,
    slope: f32,
    attention: FlexTensor,
}

impl<const N: usize> State<N> {
    fn layer(&self) -> Layer<'_> {
        Layer::new(&self.inputs[1..N - 1], &self.inputs[N - 1], &self.edges, self.slope)
    }

    /// The attention, to be seen.
    fn seen(&self) -> FlexTensor {
        let layer = self.layer();
        if layer.parts == 1 {
            return self.attention.clone();
        }
        let [heads, _] = layer.whole_heads();
        let [batch, edges, _] = dims(&self.attention);
        tensor(of_heads(floats(&self.attention).to_vec(), layer.parts), [batch, edges, heads])
    }
}

fn run<const N: usize>(inputs: Inputs<N>, edges: &GatEdges, slope: f32) -> (State<N>, FlexTensor) {
    let mut inputs = inputs.map(row_major);
    inputs[N - 1] = for_parts(inputs[N - 1].clone(), &inputs[1]);
    let [batch, num_rows, _] = dims(&inputs[0]);
    let (targets, num_edges) = (edges.num_targets(), edges.num_edges());
    let attention = tensor(Vec::new(), [0]);
    let mut state = State { inputs, edges: edges.clone(), slope, attention };
    let layer = state.layer();
    let (heads, width) = (layer.heads, layer.width());
    let mut out = vec![0.0; batch * targets * width];
    let mut attention = vec![0.0; batch * num_edges * heads];
    let sizes = [num_rows * layer.row(), targets * width, num_edges * heads].map(|size| size * CHUNK);
    if out.is_empty() || num_edges == 0 {
        // Nothing flows along no edges: all rows stay 0.
    } else {
        let rows = floats(&state.inputs[0]).chunks(sizes[0]);
        let new = out.chunks_mut(sizes[1]).zip(attention.chunks_mut(sizes[2]));
        map_tasks(rows.zip(new).collect(), layer.flops(batch), |(h, (out, attention))| {
            forward_graphs(&layer, h, out, attention);
        });
    }
    state.attention = tensor(attention, [batch, num_edges, heads]);
    (state, tensor(out, [batch, targets, width]))
}

/// [`crate::gat_attention`] or [`crate::gatv2_attention`] on Flex.
pub(super) fn flex<const N: usize>(
    inputs: Inputs<N>,
    edges: &GatEdges,
    slope: f32,
) -> (FlexTensor, FlexTensor) {
    let (state, out) = run(inputs, edges, slope);
    (out, state.seen())
}

#[derive(Debug)]
struct Gat;

impl<const N: usize> Backward<Flex, N> for Gat {
    type State = State<N>;

    fn backward(self, ops: Ops<State<N>, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let state = ops.state;
        let layer = state.layer();
        let edges = &state.edges;
        let [batch, num_rows, row] = dims(&state.inputs[0]);
        let mut d_h = vec![0.0; batch * num_rows * row];
        let sizes = [num_rows * row, edges.num_targets() * layer.width(), edges.num_edges() * layer.heads];
        let [rows, new_rows, scores] = sizes.map(|size| size * CHUNK);
        let parts = if d_h.is_empty() || edges.num_edges() == 0 {
            Vec::new()
        } else {
            let tasks: Vec<_> = d_h.chunks_mut(rows).enumerate().collect();
            map_tasks(tasks, 3 * layer.flops(batch), |(chunk, d_h)| {
                let count = d_h.len() * CHUNK / rows;
                let part = |size: usize| chunk * size..chunk * size + count * size / CHUNK;
                let mut d_parameters = vec![0.0; layer.num_parameters()];
                backward_graphs(
                    &layer,
                    &floats(&state.inputs[0])[part(rows)],
                    &floats(&state.attention)[part(scores)],
                    &floats(&g)[part(new_rows)],
                    d_h,
                    &mut d_parameters,
                );
                d_parameters
            })
        };
        let mut rest = add_parts(parts, layer.num_parameters());
        if let Some(node) = &ops.parents[0] {
            grads.register::<Flex>(node.id, tensor(d_h, [batch, num_rows, row]));
        }
        for input in 1..N {
            let mut shape: [usize; 2] = dims(&state.inputs[input]);
            let after = rest.split_off(shape[0] * shape[1]);
            let mut gradient = std::mem::replace(&mut rest, after);
            if input == N - 1 {
                gradient = of_heads(gradient, layer.parts);
                shape[1] /= layer.parts;
            }
            if let Some(node) = &ops.parents[input] {
                grads.register::<Flex>(node.id, tensor(gradient, shape));
            }
        }
    }
}

/// [`crate::gat_attention`] or [`crate::gatv2_attention`] on Flex with its gradient.
pub(super) fn autodiff<C: CheckpointStrategy, const N: usize>(
    inputs: [Tracked<C>; N],
    edges: &GatEdges,
    slope: f32,
) -> (Tracked<C>, Tracked<C>) {
    let nodes = inputs.each_ref().map(|input| input.node.clone());
    let (state, out) = run(inputs.map(|input| input.primitive), edges, slope);
    let attention = wrap::<Flex, 3>(state.seen());
    let out = match Gat.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(state, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    };
    (out, unwrap(Tensor::<Autodiff<Flex, C>, 3>::from_inner(attention)))
}
