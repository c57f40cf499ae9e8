//! Scores of edges that add what both ends say: `LeakyReLU(a_src . h_j + a_dst . h_i + r_rel)`.

// S source rows, T target rows, E edges, H heads, C channels of a head

use super::{
    gat_kernel::Layer,
    math::{add_scaled, dot},
};

/// The scores of all edges, `[E, H]`; `scratch` has room for a score of each row.
#[inline(always)]
pub(super) fn scores<const FMA: bool>(
    layer: &Layer<'_>,
    [a_src, a_dst]: [&[f32]; 2],
    h: &[f32],
    scores: &mut [f32],
    scratch: &mut [f32],
) {
    let (heads, channels) = (layer.heads, layer.channels);
    let edges = layer.edges;
    let width = heads * channels;
    let (source_score, rest) = scratch.split_at_mut(edges.num_sources() * heads);
    let own = &mut rest[..heads];
    of_sources::<FMA>(layer, a_src, h, source_score);
    for (t, &row) in edges.targets().iter().enumerate() {
        head_dots::<FMA>(layer, a_dst, &h[row as usize * width..][..width], own);
        for e in layer.edges_of(t) {
            let (j, relation) = (edges.sources()[e] as usize, edges.relations()[e] as usize);
            let source = &source_score[j * heads..][..heads];
            let bias = &layer.relation_bias[relation * heads..][..heads];
            let multiplicity = edges.log_multiplicity()[e];
            let scores = &mut scores[e * heads..][..heads];
            for k in 0..heads {
                let score = source[k] + own[k] + bias[k];
                scores[k] = (if score < 0.0 { layer.slope * score } else { score }) + multiplicity;
            }
        }
    }
}

/// `a . h_s` of every source row and head, `[S, H]`.
#[inline(always)]
fn of_sources<const FMA: bool>(layer: &Layer<'_>, a_src: &[f32], h: &[f32], source_score: &mut [f32]) {
    let (heads, channels) = (layer.heads, layer.channels);
    for (h, score) in h.chunks_exact(heads * channels).zip(source_score.chunks_exact_mut(heads)) {
        head_dots::<FMA>(layer, a_src, h, score);
    }
}

/// `dots_k = a_k . h_k` for every head.
#[inline(always)]
fn head_dots<const FMA: bool>(layer: &Layer<'_>, a: &[f32], h: &[f32], dots: &mut [f32]) {
    let (heads, channels) = (layer.heads, layer.channels);
    for k in 0..heads {
        dots[k] = dot::<FMA>(&a[k * channels..][..channels], &h[k * channels..][..channels]);
    }
}

/// What [`backward`] needs of scratch, here and for four heads.
pub(super) fn backward_scratch(layer: &Layer<'_>) -> usize {
    (3 * layer.edges.num_sources() + 2) * layer.heads
}

/// The backward pass of [`scores`]: adds to the gradients of `h`, `a_src`, `a_dst` and `relation_bias`.
///
/// The side of the LeakyReLU is found out again rather than kept.
#[inline(always)]
pub(super) fn backward<const FMA: bool>(
    layer: &Layer<'_>,
    [a_src, a_dst]: [&[f32]; 2],
    h: &[f32],
    d_score: &[f32],
    d_h: &mut [f32],
    d_parameters: &mut [f32],
    scratch: &mut [f32],
) {
    let (heads, channels) = (layer.heads, layer.channels);
    let edges = layer.edges;
    let width = heads * channels;
    let (d_a_src, rest) = d_parameters.split_at_mut(width);
    let (d_a_dst, d_relation) = rest.split_at_mut(width);
    let (source_score, rest) = scratch.split_at_mut(edges.num_sources() * heads);
    let (d_source, rest) = rest.split_at_mut(edges.num_sources() * heads);
    let (own, rest) = rest.split_at_mut(heads);
    let d_own = &mut rest[..heads];
    of_sources::<FMA>(layer, a_src, h, source_score);
    d_source.fill(0.0);
    for (t, &row) in edges.targets().iter().enumerate() {
        let at = row as usize * width..(row as usize + 1) * width;
        head_dots::<FMA>(layer, a_dst, &h[at.clone()], own);
        d_own.fill(0.0);
        for e in layer.edges_of(t) {
            let (j, relation) = (edges.sources()[e] as usize, edges.relations()[e] as usize);
            let source = &source_score[j * heads..][..heads];
            let bias = &layer.relation_bias[relation * heads..][..heads];
            let d_score = &d_score[e * heads..][..heads];
            let d_source = &mut d_source[j * heads..][..heads];
            let d_relation = &mut d_relation[relation * heads..][..heads];
            for k in 0..heads {
                let slope = if source[k] + own[k] + bias[k] < 0.0 { layer.slope } else { 1.0 };
                let d = d_score[k] * slope;
                d_source[k] += d;
                d_relation[k] += d;
                d_own[k] += d;
            }
        }
        head_dots_back::<FMA>(layer, d_own, a_dst, &h[at.clone()], &mut d_h[at], d_a_dst);
    }
    let rows = h.chunks_exact(width).zip(d_h.chunks_exact_mut(width));
    for ((h, d_h), d) in rows.zip(d_source.chunks_exact(heads)) {
        head_dots_back::<FMA>(layer, d, a_src, h, d_h, d_a_src);
    }
}

/// The backward pass of [`head_dots`]: `d_h += d_k a_k` and `d_a += d_k h_k` for every head.
#[inline(always)]
fn head_dots_back<const FMA: bool>(
    layer: &Layer<'_>,
    d: &[f32],
    a: &[f32],
    h: &[f32],
    d_h: &mut [f32],
    d_a: &mut [f32],
) {
    let (heads, channels) = (layer.heads, layer.channels);
    for k in 0..heads {
        let at = k * channels..(k + 1) * channels;
        add_scaled::<FMA>(&mut d_h[at.clone()], d[k], &a[at.clone()]);
        add_scaled::<FMA>(&mut d_a[at.clone()], d[k], &h[at]);
    }
}
