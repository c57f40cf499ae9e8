//! Scores that look at both ends together, `a . LeakyReLU(s_j + d_i) + r_rel`, for four heads of whole
//! vectors.

// S source rows, T target rows, E edges, V vectors of a head

use super::{
    gat_four::{heads, heads_mut, load, load_row, row, row_mut, rows, rows_mut, sent, store},
    gat_kernel::Layer,
    lanes::{Lanes, Quad, vectorised},
};

vectorised! {
    /// The scores of all edges less the largest of their target, `[E, H]`; a row of `h` is `[s ; d]`.
    pub(super) fn scores<const V: usize>(layer: &Layer<'_>, a: &[f32], h: &[f32], scores: &mut [f32]) = scores_body
}

#[inline(always)]
fn scores_body<L: Lanes, const V: usize>(layer: &Layer<'_>, a: &[f32], h: &[f32], scores: &mut [f32]) {
    let edges = layer.edges;
    let (scores, bias, h) = (heads_mut(scores), heads(layer.relation_bias), rows::<V, 8>(h));
    let a = row::<V>(a);
    let slope = L::splat(layer.slope);
    for (t, &own) in edges.targets().iter().enumerate() {
        let asked = load_row::<L, V>(h[own as usize].last_chunk().expect("a row has eight heads"));
        let range = layer.edges_of(t);
        let ends = edges.sources()[range.clone()].iter().zip(&edges.relations()[range.clone()]);
        let multiplicity = &edges.log_multiplicity()[range.clone()];
        let scores = &mut scores[range];
        let mut max = L::Quad::splat(f32::NEG_INFINITY);
        for (((&j, &relation), &multiplicity), to) in ends.zip(multiplicity).zip(scores.iter_mut()) {
            let sent = sent(&h[j as usize]);
            let mut met = [L::splat(0.0); 4];
            for k in 0..4 {
                for v in 0..V {
                    let z = asked[k][v].add(L::load(&sent[k][v]));
                    met[k] = z.where_negative(slope.mul(z), z).mul_add(L::load(&a[k][v]), met[k]);
                }
            }
            let score =
                L::sums(met).add(L::Quad::load(&bias[relation as usize])).add(L::Quad::splat(multiplicity));
            max = score.max(max);
            score.store(to);
        }
        for score in scores {
            L::Quad::load(score).sub(max).store(score);
        }
    }
}

vectorised! {
    /// The backward pass of [`scores`] and of what sources send: fills the gradient of `h`, adds to that of
    /// `a`. That of the relation bias is of the scores alone.
    pub(super) fn backward<const V: usize>(
        layer: &Layer<'_>, a: &[f32], h: &[f32], attention: &[f32], g: &[f32], d_score: &[f32],
        d_h: &mut [f32], d_a: &mut [f32],
    ) = backward_body
}

#[inline(always)]
fn backward_body<L: Lanes, const V: usize>(
    layer: &Layer<'_>,
    a: &[f32],
    h: &[f32],
    attention: &[f32],
    g: &[f32],
    d_score: &[f32],
    d_h: &mut [f32],
    d_a: &mut [f32],
) {
    let edges = layer.edges;
    d_h.fill(0.0);
    let d_a = row_mut::<V>(d_a);
    let (h, d_h, a, g) = (rows::<V, 8>(h), rows_mut::<V, 8>(d_h), row::<V>(a), rows::<V, 4>(g));
    let (attention, d_score) = (heads(attention), heads(d_score));
    let slope = L::splat(layer.slope);
    // Head by head, so that what all targets share stays in registers.
    for k in 0..4 {
        let (a, mut sum) = (load::<L, V>(&a[k]), load::<L, V>(&d_a[k]));
        for (t, (&own, g)) in edges.targets().iter().zip(g).enumerate() {
            let range = layer.edges_of(t);
            let sources = &edges.sources()[range.clone()];
            let (alpha, d_score) = (&attention[range.clone()], &d_score[range]);
            let (g, asked) = (load::<L, V>(&g[k]), load::<L, V>(&h[own as usize][4 + k]));
            let mut d_all = [L::splat(0.0); V];
            for ((&j, alpha), d) in sources.iter().zip(alpha).zip(d_score) {
                let (sent, d_sent) = (&h[j as usize][k], &mut d_h[j as usize][k]);
                let (alpha, d) = (L::splat(alpha[k]), L::splat(d[k]));
                let falling = d.mul(slope);
                for v in 0..V {
                    let z = asked[v].add(L::load(&sent[v]));
                    let d = z.where_negative(falling, d); // of LeakyReLU(z), less its weight
                    sum[v] = d.mul_add(z, sum[v]);
                    d_all[v] = d_all[v].add(d);
                    let d_z = d.mul_add(a[v], L::load(&d_sent[v]));
                    alpha.mul_add(g[v], d_z).store(&mut d_sent[v]);
                }
            }
            let to = &mut d_h[own as usize][4 + k];
            for v in 0..V {
                d_all[v].mul_add(a[v], L::load(&to[v])).store(&mut to[v]);
            }
        }
        store(sum, &mut d_a[k]);
    }
}
