//! Scores that look at both ends together, `a . LeakyReLU(s_j + d_i) + r_rel`, for four heads of whole
//! vectors.

// S source rows, T target rows, E edges, V vectors of a head

use super::{
    gat_four::{Relations, eights, eights_mut, head, heads, heads_mut, row},
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
    let (scores, bias, h) = (heads_mut(scores), heads(layer.relation_bias), eights(h));
    let a = &eights(a)[..4 * V];
    let slope = L::splat(layer.slope);
    for (t, &own) in edges.targets().iter().enumerate() {
        let asked = row::<L, V>(&h[own as usize * 8 * V + 4 * V..]);
        let range = layer.edges_of(t);
        let ends = edges.sources()[range.clone()].iter().zip(&edges.relations()[range.clone()]);
        let multiplicity = &edges.log_multiplicity()[range.clone()];
        let scores = &mut scores[range];
        let mut max = L::Quad::splat(f32::NEG_INFINITY);
        for (((&j, &relation), &multiplicity), to) in ends.zip(multiplicity).zip(scores.iter_mut()) {
            let sent = &h[j as usize * 8 * V..][..4 * V];
            let mut met = [L::splat(0.0); 4];
            for k in 0..4 {
                for v in 0..V {
                    let z = asked[k][v].add(L::load(&sent[k * V + v]));
                    met[k] = z.where_negative(slope.mul(z), z).mul_add(L::load(&a[k * V + v]), met[k]);
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
    /// The backward pass of [`scores`] and of what sources send: adds to the gradients of `h`, `a` and
    /// the relation bias.
    pub(super) fn backward<const V: usize>(
        layer: &Layer<'_>, a: &[f32], h: &[f32], attention: &[f32], g: &[f32], d_score: &[f32],
        d_h: &mut [f32], d_parameters: &mut [f32],
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
    d_parameters: &mut [f32],
) {
    let edges = layer.edges;
    let (d_a, d_relation) = d_parameters.split_at_mut(32 * V);
    let (d_a, d_relation) = (eights_mut(d_a), heads_mut(d_relation));
    let (h, d_h, a, g) = (eights(h), eights_mut(d_h), eights(a), eights(g));
    let (attention, d_score) = (heads(attention), heads(d_score));
    let mut relations = Relations::<L>::new(d_relation);
    for (d, &relation) in d_score.iter().zip(edges.relations()) {
        relations.add(relation, L::Quad::load(d));
    }
    relations.finish();
    let slope = L::splat(layer.slope);
    for (t, &own) in edges.targets().iter().enumerate() {
        let range = layer.edges_of(t);
        let sources = &edges.sources()[range.clone()];
        let (alpha, d_score) = (&attention[range.clone()], &d_score[range]);
        let of_asked = own as usize * 8 * V + 4 * V;
        let g = &g[t * 4 * V..][..4 * V];
        for k in 0..4 {
            let (g, a, asked) = (head::<L, V>(g, k), head::<L, V>(a, k), head::<L, V>(&h[of_asked..], k));
            let (mut d_asked, mut sum) = ([L::splat(0.0); V], head::<L, V>(d_a, k));
            for ((&j, alpha), d) in sources.iter().zip(alpha).zip(d_score) {
                let at = j as usize * 8 * V + k * V;
                let (sent, d_sent) = (&h[at..][..V], &mut d_h[at..][..V]);
                let (alpha, d) = (L::splat(alpha[k]), L::splat(d[k]));
                let falling = d.mul(slope);
                for v in 0..V {
                    let z = asked[v].add(L::load(&sent[v]));
                    let d = z.where_negative(falling, d); // of LeakyReLU(z), less its weight
                    sum[v] = d.mul_add(z, sum[v]);
                    let d_z = d.mul(a[v]);
                    d_asked[v] = d_asked[v].add(d_z);
                    alpha.mul_add(g[v], L::load(&d_sent[v]).add(d_z)).store(&mut d_sent[v]);
                }
            }
            for v in 0..V {
                sum[v].store(&mut d_a[k * V + v]);
                let to = &mut d_h[of_asked + k * V + v];
                d_asked[v].add(L::load(to)).store(to);
            }
        }
    }
}
