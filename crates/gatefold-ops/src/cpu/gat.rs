//! Graph attention over CSR edges, graph by graph, with its backward pass.
//!
//! Only the attention and the side of the LeakyReLU are kept for the backward pass. Inner loops run
//! over the channels of one head, which the common widths know at compile time.

// B graphs, S source rows, T target rows, E edges, H heads, C channels of a head, R relations

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
    level::{mul_add, multiversion},
    math::{add_scaled, dot, exp},
};
use crate::GatEdges;

/// Graphs per chunk.
const CHUNK: usize = 8;

/// What all graphs of a batch share.
struct Layer<'a> {
    a_src: &'a [f32],
    a_dst: &'a [f32],
    relation_bias: &'a [f32],
    edges: &'a GatEdges,
    slope: f32,
    heads: usize,
    channels: usize,
}

impl Layer<'_> {
    fn width(&self) -> usize {
        self.heads * self.channels
    }

    /// Floating-point operations of one forward pass over `batch` graphs, roughly.
    fn flops(&self, batch: usize) -> usize {
        let rows = self.edges.num_sources() + self.edges.num_targets() + self.edges.num_edges();
        2 * batch * (rows * self.width() + 20 * self.edges.num_edges() * self.heads)
    }

    /// The number of heads and of channels; constants where `H` and `C` are not 0.
    #[inline(always)]
    fn sizes<const H: usize, const C: usize>(&self) -> (usize, usize) {
        (if H == 0 { self.heads } else { H }, if C == 0 { self.channels } else { C })
    }

    fn edges_of(&self, target: usize) -> std::ops::Range<usize> {
        let offsets = self.edges.offsets();
        offsets[target] as usize..offsets[target + 1] as usize
    }
}

/// Calls `body` with heads and channels as constants where they are common ones.
macro_rules! by_size {
    ($layer:expr, $body:ident::<$fma:ident>($($arg:expr),*)) => {
        match ($layer.heads, $layer.channels) {
            (4, 8) => $body::<$fma, 4, 8>($($arg),*),
            (4, 16) => $body::<$fma, 4, 16>($($arg),*),
            (4, 32) => $body::<$fma, 4, 32>($($arg),*),
            (4, 64) => $body::<$fma, 4, 64>($($arg),*),
            _ => $body::<$fma, 0, 0>($($arg),*),
        }
    };
}

multiversion! {
    /// Some graphs forward: new rows, attention, and where the LeakyReLU is on its negative side.
    fn forward_graphs(
        layer: &Layer<'_>, h: &[f32], out: &mut [f32], attention: &mut [f32], negative: &mut [bool],
    ) = forward_body
}

#[inline(always)]
fn forward_body<const FMA: bool>(
    layer: &Layer<'_>,
    h: &[f32],
    out: &mut [f32],
    attention: &mut [f32],
    negative: &mut [bool],
) {
    let (edges, width) = (layer.edges, layer.width());
    let (rows, scores) = (edges.num_sources() * width, edges.num_edges() * layer.heads);
    let mut scratch = vec![0.0; (edges.num_sources() + 3) * layer.heads];
    for (graph, out) in out.chunks_exact_mut(edges.num_targets() * width).enumerate() {
        let h = &h[graph * rows..(graph + 1) * rows];
        let attention = &mut attention[graph * scores..(graph + 1) * scores];
        let negative = &mut negative[graph * scores..(graph + 1) * scores];
        by_size!(layer, forward_graph::<FMA>(layer, h, out, attention, negative, &mut scratch));
    }
}

#[inline(always)]
fn forward_graph<const FMA: bool, const H: usize, const C: usize>(
    layer: &Layer<'_>,
    h: &[f32],
    out: &mut [f32],
    attention: &mut [f32],
    negative: &mut [bool],
    scratch: &mut [f32],
) {
    let (heads, channels) = layer.sizes::<H, C>();
    let edges = layer.edges;
    let width = heads * channels;
    let (source_score, rest) = scratch.split_at_mut(edges.num_sources() * heads);
    let (own, rest) = rest.split_at_mut(heads);
    let (max, sum) = rest.split_at_mut(heads);
    let sum = &mut sum[..heads];
    for (h, score) in h.chunks_exact(width).zip(source_score.chunks_exact_mut(heads)) {
        head_dots::<FMA, H, C>(layer, layer.a_src, h, score);
    }
    // Scores less their largest, edge by edge; then all weights at once; then their shares.
    for (t, &row) in edges.targets().iter().enumerate() {
        let range = layer.edges_of(t);
        head_dots::<FMA, H, C>(layer, layer.a_dst, &h[row as usize * width..][..width], own);
        max.fill(f32::NEG_INFINITY);
        for e in range.clone() {
            let (j, relation) = (edges.sources()[e] as usize, edges.relations()[e] as usize);
            let source = &source_score[j * heads..][..heads];
            let bias = &layer.relation_bias[relation * heads..][..heads];
            let multiplicity = edges.log_multiplicity()[e];
            let attention = &mut attention[e * heads..][..heads];
            let negative = &mut negative[e * heads..][..heads];
            for k in 0..heads {
                let score = source[k] + own[k] + bias[k];
                negative[k] = score < 0.0;
                attention[k] = (if score < 0.0 { layer.slope * score } else { score }) + multiplicity;
                max[k] = if attention[k] > max[k] { attention[k] } else { max[k] };
            }
        }
        for attention in attention[range.start * heads..range.end * heads].chunks_exact_mut(heads) {
            for k in 0..heads {
                attention[k] -= max[k];
            }
        }
    }
    for weight in attention.iter_mut() {
        *weight = exp::<FMA>(*weight);
    }
    for (t, out) in out.chunks_exact_mut(width).enumerate() {
        let range = layer.edges_of(t);
        sum.fill(0.0);
        for weight in attention[range.start * heads..range.end * heads].chunks_exact(heads) {
            for k in 0..heads {
                sum[k] += weight[k];
            }
        }
        for share in sum.iter_mut() {
            *share = 1.0 / *share;
        }
        for e in range {
            let alpha = &mut attention[e * heads..][..heads];
            let h = &h[edges.sources()[e] as usize * width..][..width];
            for k in 0..heads {
                alpha[k] *= sum[k];
                add_scaled::<FMA>(
                    &mut out[k * channels..][..channels],
                    alpha[k],
                    &h[k * channels..][..channels],
                );
            }
        }
    }
}

/// `dots_k = a_k . h_k` for every head.
#[inline(always)]
fn head_dots<const FMA: bool, const H: usize, const C: usize>(
    layer: &Layer<'_>,
    a: &[f32],
    h: &[f32],
    dots: &mut [f32],
) {
    let (heads, channels) = layer.sizes::<H, C>();
    for k in 0..heads {
        dots[k] = dot::<FMA>(&a[k * channels..][..channels], &h[k * channels..][..channels]);
    }
}

multiversion! {
    /// Some graphs backward: fills the gradient of `h` and adds to those of the parameters
    /// (`a_src`, `a_dst` and `relation_bias`, one after the other).
    fn backward_graphs(
        layer: &Layer<'_>, h: &[f32], attention: &[f32], negative: &[bool], g: &[f32],
        d_h: &mut [f32], d_parameters: &mut [f32],
    ) = backward_body
}

#[inline(always)]
fn backward_body<const FMA: bool>(
    layer: &Layer<'_>,
    h: &[f32],
    attention: &[f32],
    negative: &[bool],
    g: &[f32],
    d_h: &mut [f32],
    d_parameters: &mut [f32],
) {
    let (edges, width) = (layer.edges, layer.width());
    let (rows, new_rows) = (edges.num_sources() * width, edges.num_targets() * width);
    let scores = edges.num_edges() * layer.heads;
    let mut scratch = vec![0.0; (edges.num_sources() + edges.num_edges() + 2) * layer.heads];
    for (graph, d_h) in d_h.chunks_exact_mut(rows).enumerate() {
        let h = &h[graph * rows..(graph + 1) * rows];
        let attention = &attention[graph * scores..(graph + 1) * scores];
        let negative = &negative[graph * scores..(graph + 1) * scores];
        let g = &g[graph * new_rows..(graph + 1) * new_rows];
        by_size!(
            layer,
            backward_graph::<FMA>(layer, h, attention, negative, g, d_h, d_parameters, &mut scratch)
        );
    }
}

#[inline(always)]
fn backward_graph<const FMA: bool, const H: usize, const C: usize>(
    layer: &Layer<'_>,
    h: &[f32],
    attention: &[f32],
    negative: &[bool],
    g: &[f32],
    d_h: &mut [f32],
    d_parameters: &mut [f32],
    scratch: &mut [f32],
) {
    let (heads, channels) = layer.sizes::<H, C>();
    let edges = layer.edges;
    let width = heads * channels;
    let (d_a_src, rest) = d_parameters.split_at_mut(width);
    let (d_a_dst, d_relation) = rest.split_at_mut(width);
    let (d_source, rest) = scratch.split_at_mut(edges.num_sources() * heads);
    let (mean, rest) = rest.split_at_mut(heads);
    let (d_own, d_alpha) = rest.split_at_mut(heads);
    d_source.fill(0.0);
    for (t, &row) in edges.targets().iter().enumerate() {
        let g = &g[t * width..][..width];
        mean.fill(0.0);
        for e in layer.edges_of(t) {
            let j = edges.sources()[e] as usize;
            let (alpha, d_alpha) = (&attention[e * heads..][..heads], &mut d_alpha[e * heads..][..heads]);
            let (h, d_h) = (&h[j * width..][..width], &mut d_h[j * width..][..width]);
            for k in 0..heads {
                let g = &g[k * channels..][..channels];
                d_alpha[k] = dot::<FMA>(g, &h[k * channels..][..channels]);
                add_scaled::<FMA>(&mut d_h[k * channels..][..channels], alpha[k], g);
            }
            for k in 0..heads {
                mean[k] = mul_add::<FMA>(alpha[k], d_alpha[k], mean[k]);
            }
        }
        d_own.fill(0.0);
        for e in layer.edges_of(t) {
            let (j, relation) = (edges.sources()[e] as usize, edges.relations()[e] as usize);
            let (alpha, d_alpha) = (&attention[e * heads..][..heads], &d_alpha[e * heads..][..heads]);
            let negative = &negative[e * heads..][..heads];
            let d_source = &mut d_source[j * heads..][..heads];
            let d_relation = &mut d_relation[relation * heads..][..heads];
            for k in 0..heads {
                let slope = if negative[k] { layer.slope } else { 1.0 };
                let d_score = alpha[k] * (d_alpha[k] - mean[k]) * slope;
                d_source[k] += d_score;
                d_relation[k] += d_score;
                d_own[k] += d_score;
            }
        }
        let at = row as usize * width..(row as usize + 1) * width;
        add_scores::<FMA, H, C>(layer, d_own, layer.a_dst, &h[at.clone()], &mut d_h[at], d_a_dst);
    }
    let rows = h.chunks_exact(width).zip(d_h.chunks_exact_mut(width));
    for ((h, d_h), d) in rows.zip(d_source.chunks_exact(heads)) {
        add_scores::<FMA, H, C>(layer, d, layer.a_src, h, d_h, d_a_src);
    }
}

/// The backward pass of [`head_dots`]: `d_h += d_k a_k` and `d_a += d_k h_k` for every head.
#[inline(always)]
fn add_scores<const FMA: bool, const H: usize, const C: usize>(
    layer: &Layer<'_>,
    d: &[f32],
    a: &[f32],
    h: &[f32],
    d_h: &mut [f32],
    d_a: &mut [f32],
) {
    let (heads, channels) = layer.sizes::<H, C>();
    for k in 0..heads {
        let at = k * channels..(k + 1) * channels;
        add_scaled::<FMA>(&mut d_h[at.clone()], d[k], &a[at.clone()]);
        add_scaled::<FMA>(&mut d_a[at.clone()], d[k], &h[at]);
    }
}

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
