//! The loops of a whole graph attention layer after its projection: attention, heads, norm, residual.

// S source rows, T target rows, E edges, H heads, C channels of a head, D width of a node

use std::{ops::Range, sync::Arc};

use super::{
    gat_kernel::{Layer, aggregate, backward_graph, backward_scratch, forward_scratch, weigh},
    norm_relu_kernel::{self, Residual},
    prefetch::prefetch,
    scratch::Scratch,
    unset::Part,
};
use crate::{GatEdges, GatHeads};

/// The graphs of a batch.
#[derive(Debug, Clone)]
pub(super) enum Graphs {
    /// All the same, each on rows of its own.
    Same(GatEdges),
    /// Each another, their rows one after the other.
    Each(Arc<[GatEdges]>),
}

impl Graphs {
    /// The edges of a graph.
    pub(super) fn edges(&self, graph: usize) -> &GatEdges {
        match self {
            Self::Same(edges) => edges,
            Self::Each(graphs) => &graphs[graph],
        }
    }
}

/// How many source rows, target rows, edges and moments of target rows there are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) sources: usize,
    pub(super) targets: usize,
    pub(super) edges: usize,
    pub(super) moments: usize,
}

/// What all graphs of a batch share, and the graphs.
pub(super) struct Block<'a> {
    /// With the edges of the first graph.
    pub(super) layer: Layer<'a>,
    pub(super) heads: GatHeads,
    /// Of the norm, `[D]`.
    pub(super) gain: &'a [f32],
    pub(super) bias: &'a [f32],
    pub(super) graphs: &'a Graphs,
    /// What there is before each graph, and in all.
    pub(super) before: Vec<Counts>,
}

/// Counts before each of `batch` graphs, and in all.
pub(super) fn counts_before(graphs: &Graphs, batch: usize) -> Vec<Counts> {
    let mut before = Vec::with_capacity(batch + 1);
    let mut sum = Counts::default();
    before.push(sum);
    for graph in 0..batch {
        let edges = graphs.edges(graph);
        sum.sources += edges.num_sources();
        sum.targets += edges.num_targets();
        sum.edges += edges.num_edges();
        sum.moments += norm_relu_kernel::num_moments(edges.num_targets());
        before.push(sum);
    }
    before
}

impl<'a> Block<'a> {
    /// How many numbers are learned, the projection apart.
    pub(super) fn num_parameters(&self) -> usize {
        self.layer.num_parameters() + self.gain.len() + self.bias.len()
    }

    /// The layer on one of the graphs.
    fn on(&self, graph: usize) -> Layer<'a> {
        Layer { edges: self.graphs.edges(graph), ..self.layer }
    }

    /// Numbers of `x`, projected rows, new rows, attention and moments for such counts.
    pub(super) fn numbers(&self, counts: Counts) -> Numbers {
        Numbers {
            x: counts.sources * self.gain.len(),
            h: counts.sources * self.layer.row(),
            y: counts.targets * self.gain.len(),
            attention: counts.edges * self.layer.heads,
            moments: counts.moments,
        }
    }

    /// The numbers before some graphs, and up to their end.
    pub(super) fn ends(&self, graphs: &Range<usize>) -> [Numbers; 2] {
        [graphs.start, graphs.end].map(|graph| self.numbers(self.before[graph]))
    }

    /// Where the numbers of `graph` are in those of some graphs from `first` on.
    fn place(&self, graph: usize, first: usize) -> Place {
        let before = |graph: usize| self.numbers(self.before[graph]);
        let [origin, start, end] = [before(first), before(graph), before(graph + 1)];
        Place {
            x: start.x - origin.x..end.x - origin.x,
            h: start.h - origin.h..end.h - origin.h,
            y: start.y - origin.y..end.y - origin.y,
            attention: start.attention - origin.attention..end.attention - origin.attention,
            moments: start.moments - origin.moments..end.moments - origin.moments,
        }
    }

    /// Whether the new rows of some graphs are their rows of `x`, all of them and in order.
    pub(super) fn rows_stay(&self, mut graphs: Range<usize>) -> bool {
        let stay = |edges: &GatEdges| edges.targets_lead() && edges.num_targets() == edges.num_sources();
        graphs.all(|graph| stay(self.graphs.edges(graph)))
    }

    /// Adds the gradient of the new rows of some graphs to that of the rows of `x` that they are.
    pub(super) fn add_to_own_rows(&self, graphs: Range<usize>, g: &[f32], d_x: &mut [f32]) {
        let width = self.gain.len();
        for graph in graphs.clone() {
            let place = self.place(graph, graphs.start);
            let (g, d_x) = (&g[place.y], &mut d_x[place.x]);
            for (g, &row) in g.chunks_exact(width).zip(self.graphs.edges(graph).targets()) {
                for (d, g) in d_x[row as usize * width..][..width].iter_mut().zip(g) {
                    *d += g;
                }
            }
        }
    }
}

/// How many numbers there are of each kind.
#[derive(Clone, Copy)]
pub(super) struct Numbers {
    pub(super) x: usize,
    pub(super) h: usize,
    pub(super) y: usize,
    pub(super) attention: usize,
    pub(super) moments: usize,
}

/// Where the numbers of a graph are.
struct Place {
    x: Range<usize>,
    h: Range<usize>,
    y: Range<usize>,
    attention: Range<usize>,
    moments: Range<usize>,
}

/// What the backward pass needs of the forward pass beside the projected rows.
#[derive(Debug, Clone)]
pub(super) struct Trace<T> {
    pub(super) attention: T,
    /// Of the rows that the norm is of.
    pub(super) moments: T,
    /// Those rows, the heads put together; empty where they are computed again.
    pub(super) met: T,
}

impl<'a> Trace<&'a [f32]> {
    /// That of the rows between two places.
    pub(super) fn between(&self, [start, end]: &[Numbers; 2]) -> Trace<&'a [f32]> {
        Trace {
            attention: &self.attention[start.attention..end.attention],
            moments: &self.moments[start.moments..end.moments],
            met: if self.met.is_empty() { &[] } else { &self.met[start.y..end.y] },
        }
    }
}

impl<T> Trace<T> {
    pub(super) fn each_ref(&self) -> Trace<&T> {
        Trace { attention: &self.attention, moments: &self.moments, met: &self.met }
    }

    pub(super) fn map<U>(self, f: impl Fn(T) -> U) -> Trace<U> {
        Trace { attention: f(self.attention), moments: f(self.moments), met: f(self.met) }
    }
}

/// The rows of `x` that new rows are.
fn own_rows<'a>(edges: &'a GatEdges, x: &'a [f32]) -> Residual<'a> {
    if edges.targets_lead() { Residual::all(x) } else { Residual::picked(x, edges.targets()) }
}

/// Some graphs forward: new rows and what the backward pass needs, from `x` and its projected rows `h`.
pub(super) fn forward_blocks(
    block: &Block<'_>,
    graphs: Range<usize>,
    [x, h]: [&[f32]; 2],
    mut y: Part<'_>,
    trace: Trace<&mut [f32]>,
) {
    let Trace { attention, moments, met } = trace;
    for graph in graphs.clone() {
        let (layer, place) = (block.on(graph), block.place(graph, graphs.start));
        let (x, h, attention) = (&x[place.x], &h[place.h], &mut attention[place.attention]);
        let met = if met.is_empty() { &mut [] } else { &mut met[place.y.clone()] };
        let mut scratch = Scratch::new(forward_scratch(&layer));
        weigh(&layer, h, attention, &mut scratch);
        let new = layer.edges.num_targets() * layer.width();
        let mut passing = Scratch::new(if met.len() == new { 0 } else { new });
        let seen = if met.len() == new {
            aggregate(&layer, h, attention, met);
            &*met
        } else {
            aggregate(&layer, h, attention, &mut passing);
            let seen = block.put_together(&mut passing);
            if !met.is_empty() {
                met.copy_from_slice(seen);
            }
            seen
        };
        let (residual, moments) = (own_rows(layer.edges, x), &mut moments[place.moments]);
        norm_relu_kernel::forward_rows(
            seen,
            residual,
            block.gain,
            block.bias,
            moments,
            y.take(place.y.len()),
        );
    }
}

/// Some graphs backward: fills the gradient of the projected rows, adds to those of the parameters (the
/// weights of the scores, the relation bias, gain and bias, one after the other), from the projected rows `h`
/// and what [`forward_blocks`] left.
pub(super) fn backward_blocks(
    block: &Block<'_>,
    graphs: Range<usize>,
    h: &[f32],
    trace: Trace<&[f32]>,
    g: &[f32],
    d_h: &mut [f32],
    d_parameters: &mut [f32],
) {
    let Trace { attention, moments, met } = trace;
    let (of_scores, norm) = d_parameters.split_at_mut(block.layer.num_parameters());
    let (d_gain, d_bias) = norm.split_at_mut(block.gain.len());
    for graph in graphs.clone() {
        if graph + 1 < graphs.end {
            let next = block.place(graph + 1, graphs.start);
            prefetch(&h[next.h]);
            prefetch(&attention[next.attention]);
            prefetch(&g[next.y]);
        }
        let (layer, place) = (block.on(graph), block.place(graph, graphs.start));
        let new = layer.edges.num_targets() * layer.width();
        let mut scratch = Scratch::new(backward_scratch(&layer));
        let (mut seen, mut d_seen) = (Scratch::new(new), Scratch::new(new));
        let (h, d_h, attention) = (&h[place.h.clone()], &mut d_h[place.h], &attention[place.attention]);
        let g = &g[place.y.clone()];
        let put_together = if met.is_empty() {
            aggregate(&layer, h, attention, &mut seen);
            block.put_together(&mut seen)
        } else {
            &met[place.y]
        };
        let d = &mut d_seen[..g.len()];
        let [gain, bias, moments] = [block.gain, block.bias, &moments[place.moments]];
        norm_relu_kernel::backward_rows(put_together, moments, gain, bias, g, d, d_gain, d_bias);
        block.take_apart(&mut d_seen);
        backward_graph(&layer, h, attention, &d_seen, d_h, of_scores, &mut scratch);
    }
}

impl Block<'_> {
    /// The new rows of all heads `[T, H * C]` as rows `[T, D]`, at the front of the same memory.
    fn put_together<'a>(&self, seen: &'a mut [f32]) -> &'a [f32] {
        let [heads, channels] = self.layer.whole_heads();
        if self.heads == GatHeads::Concatenate {
            return seen;
        }
        let rows = seen.len() / (heads * channels);
        for row in 0..rows {
            for c in 0..channels {
                let sum: f32 = (0..heads).map(|k| seen[(row * heads + k) * channels + c]).sum();
                seen[row * channels + c] = sum / heads as f32;
            }
        }
        &seen[..rows * channels]
    }

    /// The backward pass of [`put_together`](Self::put_together), from the front of the same memory.
    fn take_apart(&self, d_seen: &mut [f32]) {
        let [heads, channels] = self.layer.whole_heads();
        if self.heads == GatHeads::Concatenate {
            return;
        }
        // From the last row on, so that no row is overwritten before it is read.
        for row in (0..d_seen.len() / (heads * channels)).rev() {
            for c in (0..channels).rev() {
                let d = d_seen[row * channels + c] / heads as f32;
                for k in (0..heads).rev() {
                    d_seen[(row * heads + k) * channels + c] = d;
                }
            }
        }
    }
}
