//! Scores of edges that look at both ends together: `a . LeakyReLU(s_j + d_i) + r_rel`.

// S source rows, T target rows, E edges, H heads, C channels of a head

use super::{
    gat_kernel::Layer,
    level::mul_add,
    math::{LANES, fold_lanes},
};

/// The scores of all edges, `[E, H]`; a row of `h` is `[s ; d]`.
#[inline(always)]
pub(super) fn scores<const FMA: bool>(layer: &Layer<'_>, a: &[f32], h: &[f32], scores: &mut [f32]) {
    let (heads, channels) = (layer.heads, layer.channels);
    let edges = layer.edges;
    let width = heads * channels;
    for (t, &row) in edges.targets().iter().enumerate() {
        let asked = &h[row as usize * 2 * width + width..][..width];
        for e in layer.edges_of(t) {
            let (j, relation) = (edges.sources()[e] as usize, edges.relations()[e] as usize);
            let sent = &h[j * 2 * width..][..width];
            let bias = &layer.relation_bias[relation * heads..][..heads];
            let scores = &mut scores[e * heads..][..heads];
            for k in 0..heads {
                let at = k * channels..(k + 1) * channels;
                let met = dot_leaky::<FMA>(&a[at.clone()], &sent[at.clone()], &asked[at], layer.slope);
                scores[k] = met + bias[k] + edges.log_multiplicity()[e];
            }
        }
    }
}

/// `sum_c a_c LeakyReLU(s_c + d_c)` in [`LANES`] partial sums.
#[inline(always)]
fn dot_leaky<const FMA: bool>(a: &[f32], s: &[f32], d: &[f32], slope: f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for ((a, s), d) in a.chunks(LANES).zip(s.chunks(LANES)).zip(d.chunks(LANES)) {
        for (lane, ((&a, &s), &d)) in lanes.iter_mut().zip(a.iter().zip(s).zip(d)) {
            let z = s + d;
            *lane = mul_add::<FMA>(a, if z < 0.0 { slope * z } else { z }, *lane);
        }
    }
    fold_lanes(lanes)
}

/// The backward pass of [`scores`]: adds to the gradients of `h`, `a` and `relation_bias`.
#[inline(always)]
pub(super) fn backward<const FMA: bool>(
    layer: &Layer<'_>,
    a: &[f32],
    h: &[f32],
    d_score: &[f32],
    d_h: &mut [f32],
    d_parameters: &mut [f32],
    scratch: &mut [f32],
) {
    let (heads, channels) = (layer.heads, layer.channels);
    let edges = layer.edges;
    let width = heads * channels;
    let (d_a, d_relation) = d_parameters.split_at_mut(width);
    let d_asked = &mut scratch[..width];
    for (t, &row) in edges.targets().iter().enumerate() {
        let of_asked = row as usize * 2 * width + width;
        let asked = &h[of_asked..][..width];
        d_asked.fill(0.0);
        for e in layer.edges_of(t) {
            let (j, relation) = (edges.sources()[e] as usize, edges.relations()[e] as usize);
            let (sent, d_sent) = (&h[j * 2 * width..][..width], &mut d_h[j * 2 * width..][..width]);
            let d_score = &d_score[e * heads..][..heads];
            let d_relation = &mut d_relation[relation * heads..][..heads];
            for k in 0..heads {
                d_relation[k] += d_score[k];
            }
            for k in 0..heads {
                let d = d_score[k];
                for c in k * channels..(k + 1) * channels {
                    let z = sent[c] + asked[c];
                    let side = if z < 0.0 { layer.slope } else { 1.0 };
                    d_a[c] = mul_add::<FMA>(d, side * z, d_a[c]);
                    let d_z = d * side * a[c];
                    d_sent[c] += d_z;
                    d_asked[c] += d_z;
                }
            }
        }
        for (d_h, d) in d_h[of_asked..][..width].iter_mut().zip(&*d_asked) {
            *d_h += d;
        }
    }
}
