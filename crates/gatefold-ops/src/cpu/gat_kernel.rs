//! The loops of graph attention over CSR edges, graph by graph: softmax and messages.
//!
//! Inner loops run over the channels of one head; the common sizes are known at compile time.

// S source rows, T target rows, E edges, H heads, C channels of a head, R relations

use super::{
    gat_scores, gatv2_scores,
    level::{mul_add, multiversion},
    math::{add_scaled, dot, exp},
    scratch::Scratch,
};
use crate::GatEdges;

/// How edges are scored, with the weights `[H, C]` that it takes.
#[derive(Clone, Copy)]
pub(super) enum Scores<'a> {
    /// `LeakyReLU(a_src . h_j + a_dst . h_i + r_rel)`; rows of `h` are `[H * C]`.
    Gat { a_src: &'a [f32], a_dst: &'a [f32] },
    /// `a . LeakyReLU(s_j + d_i) + r_rel`; rows of `h` are `[s ; d]`, `[2 * H * C]`.
    Gatv2 { a: &'a [f32] },
}

/// What all graphs of a batch share.
pub(super) struct Layer<'a> {
    pub(super) scores: Scores<'a>,
    pub(super) relation_bias: &'a [f32],
    pub(super) edges: &'a GatEdges,
    pub(super) slope: f32,
    pub(super) heads: usize,
    pub(super) channels: usize,
}

impl Layer<'_> {
    /// Width of a new row.
    pub(super) fn width(&self) -> usize {
        self.heads * self.channels
    }

    /// Width of a row of `h`.
    pub(super) fn row(&self) -> usize {
        match self.scores {
            Scores::Gat { .. } => self.width(),
            Scores::Gatv2 { .. } => 2 * self.width(),
        }
    }

    /// How many numbers are learned: the weights of [`Scores`], then the relation bias.
    pub(super) fn num_parameters(&self) -> usize {
        let weights = match self.scores {
            Scores::Gat { .. } => 2 * self.width(),
            Scores::Gatv2 { .. } => self.width(),
        };
        weights + self.relation_bias.len()
    }

    /// Floating-point operations of one forward pass over `batch` graphs, roughly.
    pub(super) fn flops(&self, batch: usize) -> usize {
        let rows = self.edges.num_sources() + self.edges.num_targets() + self.edges.num_edges();
        2 * batch * (rows * self.row() + 20 * self.edges.num_edges() * self.heads)
    }

    /// The number of heads and of channels; constants where `H` and `C` are not 0.
    #[inline(always)]
    pub(super) fn sizes<const H: usize, const C: usize>(&self) -> (usize, usize) {
        (if H == 0 { self.heads } else { H }, if C == 0 { self.channels } else { C })
    }

    #[inline(always)]
    pub(super) fn edges_of(&self, target: usize) -> std::ops::Range<usize> {
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
    /// Some graphs forward: new rows and attention.
    pub(super) fn forward_graphs(layer: &Layer<'_>, h: &[f32], out: &mut [f32], attention: &mut [f32]) = forward_body
}

#[inline(always)]
fn forward_body<const FMA: bool>(layer: &Layer<'_>, h: &[f32], out: &mut [f32], attention: &mut [f32]) {
    let edges = layer.edges;
    let (rows, scores) = (edges.num_sources() * layer.row(), edges.num_edges() * layer.heads);
    let mut scratch = Scratch::new((edges.num_sources() + 2) * layer.heads);
    for (graph, out) in out.chunks_exact_mut(edges.num_targets() * layer.width()).enumerate() {
        let h = &h[graph * rows..(graph + 1) * rows];
        let attention = &mut attention[graph * scores..(graph + 1) * scores];
        by_size!(layer, forward_graph::<FMA>(layer, h, out, attention, &mut scratch));
    }
}

#[inline(always)]
fn forward_graph<const FMA: bool, const H: usize, const C: usize>(
    layer: &Layer<'_>,
    h: &[f32],
    out: &mut [f32],
    attention: &mut [f32],
    scratch: &mut [f32],
) {
    let (heads, channels) = layer.sizes::<H, C>();
    let width = heads * channels;
    // Scores less their largest, edge by edge; then all weights at once; then their shares.
    let row = match layer.scores {
        Scores::Gat { a_src, a_dst } => {
            gat_scores::scores::<FMA, H, C>(layer, [a_src, a_dst], h, attention, scratch);
            width
        }
        Scores::Gatv2 { a } => {
            gatv2_scores::scores::<FMA, H, C>(layer, a, h, attention);
            2 * width
        }
    };
    let (max, rest) = scratch.split_at_mut(heads);
    let sum = &mut rest[..heads];
    for t in 0..layer.edges.num_targets() {
        let range = layer.edges_of(t);
        let scores = &mut attention[range.start * heads..range.end * heads];
        max.fill(f32::NEG_INFINITY);
        for scores in scores.chunks_exact(heads) {
            for k in 0..heads {
                max[k] = if scores[k] > max[k] { scores[k] } else { max[k] };
            }
        }
        for scores in scores.chunks_exact_mut(heads) {
            for k in 0..heads {
                scores[k] -= max[k];
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
            let h = &h[layer.edges.sources()[e] as usize * row..][..width];
            for k in 0..heads {
                alpha[k] *= sum[k];
                let at = k * channels..(k + 1) * channels;
                add_scaled::<FMA>(&mut out[at.clone()], alpha[k], &h[at]);
            }
        }
    }
}

multiversion! {
    /// Some graphs backward: adds to the gradient of `h` and to those of the parameters
    /// (the weights of the scores and `relation_bias`, one after the other).
    pub(super) fn backward_graphs(
        layer: &Layer<'_>, h: &[f32], attention: &[f32], g: &[f32], d_h: &mut [f32], d_parameters: &mut [f32],
    ) = backward_body
}

#[inline(always)]
fn backward_body<const FMA: bool>(
    layer: &Layer<'_>,
    h: &[f32],
    attention: &[f32],
    g: &[f32],
    d_h: &mut [f32],
    d_parameters: &mut [f32],
) {
    let edges = layer.edges;
    let (rows, new_rows) = (edges.num_sources() * layer.row(), edges.num_targets() * layer.width());
    let scores = edges.num_edges() * layer.heads;
    let gat = gat_scores::backward_scratch(layer);
    let mut scratch = Scratch::new(layer.heads + scores + gat.max(layer.width()));
    for (graph, d_h) in d_h.chunks_exact_mut(rows).enumerate() {
        let h = &h[graph * rows..(graph + 1) * rows];
        let attention = &attention[graph * scores..(graph + 1) * scores];
        let g = &g[graph * new_rows..(graph + 1) * new_rows];
        by_size!(layer, backward_graph::<FMA>(layer, h, attention, g, d_h, d_parameters, &mut scratch));
    }
}

#[inline(always)]
fn backward_graph<const FMA: bool, const H: usize, const C: usize>(
    layer: &Layer<'_>,
    h: &[f32],
    attention: &[f32],
    g: &[f32],
    d_h: &mut [f32],
    d_parameters: &mut [f32],
    scratch: &mut [f32],
) {
    let (heads, channels) = layer.sizes::<H, C>();
    let edges = layer.edges;
    let width = heads * channels;
    let row = match layer.scores {
        Scores::Gat { .. } => width,
        Scores::Gatv2 { .. } => 2 * width,
    };
    let (mean, rest) = scratch.split_at_mut(heads);
    let (d_score, rest) = rest.split_at_mut(edges.num_edges() * heads);
    for (t, g) in g.chunks_exact(width).enumerate() {
        mean.fill(0.0);
        for e in layer.edges_of(t) {
            let at = edges.sources()[e] as usize * row;
            let (alpha, d_alpha) = (&attention[e * heads..][..heads], &mut d_score[e * heads..][..heads]);
            let (h, d_h) = (&h[at..][..width], &mut d_h[at..][..width]);
            for k in 0..heads {
                let at = k * channels..(k + 1) * channels;
                d_alpha[k] = dot::<FMA>(&g[at.clone()], &h[at.clone()]);
                add_scaled::<FMA>(&mut d_h[at.clone()], alpha[k], &g[at]);
            }
            for k in 0..heads {
                mean[k] = mul_add::<FMA>(alpha[k], d_alpha[k], mean[k]);
            }
        }
        for e in layer.edges_of(t) {
            let (alpha, d_score) = (&attention[e * heads..][..heads], &mut d_score[e * heads..][..heads]);
            for k in 0..heads {
                d_score[k] = alpha[k] * (d_score[k] - mean[k]);
            }
        }
    }
    match layer.scores {
        Scores::Gat { a_src, a_dst } => {
            let weights = [a_src, a_dst];
            gat_scores::backward::<FMA, H, C>(layer, weights, h, d_score, d_h, d_parameters, rest);
        }
        Scores::Gatv2 { a } => {
            gatv2_scores::backward::<FMA, H, C>(layer, a, h, d_score, d_h, d_parameters, rest);
        }
    }
}
