//! Scores that add what both ends say, `LeakyReLU(a_src . h_j + a_dst . h_i + r_rel)`, for groups of four
//! heads of whole vectors.

// S source rows, T target rows, E edges, V vectors of a head

use super::{
    gat_four::{
        Group, Heads, Relations, edges_to_score, head_dots, heads, heads_mut, in_groups, in_groups_mut, load,
        load_group, of_edges, store, subtract_largest,
    },
    gat_kernel::Layer,
    lanes::{Lanes, Quad, Vector, vectorised, vectorised_wide},
};

vectorised! {
    /// The scores of all edges less the largest of their target, `[E, H]`; `scratch` has room for a
    /// score of each row.
    pub(super) fn scores<const V: usize, const G: usize, const P: usize>(
        layer: &Layer<'_>, weights: [&[f32]; 2], h: &[f32], scores: &mut [f32], scratch: &mut [f32],
    ) = scores_body
}

#[inline(always)]
fn scores_body<L: Lanes, const V: usize, const G: usize, const P: usize>(
    layer: &Layer<'_>,
    [a_src, a_dst]: [&[f32]; 2],
    h: &[f32],
    scores: &mut [f32],
    scratch: &mut [f32],
) {
    let edges = layer.edges;
    let (scores, bias) = (heads_mut(scores), heads(layer.relation_bias));
    let of_sources = &mut heads_mut(scratch)[..edges.num_sources()];
    let (a_src, a_dst, h) = (in_groups::<V>(a_src), in_groups::<V>(a_dst), in_groups::<V>(h));
    let slope = L::Quad::splat(layer.slope);
    for at @ [group, groups] in layer.groups::<G>() {
        of_rows::<L, V, P>(&a_src[group], h, of_sources, at);
        let a_dst = load_group::<L, V>(&a_dst[group]);
        for (t, &own) in edges.targets().iter().enumerate() {
            let own = head_dots::<L, V, P>(&a_dst, &h[own as usize * groups + group]);
            let mut max = L::Quad::splat(f32::NEG_INFINITY);
            for (j, relation, multiplicity, to) in edges_to_score(layer, t, scores, at) {
                let score = L::Quad::load(&of_sources[j]).add(own);
                let score = score.add(L::Quad::load(&bias[relation * groups + group]));
                let score = score.where_negative(slope.mul(score), score).add(L::Quad::splat(multiplicity));
                max = score.max(max);
                score.store(to);
            }
            subtract_largest::<L>(layer, t, scores, max, at);
        }
    }
}

/// `a . h_s` of every row and the heads of a group.
#[inline(always)]
fn of_rows<L: Lanes, const V: usize, const P: usize>(
    a: &Group<V>,
    h: &[Group<V>],
    scores: &mut [Heads],
    [group, groups]: [usize; 2],
) {
    let a = load_group::<L, V>(a);
    for (h, score) in h.iter().skip(group).step_by(groups).zip(scores) {
        head_dots::<L, V, P>(&a, h).store(score);
    }
}

vectorised_wide! {
    /// The backward pass of [`scores`]: fills the gradient of `h`, adds to those of `a_src`, `a_dst` and the
    /// relation bias. The side of the LeakyReLU is found out again rather than kept.
    pub(super) fn backward<const V: usize, const G: usize, const P: usize>(
        layer: &Layer<'_>, weights: [&[f32]; 2], h: &[f32], d_score: &[f32], d_h: &mut [f32],
        d_parameters: &mut [f32], scratch: &mut [f32],
    ) = backward_body by V
}

#[inline(always)]
fn backward_body<W: Vector, const V: usize, const G: usize, const P: usize>(
    layer: &Layer<'_>,
    [a_src, a_dst]: [&[f32]; 2],
    h: &[f32],
    d_score: &[f32],
    d_h: &mut [f32],
    d_parameters: &mut [f32],
    scratch: &mut [f32],
) {
    let edges = layer.edges;
    let count = edges.num_sources();
    let (bias, d_score) = (heads(layer.relation_bias), heads(d_score));
    let (d_a_src, rest) = d_parameters.split_at_mut(layer.width());
    let (d_a_dst, d_relation) = rest.split_at_mut(layer.width());
    let (d_a_src, d_a_dst) = (in_groups_mut::<V>(d_a_src), in_groups_mut::<V>(d_a_dst));
    let d_relation = heads_mut(d_relation);
    let (of_sources, rest) = heads_mut(scratch).split_at_mut(count);
    let (d_source, rest) = rest.split_at_mut(count);
    let d_target = &mut rest[..count];
    let (a_src, a_dst, h) = (in_groups::<V>(a_src), in_groups::<V>(a_dst), in_groups::<V>(h));
    let d_h = in_groups_mut::<V>(d_h);
    let (slope, one) = (W::Quad::splat(layer.slope), W::Quad::splat(1.0));
    for at @ [group, groups] in layer.groups::<G>() {
        let mut d_relations = Relations::<W::Lanes>::new(d_relation, at);
        of_rows::<W::Lanes, V, P>(&a_src[group], h, of_sources, at);
        d_source.fill([0.0; 4]);
        d_target.fill([0.0; 4]);
        let target_weights = load_group::<W::Lanes, V>(&a_dst[group]);
        for (t, &own_row) in edges.targets().iter().enumerate() {
            let own = head_dots::<W::Lanes, V, P>(&target_weights, &h[own_row as usize * groups + group]);
            let range = layer.edges_of(t);
            let ends = edges.sources()[range.clone()].iter().zip(&edges.relations()[range.clone()]);
            let mut d_own = W::Quad::load(&d_target[own_row as usize]);
            for ((&j, &relation), d) in ends.zip(of_edges(d_score, range, at)) {
                let score = W::Quad::load(&of_sources[j as usize]).add(own);
                let score = score.add(W::Quad::load(&bias[relation as usize * groups + group]));
                let d = score.where_negative(slope, one).mul(W::Quad::load(d));
                let d_source = &mut d_source[j as usize];
                d.add(W::Quad::load(d_source)).store(d_source);
                d_relations.add(relation, d);
                d_own = d_own.add(d);
            }
            d_own.store(&mut d_target[own_row as usize]);
        }
        d_relations.finish();
        let weights = [&a_src[group], &a_dst[group]];
        let d_weights = [&mut d_a_src[group], &mut d_a_dst[group]];
        rows_back::<W, V>(weights, h, [d_source, d_target], d_h, d_weights, at);
    }
}

/// What the scores of each row, as a source and as a target, leave to `h` and to both weights.
#[inline(always)]
fn rows_back<W: Vector, const V: usize>(
    [a_src, a_dst]: [&Group<V>; 2],
    h: &[Group<V>],
    [d_source, d_target]: [&[Heads]; 2],
    d_h: &mut [Group<V>],
    [d_a_src, d_a_dst]: [&mut Group<V>; 2],
    [group, groups]: [usize; 2],
) {
    for k in 0..4 {
        let (a_src, a_dst) = (load::<W, V>(&a_src[k]), load::<W, V>(&a_dst[k]));
        let (mut sum_src, mut sum_dst) = (load::<W, V>(&d_a_src[k]), load::<W, V>(&d_a_dst[k]));
        let rows = h.iter().skip(group).step_by(groups).zip(d_h.iter_mut().skip(group).step_by(groups));
        for ((h, d_h), (d_source, d_target)) in rows.zip(d_source.iter().zip(d_target)) {
            let (d_source, d_target) = (W::splat(d_source[k]), W::splat(d_target[k]));
            for v in 0..V / W::EIGHTS {
                let (h, d_h) = (W::load(&h[k][v * W::EIGHTS..]), &mut d_h[k][v * W::EIGHTS..]);
                d_target.mul_add(a_dst[v], d_source.mul(a_src[v])).store(d_h);
                sum_src[v] = d_source.mul_add(h, sum_src[v]);
                sum_dst[v] = d_target.mul_add(h, sum_dst[v]);
            }
        }
        store(sum_src, &mut d_a_src[k]);
        store(sum_dst, &mut d_a_dst[k]);
    }
}

vectorised_wide! {
    /// The gradient of `h` by what it sends: `alpha g` to the source of every edge.
    pub(super) fn messages_back<const V: usize, const G: usize>(
        layer: &Layer<'_>, attention: &[f32], g: &[f32], d_h: &mut [f32],
    ) = messages_back_body by V
}

#[inline(always)]
fn messages_back_body<W: Vector, const V: usize, const G: usize>(
    layer: &Layer<'_>,
    attention: &[f32],
    g: &[f32],
    d_h: &mut [f32],
) {
    let (attention, g, d_h) = (heads(attention), in_groups::<V>(g), in_groups_mut::<V>(d_h));
    for at @ [group, groups] in layer.groups::<G>() {
        for (t, g) in g.iter().skip(group).step_by(groups).enumerate() {
            let g = load_group::<W, V>(g);
            let range = layer.edges_of(t);
            let sources = &layer.edges.sources()[range.clone()];
            for (&j, alpha) in sources.iter().zip(of_edges(attention, range, at)) {
                let d_h = &mut d_h[j as usize * groups + group];
                for k in 0..4 {
                    let alpha = W::splat(alpha[k]);
                    for v in 0..V / W::EIGHTS {
                        let d = &mut d_h[k][v * W::EIGHTS..];
                        alpha.mul_add(g[k][v], W::load(d)).store(d);
                    }
                }
            }
        }
    }
}
