//! Graph attention with four heads of whole vectors, or a multiple of four, graph by graph: softmax and
//! messages.
//!
//! The usual sizes, with a head's channels in `V` registers: a row is groups of four heads, of which one is
//! worked on at a time; what a group has of an edge is one register of four. One or two heads are four parts,
//! which [`super::gat_parts`] explains.

// S source rows, T target rows, E edges, V vectors of a head, G groups of four heads, 0 if any number, P parts of
// a head

use std::ops::Range;

use super::{
    gat_four_scores as gat_scores,
    gat_kernel::{Layer, Scores},
    gatv2_four_scores as gatv2_scores,
    lanes::{Lanes, Quad, Vector, vectorised, vectorised_wide},
    level::multiversion,
    math::exp,
};

/// The channels of a head.
pub(super) type Head<const V: usize> = [[f32; 8]; V];
/// One number of each head.
pub(super) type Heads = [f32; 4];

/// Four heads of a row.
pub(super) type Group<const V: usize> = [Head<V>; 4];

/// Calls `body` with constants: the vectors of a head, 1 for a single group or 0 for any number of them, and the
/// parts of a head. Evaluates to whether heads are of so many vectors and make groups of four.
macro_rules! by_vectors {
    ($layer:expr, $($body:ident)::+($($arg:expr),*)) => {
        match ($layer.parts, $layer.heads, $layer.channels) {
            (1, 4, 8) => { $($body)::+::<1, 1, 1>($($arg),*); true }
            (1, 4, 16) => { $($body)::+::<2, 1, 1>($($arg),*); true }
            (1, 4, 32) => { $($body)::+::<4, 1, 1>($($arg),*); true }
            (1, 4, 64) => { $($body)::+::<8, 1, 1>($($arg),*); true }
            (1, heads, 8) if heads % 4 == 0 => { $($body)::+::<1, 0, 1>($($arg),*); true }
            (1, heads, 16) if heads % 4 == 0 => { $($body)::+::<2, 0, 1>($($arg),*); true }
            (1, heads, 32) if heads % 4 == 0 => { $($body)::+::<4, 0, 1>($($arg),*); true }
            (2, 4, 8) => { $($body)::+::<1, 1, 2>($($arg),*); true }
            (2, 4, 16) => { $($body)::+::<2, 1, 2>($($arg),*); true }
            (2, 4, 32) => { $($body)::+::<4, 1, 2>($($arg),*); true }
            (2, 4, 64) => { $($body)::+::<8, 1, 2>($($arg),*); true }
            (4, 4, 8) => { $($body)::+::<1, 1, 4>($($arg),*); true }
            (4, 4, 16) => { $($body)::+::<2, 1, 4>($($arg),*); true }
            (4, 4, 32) => { $($body)::+::<4, 1, 4>($($arg),*); true }
            (4, 4, 64) => { $($body)::+::<8, 1, 4>($($arg),*); true }
            _ => false,
        }
    };
}
pub(super) use by_vectors;

/// The vectors of `xs`, whose length is a multiple of eight.
#[inline(always)]
pub(super) fn eights(xs: &[f32]) -> &[[f32; 8]] {
    xs.as_chunks().0
}

/// As [`eights`], to be written.
#[inline(always)]
pub(super) fn eights_mut(xs: &mut [f32]) -> &mut [[f32; 8]] {
    xs.as_chunks_mut().0
}

/// The groups of four heads of rows.
#[inline(always)]
pub(super) fn in_groups<const V: usize>(xs: &[f32]) -> &[Group<V>] {
    eights(xs).as_chunks().0.as_chunks().0
}

/// As [`in_groups`], to be written.
#[inline(always)]
pub(super) fn in_groups_mut<const V: usize>(xs: &mut [f32]) -> &mut [Group<V>] {
    eights_mut(xs).as_chunks_mut().0.as_chunks_mut().0
}

/// The numbers of each group in `xs`, edge by edge or row by row.
#[inline(always)]
pub(super) fn heads(xs: &[f32]) -> &[Heads] {
    xs.as_chunks().0
}

/// As [`heads`], to be written.
#[inline(always)]
pub(super) fn heads_mut(xs: &mut [f32]) -> &mut [Heads] {
    xs.as_chunks_mut().0
}

// Arrays of registers are filled by loops: a closure would be compiled on its own, without the caller's
// instructions.

/// The sum over each head, where it has parts.
#[inline(always)]
pub(super) fn over_parts<L: Lanes, const P: usize>(of_parts: L::Quad) -> L::Quad {
    match P {
        1 => of_parts,
        2 => of_parts.add_in_pairs(),
        _ => of_parts.add_in_pairs().add_pairs(),
    }
}

/// `dots_k = a_k . b_k` of four heads, for vectors of `a` in registers.
#[inline(always)]
pub(super) fn head_dots<L: Lanes, const V: usize, const P: usize>(a: &[[L; V]; 4], b: &Group<V>) -> L::Quad {
    let mut sums = [L::splat(0.0); 4];
    for k in 0..4 {
        sums[k] = a[k][0].mul(L::load(&b[k][0]));
        for v in 1..V {
            sums[k] = a[k][v].mul_add(L::load(&b[k][v]), sums[k]);
        }
    }
    over_parts::<L, P>(L::sums(sums))
}

/// Four heads in registers.
#[inline(always)]
pub(super) fn load_group<W: Vector, const V: usize>(group: &Group<V>) -> [[W; V]; 4] {
    let mut vectors = [[W::splat(0.0); V]; 4];
    for k in 0..4 {
        vectors[k] = load::<W, V>(&group[k]);
    }
    vectors
}

/// A head in registers, as many of the `V` as it takes.
#[inline(always)]
pub(super) fn load<W: Vector, const V: usize>(head: &Head<V>) -> [W; V] {
    let mut vectors = [W::splat(0.0); V];
    for v in 0..V / W::EIGHTS {
        vectors[v] = W::load(&head[v * W::EIGHTS..]);
    }
    vectors
}

/// Puts a head from registers into memory.
#[inline(always)]
pub(super) fn store<W: Vector, const V: usize>(vectors: [W; V], head: &mut Head<V>) {
    for v in 0..V / W::EIGHTS {
        vectors[v].store(&mut head[v * W::EIGHTS..]);
    }
}

/// What a group has of each of some edges: the numbers at `group` of `groups` each.
#[inline(always)]
pub(super) fn of_edges(
    xs: &[Heads],
    edges: Range<usize>,
    [group, groups]: [usize; 2],
) -> impl Iterator<Item = &Heads> {
    xs[edges.start * groups..edges.end * groups].chunks_exact(groups).map(move |of_edge| &of_edge[group])
}

/// As [`of_edges`], to be written.
#[inline(always)]
pub(super) fn of_edges_mut(
    xs: &mut [Heads],
    edges: Range<usize>,
    [group, groups]: [usize; 2],
) -> impl Iterator<Item = &mut Heads> {
    let of_edges = xs[edges.start * groups..edges.end * groups].chunks_exact_mut(groups);
    of_edges.map(move |of_edge| &mut of_edge[group])
}

/// The edges of a target: source, relation, logarithm of multiplicity, and where a group's score goes.
#[inline(always)]
pub(super) fn edges_to_score<'a>(
    layer: &Layer<'a>,
    target: usize,
    scores: &'a mut [Heads],
    at: [usize; 2],
) -> impl Iterator<Item = (usize, usize, f32, &'a mut Heads)> {
    let (edges, range) = (layer.edges, layer.edges_of(target));
    let ends = edges.sources()[range.clone()].iter().zip(&edges.relations()[range.clone()]);
    let multiplicity = &edges.log_multiplicity()[range.clone()];
    let edges = ends.zip(multiplicity).zip(of_edges_mut(scores, range, at));
    edges.map(|(((&j, &relation), &multiplicity), to)| (j as usize, relation as usize, multiplicity, to))
}

/// Subtracts a target's largest score from all.
#[inline(always)]
pub(super) fn subtract_largest<L: Lanes>(
    layer: &Layer<'_>,
    target: usize,
    scores: &mut [Heads],
    largest: L::Quad,
    at: [usize; 2],
) {
    for score in of_edges_mut(scores, layer.edges_of(target), at) {
        L::Quad::load(score).sub(largest).store(score);
    }
}

/// Gradients of the relation bias of a group; that of the relation of the last edges waits in a register,
/// because a sum in memory is ready for its next number only much later.
pub(super) struct Relations<'a, L: Lanes> {
    sums: &'a mut [Heads],
    group: usize,
    groups: usize,
    at: usize,
    sum: L::Quad,
}

impl<'a, L: Lanes> Relations<'a, L> {
    #[inline(always)]
    pub(super) fn new(sums: &'a mut [Heads], [group, groups]: [usize; 2]) -> Self {
        let sum = match sums.get(group) {
            Some(first) => L::Quad::load(first),
            None => L::Quad::splat(0.0),
        };
        Self { sums, group, groups, at: 0, sum }
    }

    #[inline(always)]
    pub(super) fn add(&mut self, relation: u32, d: L::Quad) {
        if relation as usize != self.at {
            self.sum.store(&mut self.sums[self.at * self.groups + self.group]);
            self.at = relation as usize;
            self.sum = L::Quad::load(&self.sums[self.at * self.groups + self.group]);
        }
        self.sum = d.add(self.sum);
    }

    #[inline(always)]
    pub(super) fn finish(self) {
        // A graph without edges may be without relations too.
        if let Some(last) = self.sums.get_mut(self.at * self.groups + self.group) {
            self.sum.store(last);
        }
    }
}

multiversion! {
    /// exp of every element, in place.
    fn exp_in_place(xs: &mut [f32]) = exp_body
}

#[inline(always)]
fn exp_body<const FMA: bool>(xs: &mut [f32]) {
    for x in xs {
        *x = exp::<FMA>(*x);
    }
}

/// The attention of all edges `[E, H]`: scores less their largest, target by target; then all weights at
/// once; then their shares. `scratch` has room for a score of each row.
pub(super) fn weigh<const V: usize, const G: usize, const P: usize>(
    layer: &Layer<'_>,
    h: &[f32],
    attention: &mut [f32],
    scratch: &mut [f32],
) {
    match layer.scores {
        Scores::Gat { a_src, a_dst } => {
            gat_scores::scores::<V, G, P>(layer, [a_src, a_dst], h, attention, scratch)
        }
        Scores::Gatv2 { a } => gatv2_scores::scores::<V, G, P>(layer, a, h, attention),
    }
    exp_in_place(attention);
    divide::<G>(layer, attention);
}

vectorised! {
    /// Divides the weights of each target by their sum.
    fn divide<const G: usize>(layer: &Layer<'_>, attention: &mut [f32]) = divide_body
}

#[inline(always)]
fn divide_body<L: Lanes, const G: usize>(layer: &Layer<'_>, attention: &mut [f32]) {
    let attention = heads_mut(attention);
    for group in layer.groups::<G>() {
        for t in 0..layer.edges.num_targets() {
            let range = layer.edges_of(t);
            let mut sum = L::Quad::splat(0.0);
            for weight in of_edges(attention, range.clone(), group) {
                sum = sum.add(L::Quad::load(weight));
            }
            let share = L::Quad::splat(1.0).div(sum);
            for weight in of_edges_mut(attention, range, group) {
                L::Quad::load(weight).mul(share).store(weight);
            }
        }
    }
}

/// What each target's sources send it, `[T, H * C]`.
pub(super) fn aggregate<const V: usize, const G: usize, const P: usize>(
    layer: &Layer<'_>,
    h: &[f32],
    attention: &[f32],
    out: &mut [f32],
) {
    add_messages::<V, G>(layer, h, attention, out);
}

vectorised_wide! {
    /// What [`aggregate`] does, which is the same for heads and for their parts.
    fn add_messages<const V: usize, const G: usize>(layer: &Layer<'_>, h: &[f32], attention: &[f32], out: &mut [f32]) = add_messages_body by V
}

#[inline(always)]
fn add_messages_body<W: Vector, const V: usize, const G: usize>(
    layer: &Layer<'_>,
    h: &[f32],
    attention: &[f32],
    out: &mut [f32],
) {
    let (h, attention, out) = (in_groups::<V>(h), heads(attention), in_groups_mut::<V>(out));
    let row = layer.groups_of_row::<G>();
    for [group, groups] in layer.groups::<G>() {
        for (t, out) in out.iter_mut().skip(group).step_by(groups).enumerate() {
            let range = layer.edges_of(t);
            let mut sums = [[W::splat(0.0); V]; 4];
            let sources = &layer.edges.sources()[range.clone()];
            for (&j, alpha) in sources.iter().zip(of_edges(attention, range, [group, groups])) {
                let h = &h[j as usize * row + group];
                for k in 0..4 {
                    let alpha = W::splat(alpha[k]);
                    for v in 0..V / W::EIGHTS {
                        sums[k][v] = alpha.mul_add(W::load(&h[k][v * W::EIGHTS..]), sums[k][v]);
                    }
                }
            }
            for k in 0..4 {
                store(sums[k], &mut out[k]);
            }
        }
    }
}

/// One graph backward: fills the gradient of `h`, adds to those of the parameters. `scratch` has room for what
/// [`super::gat_kernel::backward_scratch`] says.
pub(super) fn backward<const V: usize, const G: usize, const P: usize>(
    layer: &Layer<'_>,
    h: &[f32],
    attention: &[f32],
    g: &[f32],
    d_h: &mut [f32],
    d_parameters: &mut [f32],
    scratch: &mut [f32],
) {
    let (d_score, rest) = scratch.split_at_mut(layer.heads * layer.edges.num_edges());
    match layer.scores {
        Scores::Gat { a_src, a_dst } => {
            let weights = [a_src, a_dst];
            weights_back::<V, G, P>(layer, h, attention, g, d_score, None);
            gat_scores::backward::<V, G, P>(layer, weights, h, d_score, d_h, d_parameters, rest);
            gat_scores::messages_back::<V, G>(layer, attention, g, d_h);
        }
        Scores::Gatv2 { a } => {
            let (d_a, d_relation) = d_parameters.split_at_mut(layer.width());
            weights_back::<V, G, P>(layer, h, attention, g, d_score, Some(d_relation));
            gatv2_scores::backward::<V, G>(layer, a, h, attention, g, d_score, d_h, d_a);
        }
    }
}

vectorised! {
    /// The gradient of every score, through weights and softmax: `alpha (g . h_j - mean)`, the mean over
    /// the target's edges weighted by `alpha`. Added to `d_relation`, if it is given, relation by relation.
    fn weights_back<const V: usize, const G: usize, const P: usize>(
        layer: &Layer<'_>, h: &[f32], attention: &[f32], g: &[f32], d_score: &mut [f32],
        d_relation: Option<&mut [f32]>,
    ) = weights_back_body
}

#[inline(always)]
fn weights_back_body<L: Lanes, const V: usize, const G: usize, const P: usize>(
    layer: &Layer<'_>,
    h: &[f32],
    attention: &[f32],
    g: &[f32],
    d_score: &mut [f32],
    mut d_relation: Option<&mut [f32]>,
) {
    let (h, attention, g, d_score) =
        (in_groups::<V>(h), heads(attention), in_groups::<V>(g), heads_mut(d_score));
    let row = layer.groups_of_row::<G>();
    for at @ [group, groups] in layer.groups::<G>() {
        let mut relations = d_relation.as_deref_mut().map(|sums| Relations::<L>::new(heads_mut(sums), at));
        for (t, g) in g.iter().skip(group).step_by(groups).enumerate() {
            let g = load_group::<L, V>(g);
            let range = layer.edges_of(t);
            let sources = &layer.edges.sources()[range.clone()];
            let relation_of = &layer.edges.relations()[range.clone()];
            let mut mean = L::Quad::splat(0.0);
            let to = of_edges_mut(d_score, range.clone(), at);
            for ((&j, alpha), d) in sources.iter().zip(of_edges(attention, range.clone(), at)).zip(to) {
                let d_alpha = head_dots::<L, V, P>(&g, &h[j as usize * row + group]);
                mean = mean.add(L::Quad::load(alpha).mul(d_alpha));
                d_alpha.store(d);
            }
            let alpha = of_edges(attention, range.clone(), at);
            for ((alpha, &relation), d) in alpha.zip(relation_of).zip(of_edges_mut(d_score, range, at)) {
                let of_score = L::Quad::load(alpha).mul(L::Quad::load(d).sub(mean));
                of_score.store(d);
                if let Some(relations) = &mut relations {
                    relations.add(relation, of_score);
                }
            }
        }
        if let Some(relations) = relations {
            relations.finish();
        }
    }
}
