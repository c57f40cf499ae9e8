//! Graph attention over CSR edges: chunks of graphs, and the backward pass.
//!
//! Only the attention and the side of the LeakyReLU are kept for the backward pass.

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
};
use crate::GatEdges;

/// Graphs per chunk.
const CHUNK: usize = 8;

/// What the backward pass needs.
#[derive(Debug, Clone)]
pub(super) struct State {
    h: FlexTensor,
    a_src: FlexTensor,
    a_dst: FlexTensor,
    relation_bias: FlexTensor,
    edges: GatEdges,
    slope: f32,
    attention: FlexTensor,
    negative: std::sync::Arc<Vec<bool>>,
}

impl State {
    fn layer(&self) -> Layer<'_> {
        let [heads, channels] = dims(&self.a_src);
        Layer {
            a_src: floats(&self.a_src),
            a_dst: floats(&self.a_dst),
            relation_bias: floats(&self.relation_bias),
            edges: &self.edges,
            slope: self.slope,
            heads,
            channels,
        }
    }
}

fn run(
    [h, a_src, a_dst, relation_bias]: [FlexTensor; 4],
    edges: &GatEdges,
    slope: f32,
) -> (State, FlexTensor) {
    let [h, a_src, a_dst, relation_bias] = [h, a_src, a_dst, relation_bias].map(row_major);
    let [batch, num_rows, width] = dims(&h);
    let (targets, num_edges) = (edges.num_targets(), edges.num_edges());
    let attention = tensor(Vec::new(), [0]);
    let mut state = State {
        h,
        a_src,
        a_dst,
        relation_bias,
        edges: edges.clone(),
        slope,
        attention,
        negative: Default::default(),
    };
    let layer = state.layer();
    let heads = layer.heads;
    let mut out = vec![0.0; batch * targets * width];
    let mut attention = vec![0.0; batch * num_edges * heads];
    let mut negative = vec![false; batch * num_edges * heads];
    let sizes = [num_rows * width, targets * width, num_edges * heads].map(|size| size * CHUNK);
    if out.is_empty() || num_edges == 0 {
        // Nothing flows along no edges: all rows stay 0.
    } else {
        let tasks: Vec<_> = floats(&state.h)
            .chunks(sizes[0])
            .zip(out.chunks_mut(sizes[1]))
            .zip(attention.chunks_mut(sizes[2]).zip(negative.chunks_mut(sizes[2])))
            .collect();
        map_tasks(tasks, layer.flops(batch), |((h, out), (attention, negative))| {
            forward_graphs(&layer, h, out, attention, negative);
        });
    }
    state.attention = tensor(attention, [batch, num_edges, heads]);
    state.negative = negative.into();
    (state, tensor(out, [batch, targets, width]))
}

/// [`crate::gat_attention`] on Flex.
pub(super) fn flex(inputs: [FlexTensor; 4], edges: &GatEdges, slope: f32) -> (FlexTensor, FlexTensor) {
    let (state, out) = run(inputs, edges, slope);
    (out, state.attention)
}

#[derive(Debug)]
struct Gat;

impl Backward<Flex, 4> for Gat {
    type State = State;

    fn backward(self, ops: Ops<State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let state = ops.state;
        let layer = state.layer();
        let edges = &state.edges;
        let [batch, num_rows, width] = dims(&state.h);
        let (heads, channels) = (layer.heads, layer.channels);
        let mut d_h = vec![0.0; batch * num_rows * width];
        let num_parameters = 2 * width + edges.num_relations() * heads;
        let sizes = [num_rows * width, edges.num_targets() * width, edges.num_edges() * heads];
        let [rows, new_rows, scores] = sizes.map(|size| size * CHUNK);
        let parts = if d_h.is_empty() || edges.num_edges() == 0 {
            Vec::new()
        } else {
            let tasks: Vec<_> = d_h.chunks_mut(rows).enumerate().collect();
            map_tasks(tasks, 3 * layer.flops(batch), |(chunk, d_h)| {
                let count = d_h.len() * CHUNK / rows;
                let part = |size: usize| chunk * size..chunk * size + count * size / CHUNK;
                let mut d_parameters = vec![0.0; num_parameters];
                backward_graphs(
                    &layer,
                    &floats(&state.h)[part(rows)],
                    &floats(&state.attention)[part(scores)],
                    &state.negative[part(scores)],
                    &floats(&g)[part(new_rows)],
                    d_h,
                    &mut d_parameters,
                );
                d_parameters
            })
        };
        let mut d_a_src = add_parts(parts, num_parameters);
        let mut d_a_dst = d_a_src.split_off(width);
        let d_relation = d_a_dst.split_off(width);
        let [h_node, src_node, dst_node, relation_node] = ops.parents;
        if let Some(node) = h_node {
            grads.register::<Flex>(node.id, tensor(d_h, [batch, num_rows, width]));
        }
        if let Some(node) = src_node {
            grads.register::<Flex>(node.id, tensor(d_a_src, [heads, channels]));
        }
        if let Some(node) = dst_node {
            grads.register::<Flex>(node.id, tensor(d_a_dst, [heads, channels]));
        }
        if let Some(node) = relation_node {
            grads.register::<Flex>(node.id, tensor(d_relation, [edges.num_relations(), heads]));
        }
    }
}

/// [`crate::gat_attention`] on Flex with its gradient.
pub(super) fn autodiff<C: CheckpointStrategy>(
    [h, a_src, a_dst, relation_bias]: [Tracked<C>; 4],
    edges: &GatEdges,
    slope: f32,
) -> (Tracked<C>, Tracked<C>) {
    let inputs = [h.primitive, a_src.primitive, a_dst.primitive, relation_bias.primitive];
    let (state, out) = run(inputs, edges, slope);
    let attention = wrap::<Flex, 3>(state.attention.clone());
    let nodes = [h.node, a_src.node, a_dst.node, relation_bias.node];
    let out = match Gat.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(state, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    };
    (out, unwrap(Tensor::<Autodiff<Flex, C>, 3>::from_inner(attention)))
}
