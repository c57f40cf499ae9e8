//! Scores that look at both ends together, `a . LeakyReLU(s_j + d_i) + r_rel`, for groups of four
//! heads of whole vectors.

// S source rows, T target rows, E edges, V vectors of a head

use super::{
    gat_four::{
        edges_to_score, heads, heads_mut, in_groups, in_groups_mut, load, load_group, of_edges, over_parts,
        store, subtract_largest,
    },
    gat_kernel::Layer,
    lanes::{Lanes, Quad, Vector, vectorised_wide},
};

vectorised_wide! {
    /// The scores of all edges less the largest of their target, `[E, H]`; a row of `h` is `[s ; d]`.
    pub(super) fn scores<const V: usize, const G: usize, const P: usize>(
        layer: &Layer<'_>, a: &[f32], h: &[f32], scores: &mut [f32],
    ) = scores_body by V
}

#[inline(always)]
fn scores_body<W: Vector, const V: usize, const G: usize, const P: usize>(
    layer: &Layer<'_>,
    a: &[f32],
    h: &[f32],
    scores: &mut [f32],
) {
    let edges = layer.edges;
    let (scores, bias, h) = (heads_mut(scores), heads(layer.relation_bias), in_groups::<V>(h));
    let a = in_groups::<V>(a);
    let slope = W::splat(layer.slope);
    for at @ [group, groups] in layer.groups::<G>() {
        let (a, row) = (&a[group], 2 * groups);
        for (t, &own) in edges.targets().iter().enumerate() {
            let asked = load_group::<W, V>(&h[own as usize * row + groups + group]);
            let mut max = W::Quad::splat(f32::NEG_INFINITY);
            for (j, relation, multiplicity, to) in edges_to_score(layer, t, scores, at) {
                let sent = &h[j * row + group];
                let mut met = [<W::Lanes as Lanes>::splat(0.0); 4];
                for k in 0..4 {
                    for v in 0..V / W::EIGHTS {
                        let at = v * W::EIGHTS;
                        let z = asked[k][v].add(W::load(&sent[k][at..]));
                        met[k] = z.where_negative(slope.mul(z), z).add_products_to(&a[k][at..], met[k]);
                    }
                }
                let bias = W::Quad::load(&bias[relation * groups + group]);
                let score = over_parts::<W::Lanes, P>(W::Lanes::sums(met));
                let score = score.add(bias).add(W::Quad::splat(multiplicity));
                max = score.max(max);
                score.store(to);
            }
            subtract_largest::<W::Lanes>(layer, t, scores, max, at);
        }
    }
}

vectorised_wide! {
    /// The backward pass of [`scores`] and of what sources send: fills the gradient of `h`, adds to that of
    /// `a`. That of the relation bias is of the scores alone.
    pub(super) fn backward<const V: usize, const G: usize>(
        layer: &Layer<'_>, a: &[f32], h: &[f32], attention: &[f32], g: &[f32], d_score: &[f32],
        d_h: &mut [f32], d_a: &mut [f32],
    ) = backward_body by V
}

#[inline(always)]
fn backward_body<W: Vector, const V: usize, const G: usize>(
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
    let (h, d_h, g) = (in_groups::<V>(h), in_groups_mut::<V>(d_h), in_groups::<V>(g));
    let (a, d_a) = (in_groups::<V>(a), in_groups_mut::<V>(d_a));
    let (attention, d_score) = (heads(attention), heads(d_score));
    let slope = W::splat(layer.slope);
    for at @ [group, groups] in layer.groups::<G>() {
        let row = 2 * groups;
        // Head by head, so that what all targets share stays in registers.
        for k in 0..4 {
            let (a, mut sum) = (load::<W, V>(&a[group][k]), load::<W, V>(&d_a[group][k]));
            let targets = edges.targets().iter().zip(g.iter().skip(group).step_by(groups));
            for (t, (&own, g)) in targets.enumerate() {
                let range = layer.edges_of(t);
                let sources = &edges.sources()[range.clone()];
                let of_edges = of_edges(attention, range.clone(), at).zip(of_edges(d_score, range, at));
                let own = own as usize * row + groups + group;
                let (g, asked) = (load::<W, V>(&g[k]), load::<W, V>(&h[own][k]));
                let mut d_all = [W::splat(0.0); V];
                for (&j, (alpha, d)) in sources.iter().zip(of_edges) {
                    let from = j as usize * row + group;
                    let (sent, d_sent) = (&h[from][k], &mut d_h[from][k]);
                    let (alpha, d) = (W::splat(alpha[k]), W::splat(d[k]));
                    let falling = d.mul(slope);
                    for v in 0..V / W::EIGHTS {
                        let at = v * W::EIGHTS;
                        let z = asked[v].add(W::load(&sent[at..]));
                        let d = z.where_negative(falling, d); // of LeakyReLU(z), less its weight
                        sum[v] = d.mul_add(z, sum[v]);
                        d_all[v] = d_all[v].add(d);
                        let d_z = d.mul_add(a[v], W::load(&d_sent[at..]));
                        alpha.mul_add(g[v], d_z).store(&mut d_sent[at..]);
                    }
                }
                let to = &mut d_h[own][k];
                for v in 0..V / W::EIGHTS {
                    let to = &mut to[v * W::EIGHTS..];
                    d_all[v].mul_add(a[v], W::load(to)).store(to);
                }
            }
            store(sum, &mut d_a[group][k]);
        }
    }
}
