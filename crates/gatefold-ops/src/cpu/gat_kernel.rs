//! The loops of graph attention over CSR edges, graph by graph: softmax and messages.
//!
//! Sizes that are common are taken by [`super::gat_four`]; here are the loops for all others.

// S source rows, T target rows, E edges, H heads, C channels of a head, R relations

use burn::backend::flex::FlexTensor;

use super::{
    flat::{dims, floats},
    gat_four::{self, by_vectors},
    gat_parts::parts_of,
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

/// What all graphs of a batch share, and the edges of one or all.
#[derive(Clone, Copy)]
pub(super) struct Layer<'a> {
    pub(super) scores: Scores<'a>,
    pub(super) relation_bias: &'a [f32],
    pub(super) edges: &'a GatEdges,
    pub(super) slope: f32,
    /// Heads, or parts of heads where these are cut.
    pub(super) heads: usize,
    pub(super) channels: usize,
    /// How many parts a head has.
    pub(super) parts: usize,
}

impl<'a> Layer<'a> {
    /// A layer with the weights of its scores, two of GAT or one of GATv2, whose heads are cut into parts where
    /// kernels want that; the relation bias is one [`for_parts`](super::gat_parts::for_parts).
    pub(super) fn new(
        weights: &'a [FlexTensor],
        relation_bias: &'a FlexTensor,
        edges: &'a GatEdges,
        slope: f32,
    ) -> Self {
        let [heads, channels] = dims(&weights[0]);
        let parts = parts_of(heads, channels);
        let scores = match weights {
            [a_src, a_dst] => Scores::Gat { a_src: floats(a_src), a_dst: floats(a_dst) },
            [a] => Scores::Gatv2 { a: floats(a) },
            _ => unreachable!("attention has one or two weights of scores"),
        };
        let relation_bias = floats(relation_bias);
        Self { scores, relation_bias, edges, slope, heads: heads * parts, channels: channels / parts, parts }
    }

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

    /// Heads that are whole, and their channels.
    pub(super) fn whole_heads(&self) -> [usize; 2] {
        [self.heads / self.parts, self.channels * self.parts]
    }

    /// The groups of four heads, each by its number and how many there are: `G`, or any number if that is 0.
    #[inline(always)]
    pub(super) fn groups<const G: usize>(&self) -> impl Iterator<Item = [usize; 2]> + use<G> {
        let groups = if G == 0 { self.heads / 4 } else { G };
        (0..groups).map(move |group| [group, groups])
    }

    /// Groups of four heads in a row of `h`.
    #[inline(always)]
    pub(super) fn groups_of_row<const G: usize>(&self) -> usize {
        let groups = if G == 0 { self.heads / 4 } else { G };
        match self.scores {
            Scores::Gat { .. } => groups,
            Scores::Gatv2 { .. } => 2 * groups,
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
        let rows = self.edges.num_sources() + self.edges.num_targets();
        self.flops_of(batch * rows, batch * self.edges.num_edges())
    }

    /// The same over so many rows, of sources and of targets, and edges.
    pub(super) fn flops_of(&self, rows: usize, edges: usize) -> usize {
        2 * ((rows + edges) * self.row() + 20 * edges * self.heads)
    }

    #[inline(always)]
    pub(super) fn edges_of(&self, target: usize) -> std::ops::Range<usize> {
        let offsets = self.edges.offsets();
        offsets[target] as usize..offsets[target + 1] as usize
    }
}

/// Some graphs forward: new rows and attention.
pub(super) fn forward_graphs(layer: &Layer<'_>, h: &[f32], out: &mut [f32], attention: &mut [f32]) {
    let edges = layer.edges;
    let (rows, scores) = (edges.num_sources() * layer.row(), edges.num_edges() * layer.heads);
    let mut scratch = Scratch::new(forward_scratch(layer));
    for (graph, out) in out.chunks_exact_mut(edges.num_targets() * layer.width()).enumerate() {
        let h = &h[graph * rows..(graph + 1) * rows];
        let attention = &mut attention[graph * scores..(graph + 1) * scores];
        weigh(layer, h, attention, &mut scratch);
        aggregate(layer, h, attention, out);
    }
}

/// What [`weigh`] needs of scratch.
pub(super) fn forward_scratch(layer: &Layer<'_>) -> usize {
    (layer.edges.num_sources() + 2) * layer.heads
}

/// The attention of all edges of a graph `[E, H]`.
pub(super) fn weigh(layer: &Layer<'_>, h: &[f32], attention: &mut [f32], scratch: &mut [f32]) {
    if !by_vectors!(layer, gat_four::weigh(layer, h, attention, scratch)) {
        weigh_any(layer, h, attention, scratch);
    }
}

/// What each target's sources send it, `[T, H * C]`.
pub(super) fn aggregate(layer: &Layer<'_>, h: &[f32], attention: &[f32], out: &mut [f32]) {
    if !by_vectors!(layer, gat_four::aggregate(layer, h, attention, out)) {
        aggregate_any(layer, h, attention, out);
    }
}

multiversion! {
    fn weigh_any(layer: &Layer<'_>, h: &[f32], attention: &mut [f32], scratch: &mut [f32]) = weigh_body
}

/// Scores less their largest, target by target; then all weights at once; then their shares.
#[inline(always)]
fn weigh_body<const FMA: bool>(layer: &Layer<'_>, h: &[f32], attention: &mut [f32], scratch: &mut [f32]) {
    let heads = layer.heads;
    match layer.scores {
        Scores::Gat { a_src, a_dst } => {
            gat_scores::scores::<FMA>(layer, [a_src, a_dst], h, attention, scratch);
        }
        Scores::Gatv2 { a } => gatv2_scores::scores::<FMA>(layer, a, h, attention),
    }
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
    for t in 0..layer.edges.num_targets() {
        let range = layer.edges_of(t);
        let weights = &mut attention[range.start * heads..range.end * heads];
        sum.fill(0.0);
        for weights in weights.chunks_exact(heads) {
            for k in 0..heads {
                sum[k] += weights[k];
            }
        }
        for k in 0..heads {
            sum[k] = 1.0 / sum[k];
        }
        for weights in weights.chunks_exact_mut(heads) {
            for k in 0..heads {
                weights[k] *= sum[k];
            }
        }
    }
}

multiversion! {
    fn aggregate_any(layer: &Layer<'_>, h: &[f32], attention: &[f32], out: &mut [f32]) = aggregate_body
}

#[inline(always)]
fn aggregate_body<const FMA: bool>(layer: &Layer<'_>, h: &[f32], attention: &[f32], out: &mut [f32]) {
    let (heads, channels, width) = (layer.heads, layer.channels, layer.width());
    let row = layer.row();
    for (t, out) in out.chunks_exact_mut(width).enumerate() {
        out.fill(0.0);
        for e in layer.edges_of(t) {
            let alpha = &attention[e * heads..][..heads];
            let h = &h[layer.edges.sources()[e] as usize * row..][..width];
            for k in 0..heads {
                let at = k * channels..(k + 1) * channels;
                add_scaled::<FMA>(&mut out[at.clone()], alpha[k], &h[at]);
            }
        }
    }
}

/// Some graphs backward: fills the gradient of `h`, adds to those of the parameters (the weights of the
/// scores and `relation_bias`, one after the other).
pub(super) fn backward_graphs(
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
    let mut scratch = Scratch::new(backward_scratch(layer));
    for (graph, d_h) in d_h.chunks_exact_mut(rows).enumerate() {
        let h = &h[graph * rows..(graph + 1) * rows];
        let attention = &attention[graph * scores..(graph + 1) * scores];
        let g = &g[graph * new_rows..(graph + 1) * new_rows];
        backward_graph(layer, h, attention, g, d_h, d_parameters, &mut scratch);
    }
}

/// What [`backward_graph`] needs of scratch.
pub(super) fn backward_scratch(layer: &Layer<'_>) -> usize {
    let of_scores = gat_scores::backward_scratch(layer).max(layer.width());
    layer.heads * (layer.edges.num_edges() + 1) + of_scores
}

/// One graph backward: fills the gradient of `h`, adds to those of the parameters.
pub(super) fn backward_graph(
    layer: &Layer<'_>,
    h: &[f32],
    attention: &[f32],
    g: &[f32],
    d_h: &mut [f32],
    d_parameters: &mut [f32],
    scratch: &mut [f32],
) {
    if !by_vectors!(layer, gat_four::backward(layer, h, attention, g, d_h, d_parameters, scratch)) {
        backward_any(layer, h, attention, g, d_h, d_parameters, scratch);
    }
}

multiversion! {
    fn backward_any(
        layer: &Layer<'_>, h: &[f32], attention: &[f32], g: &[f32], d_h: &mut [f32], d_parameters: &mut [f32],
        scratch: &mut [f32],
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
    scratch: &mut [f32],
) {
    let (heads, channels, width) = (layer.heads, layer.channels, layer.width());
    let (edges, row) = (layer.edges, layer.row());
    d_h.fill(0.0);
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
            gat_scores::backward::<FMA>(layer, weights, h, d_score, d_h, d_parameters, rest);
        }
        Scores::Gatv2 { a } => {
            gatv2_scores::backward::<FMA>(layer, a, h, d_score, d_h, d_parameters, rest);
        }
    }
}
