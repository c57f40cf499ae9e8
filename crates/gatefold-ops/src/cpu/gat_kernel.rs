//! The loops of graph attention over CSR edges, graph by graph.
//!
//! Inner loops run over the channels of one head; the common sizes are known at compile time.

// S source rows, T target rows, E edges, H heads, C channels of a head, R relations

use super::{
    level::{mul_add, multiversion},
    math::{add_scaled, dot, exp},
};
use crate::GatEdges;

/// What all graphs of a batch share.
pub(super) struct Layer<'a> {
    pub(super) a_src: &'a [f32],
    pub(super) a_dst: &'a [f32],
    pub(super) relation_bias: &'a [f32],
    pub(super) edges: &'a GatEdges,
    pub(super) slope: f32,
    pub(super) heads: usize,
    pub(super) channels: usize,
}

impl Layer<'_> {
    fn width(&self) -> usize {
        self.heads * self.channels
    }

    /// Floating-point operations of one forward pass over `batch` graphs, roughly.
    pub(super) fn flops(&self, batch: usize) -> usize {
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
    pub(super) fn forward_graphs(
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
    pub(super) fn backward_graphs(
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
