//! Graph attention with four heads of whole vectors, graph by graph: softmax and messages.
//!
//! The usual sizes, with a head's channels in `V` registers: a row is an array of `R` heads of as many, what
//! the heads have of an edge is one register of four.

// S source rows, T target rows, E edges, V vectors of a head, R heads of a row

use super::{
    gat_four_scores as gat_scores,
    gat_kernel::{Layer, Scores},
    gatv2_four_scores as gatv2_scores,
    lanes::{Lanes, Quad, vectorised},
    level::multiversion,
    math::exp,
};

/// The channels of a head.
pub(super) type Head<const V: usize> = [[f32; 8]; V];
/// One number of each head.
pub(super) type Heads = [f32; 4];

/// Calls `body` with the number of vectors of a head as a constant; evaluates to whether it is one of
/// those that there are.
macro_rules! by_vectors {
    ($layer:expr, $($body:ident)::+($($arg:expr),*)) => {
        match ($layer.heads, $layer.channels) {
            (4, 8) => { $($body)::+::<1>($($arg),*); true }
            (4, 16) => { $($body)::+::<2>($($arg),*); true }
            (4, 32) => { $($body)::+::<4>($($arg),*); true }
            (4, 64) => { $($body)::+::<8>($($arg),*); true }
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

/// Rows of `R` heads: four, or in GATv2 the four that a node sends and the four it asks with.
#[inline(always)]
pub(super) fn rows<const V: usize, const R: usize>(xs: &[f32]) -> &[[Head<V>; R]] {
    eights(xs).as_chunks().0.as_chunks().0
}

/// As [`rows`], to be written.
#[inline(always)]
pub(super) fn rows_mut<const V: usize, const R: usize>(xs: &mut [f32]) -> &mut [[Head<V>; R]] {
    eights_mut(xs).as_chunks_mut().0.as_chunks_mut().0
}

/// The heads of one row.
#[inline(always)]
pub(super) fn row<const V: usize>(xs: &[f32]) -> &[Head<V>; 4] {
    &rows(xs)[0]
}

/// As [`row`], to be written.
#[inline(always)]
pub(super) fn row_mut<const V: usize>(xs: &mut [f32]) -> &mut [Head<V>; 4] {
    &mut rows_mut(xs)[0]
}

/// The heads that a node sends.
#[inline(always)]
pub(super) fn sent<const V: usize, const R: usize>(row: &[Head<V>; R]) -> &[Head<V>; 4] {
    row.first_chunk().expect("a row has four heads at least")
}

/// The numbers of each head in `xs`, edge by edge or row by row.
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

/// `dots_k = a_k . b_k` of every head, for vectors of `a` in registers.
#[inline(always)]
pub(super) fn head_dots<L: Lanes, const V: usize>(a: &[[L; V]; 4], b: &[Head<V>; 4]) -> L::Quad {
    let mut sums = [L::splat(0.0); 4];
    for k in 0..4 {
        sums[k] = a[k][0].mul(L::load(&b[k][0]));
        for v in 1..V {
            sums[k] = a[k][v].mul_add(L::load(&b[k][v]), sums[k]);
        }
    }
    L::sums(sums)
}

/// Four heads in registers.
#[inline(always)]
pub(super) fn load_row<L: Lanes, const V: usize>(row: &[Head<V>; 4]) -> [[L; V]; 4] {
    let mut vectors = [[L::splat(0.0); V]; 4];
    for k in 0..4 {
        vectors[k] = load::<L, V>(&row[k]);
    }
    vectors
}

/// A head in registers.
#[inline(always)]
pub(super) fn load<L: Lanes, const V: usize>(head: &Head<V>) -> [L; V] {
    let mut vectors = [L::splat(0.0); V];
    for v in 0..V {
        vectors[v] = L::load(&head[v]);
    }
    vectors
}

/// Puts a head from registers into memory.
#[inline(always)]
pub(super) fn store<L: Lanes, const V: usize>(vectors: [L; V], head: &mut Head<V>) {
    for v in 0..V {
        vectors[v].store(&mut head[v]);
    }
}

/// Gradients of the relation bias; that of the relation of the last edges waits in a register, because
/// a sum in memory is ready for its next number only much later.
pub(super) struct Relations<'a, L: Lanes> {
    sums: &'a mut [Heads],
    at: usize,
    sum: L::Quad,
}

impl<'a, L: Lanes> Relations<'a, L> {
    #[inline(always)]
    pub(super) fn new(sums: &'a mut [Heads]) -> Self {
        let sum = match sums.first() {
            Some(first) => L::Quad::load(first),
            None => L::Quad::splat(0.0),
        };
        Self { sums, at: 0, sum }
    }

    #[inline(always)]
    pub(super) fn add(&mut self, relation: u32, d: L::Quad) {
        if relation as usize != self.at {
            self.sum.store(&mut self.sums[self.at]);
            self.at = relation as usize;
            self.sum = L::Quad::load(&self.sums[self.at]);
        }
        self.sum = d.add(self.sum);
    }

    #[inline(always)]
    pub(super) fn finish(self) {
        // A graph without edges may be without relations too.
        if let Some(last) = self.sums.get_mut(self.at) {
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
pub(super) fn weigh<const V: usize>(
    layer: &Layer<'_>,
    h: &[f32],
    attention: &mut [f32],
    scratch: &mut [f32],
) {
    match layer.scores {
        Scores::Gat { a_src, a_dst } => gat_scores::scores::<V>(layer, [a_src, a_dst], h, attention, scratch),
        Scores::Gatv2 { a } => gatv2_scores::scores::<V>(layer, a, h, attention),
    }
    exp_in_place(attention);
    divide(layer, attention);
}

vectorised! {
    /// Divides the weights of each target by their sum.
    fn divide(layer: &Layer<'_>, attention: &mut [f32]) = divide_body
}

#[inline(always)]
fn divide_body<L: Lanes>(layer: &Layer<'_>, attention: &mut [f32]) {
    let attention = heads_mut(attention);
    for t in 0..layer.edges.num_targets() {
        let weights = &mut attention[layer.edges_of(t)];
        let mut sum = L::Quad::splat(0.0);
        for weight in weights.iter() {
            sum = sum.add(L::Quad::load(weight));
        }
        let share = L::Quad::splat(1.0).div(sum);
        for weight in weights {
            L::Quad::load(weight).mul(share).store(weight);
        }
    }
}

/// What each target's sources send it, `[T, H * C]`.
pub(super) fn aggregate<const V: usize>(layer: &Layer<'_>, h: &[f32], attention: &[f32], out: &mut [f32]) {
    match layer.scores {
        Scores::Gat { .. } => aggregate_rows::<V, 4>(layer, h, attention, out),
        Scores::Gatv2 { .. } => aggregate_rows::<V, 8>(layer, h, attention, out),
    }
}

vectorised! {
    fn aggregate_rows<const V: usize, const R: usize>(
        layer: &Layer<'_>, h: &[f32], attention: &[f32], out: &mut [f32],
    ) = aggregate_body
}

#[inline(always)]
fn aggregate_body<L: Lanes, const V: usize, const R: usize>(
    layer: &Layer<'_>,
    h: &[f32],
    attention: &[f32],
    out: &mut [f32],
) {
    let (h, attention) = (rows::<V, R>(h), heads(attention));
    for (t, out) in rows_mut::<V, 4>(out).iter_mut().enumerate() {
        let range = layer.edges_of(t);
        let mut sums = [[L::splat(0.0); V]; 4];
        for (&j, alpha) in layer.edges.sources()[range.clone()].iter().zip(&attention[range]) {
            let h = sent(&h[j as usize]);
            for k in 0..4 {
                let alpha = L::splat(alpha[k]);
                for v in 0..V {
                    sums[k][v] = alpha.mul_add(L::load(&h[k][v]), sums[k][v]);
                }
            }
        }
        for k in 0..4 {
            store(sums[k], &mut out[k]);
        }
    }
}

/// One graph backward: fills the gradient of `h`, adds to those of the parameters. `scratch` has room for what
/// [`super::gat_kernel::backward_scratch`] says.
pub(super) fn backward<const V: usize>(
    layer: &Layer<'_>,
    h: &[f32],
    attention: &[f32],
    g: &[f32],
    d_h: &mut [f32],
    d_parameters: &mut [f32],
    scratch: &mut [f32],
) {
    let (d_score, rest) = scratch.split_at_mut(4 * layer.edges.num_edges());
    match layer.scores {
        Scores::Gat { a_src, a_dst } => {
            let weights = [a_src, a_dst];
            weights_back::<V, 4>(layer, h, attention, g, d_score, None);
            gat_scores::backward::<V>(layer, weights, h, d_score, d_h, d_parameters, rest);
            gat_scores::messages_back::<V>(layer, attention, g, d_h);
        }
        Scores::Gatv2 { a } => {
            let (d_a, d_relation) = d_parameters.split_at_mut(32 * V);
            weights_back::<V, 8>(layer, h, attention, g, d_score, Some(d_relation));
            gatv2_scores::backward::<V>(layer, a, h, attention, g, d_score, d_h, d_a);
        }
    }
}

vectorised! {
    /// The gradient of every score, through weights and softmax: `alpha (g . h_j - mean)`, the mean over
    /// the target's edges weighted by `alpha`. Added to `d_relation`, if it is given, relation by relation.
    fn weights_back<const V: usize, const R: usize>(
        layer: &Layer<'_>, h: &[f32], attention: &[f32], g: &[f32], d_score: &mut [f32],
        d_relation: Option<&mut [f32]>,
    ) = weights_back_body
}

#[inline(always)]
fn weights_back_body<L: Lanes, const V: usize, const R: usize>(
    layer: &Layer<'_>,
    h: &[f32],
    attention: &[f32],
    g: &[f32],
    d_score: &mut [f32],
    d_relation: Option<&mut [f32]>,
) {
    let mut relations = d_relation.map(|sums| Relations::<L>::new(heads_mut(sums)));
    let (h, attention, d_score) = (rows::<V, R>(h), heads(attention), heads_mut(d_score));
    for (t, g) in rows::<V, 4>(g).iter().enumerate() {
        let g = load_row::<L, V>(g);
        let range = layer.edges_of(t);
        let sources = &layer.edges.sources()[range.clone()];
        let relation_of = &layer.edges.relations()[range.clone()];
        let (alpha, d_score) = (&attention[range.clone()], &mut d_score[range]);
        let mut mean = L::Quad::splat(0.0);
        for ((&j, alpha), d) in sources.iter().zip(alpha).zip(d_score.iter_mut()) {
            let d_alpha = head_dots::<L, V>(&g, sent(&h[j as usize]));
            mean = mean.add(L::Quad::load(alpha).mul(d_alpha));
            d_alpha.store(d);
        }
        for ((alpha, &relation), d) in alpha.iter().zip(relation_of).zip(d_score) {
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
