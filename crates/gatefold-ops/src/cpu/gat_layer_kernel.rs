//! The loops of a whole graph attention layer after its projection: attention, heads, norm, residual.

// S source rows, T target rows, E edges, H heads, C channels of a head, D width of a node

use super::{
    gat_kernel::{Layer, aggregate, backward_graph, backward_scratch, forward_scratch, weigh},
    norm_relu_kernel,
    prefetch::prefetch,
    scratch::Scratch,
};
use crate::GatHeads;

/// What all graphs of a batch share.
pub(super) struct Block<'a> {
    pub(super) layer: Layer<'a>,
    pub(super) heads: GatHeads,
    /// Of the norm, `[D]`.
    pub(super) gain: &'a [f32],
    pub(super) bias: &'a [f32],
}

impl Block<'_> {
    /// How many numbers are learned, the projection apart.
    pub(super) fn num_parameters(&self) -> usize {
        self.layer.num_parameters() + self.gain.len() + self.bias.len()
    }

    /// Elements of `x` and of the new rows of one graph.
    fn sizes(&self) -> [usize; 2] {
        let (edges, width) = (self.layer.edges, self.gain.len());
        [edges.num_sources() * width, edges.num_targets() * width]
    }

    /// Adds the gradient of new rows to that of the rows of `x` that they are.
    pub(super) fn add_residual(&self, g: &[f32], d_x: &mut [f32]) {
        let (width, [of_x, of_new]) = (self.gain.len(), self.sizes());
        for (g, d_x) in g.chunks_exact(of_new).zip(d_x.chunks_exact_mut(of_x)) {
            for (g, &row) in g.chunks_exact(width).zip(self.layer.edges.targets()) {
                for (d, g) in d_x[row as usize * width..][..width].iter_mut().zip(g) {
                    *d += g;
                }
            }
        }
    }
}

/// Some graphs forward: new rows and attention, from `x` and its projected rows `h`.
pub(super) fn forward_blocks(block: &Block<'_>, x: &[f32], h: &[f32], y: &mut [f32], attention: &mut [f32]) {
    let layer = &block.layer;
    let edges = layer.edges;
    let (width, [of_x, of_new]) = (block.gain.len(), block.sizes());
    let (of_h, of_attention) = (edges.num_sources() * layer.row(), edges.num_edges() * layer.heads);
    let mut scratch = Scratch::new(forward_scratch(layer));
    let mut seen = Scratch::new(edges.num_targets() * layer.width());
    for (graph, y) in y.chunks_exact_mut(of_new).enumerate() {
        let x = &x[graph * of_x..(graph + 1) * of_x];
        let h = &h[graph * of_h..(graph + 1) * of_h];
        let attention = &mut attention[graph * of_attention..(graph + 1) * of_attention];
        weigh(layer, h, attention, &mut scratch);
        aggregate(layer, h, attention, &mut seen);
        for (y, &row) in y.chunks_exact_mut(width).zip(edges.targets()) {
            y.copy_from_slice(&x[row as usize * width..][..width]);
        }
        let seen = block.put_together(&mut seen);
        norm_relu_kernel::forward_rows(seen, block.gain, block.bias, y);
    }
}

/// Some graphs backward: adds to the gradients of the projected rows and of the parameters (the weights
/// of the scores, the relation bias, gain and bias, one after the other).
pub(super) fn backward_blocks(
    block: &Block<'_>,
    h: &[f32],
    attention: &[f32],
    g: &[f32],
    d_h: &mut [f32],
    d_parameters: &mut [f32],
) {
    let layer = &block.layer;
    let edges = layer.edges;
    let [_, of_new] = block.sizes();
    let (of_h, of_attention) = (edges.num_sources() * layer.row(), edges.num_edges() * layer.heads);
    let (of_scores, norm) = d_parameters.split_at_mut(layer.num_parameters());
    let (d_gain, d_bias) = norm.split_at_mut(block.gain.len());
    let mut scratch = Scratch::new(backward_scratch(layer));
    let mut seen = Scratch::new(edges.num_targets() * layer.width());
    let mut d_seen = Scratch::new(edges.num_targets() * layer.width());
    let graphs = h.len() / of_h;
    for (graph, d_h) in d_h.chunks_exact_mut(of_h).enumerate() {
        if graph + 1 < graphs {
            prefetch(&h[(graph + 1) * of_h..][..of_h]);
            prefetch(&attention[(graph + 1) * of_attention..][..of_attention]);
            prefetch(&g[(graph + 1) * of_new..][..of_new]);
        }
        let h = &h[graph * of_h..(graph + 1) * of_h];
        let g = &g[graph * of_new..(graph + 1) * of_new];
        let attention = &attention[graph * of_attention..(graph + 1) * of_attention];
        aggregate(layer, h, attention, &mut seen);
        let put_together = block.put_together(&mut seen);
        let d = &mut d_seen[..of_new];
        norm_relu_kernel::backward_rows(put_together, block.gain, block.bias, g, d, d_gain, d_bias);
        block.take_apart(&mut d_seen);
        backward_graph(layer, h, attention, &d_seen, d_h, of_scores, &mut scratch);
    }
}

impl Block<'_> {
    /// The new rows of all heads `[T, H * C]` as rows `[T, D]`, at the front of the same memory.
    fn put_together<'a>(&self, seen: &'a mut [f32]) -> &'a [f32] {
        let (heads, channels) = (self.layer.heads, self.layer.channels);
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
        let (heads, channels) = (self.layer.heads, self.layer.channels);
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
