//! A graph attention layer in one pass over each chunk of graphs, and its backward pass.
//!
//! A chunk's projected rows stay in cache from the product to the norm. Kept for the backward pass are,
//! beside the inputs, those rows and the attention; what attention makes of them is computed again. A
//! rollout keeps nothing.

// B batch, S source rows, T target rows, E edges, H heads, C width of a head, D width of a node

use std::sync::Arc;

use burn::backend::{
    Autodiff, Flex,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    flex::FlexTensor,
};
use burn::tensor::{Tensor, TensorMetadata};

use super::{
    chunks::{add_parts, map_tasks},
    flat::{Tracked, dims, floats, row_major, tensor, unwrap, wrap},
    gat_kernel::{Layer, Scores},
    gat_layer_kernel::{Block, backward_blocks, forward_blocks},
    kept::Kept,
    level::level,
    prefetch::prefetch,
    scratch::Scratch,
    sgemm::{Init, Matrix, Panels, gemm},
};
use crate::{GatEdges, GatHeads};

/// Rows of a chunk, roughly: as many whole graphs as have so many.
const CHUNK: usize = 256;

/// `x`; `W` or the projected rows; the weights of the scores, which are two in GAT (`N = 7`) and one in
/// GATv2 (`N = 6`); the relation bias; gain and bias of the norm.
type Inputs<const N: usize> = [FlexTensor; N];

/// What a layer is told beside its tensors.
#[derive(Debug, Clone)]
pub(super) struct Given {
    /// Whether the second input is `W`.
    pub(super) projects: bool,
    pub(super) heads: GatHeads,
    pub(super) edges: GatEdges,
    pub(super) slope: f32,
}

/// What the backward pass needs.
#[derive(Debug, Clone)]
struct State<const N: usize> {
    inputs: Inputs<N>,
    given: Given,
    /// `x W`, if it was computed here.
    projected: Option<Arc<Kept>>,
    attention: FlexTensor,
}

/// The sizes of a graph and of a chunk of graphs.
struct Sizes {
    /// Graphs of a chunk.
    graphs: usize,
    /// Elements of one graph's `x`, projected rows, new rows and attention.
    x: usize,
    h: usize,
    y: usize,
    attention: usize,
    /// Floating-point operations of the forward pass, roughly.
    flops: usize,
}

fn block<'a, const N: usize>(inputs: &'a Inputs<N>, given: &'a Given) -> (Block<'a>, Sizes) {
    let weights = &inputs[2..N - 3];
    let [heads, channels] = dims(&weights[0]);
    let [batch, rows, width] = dims(&inputs[0]);
    let edges = &given.edges;
    let layer = Layer {
        scores: match weights {
            [a_src, a_dst] => Scores::Gat { a_src: floats(a_src), a_dst: floats(a_dst) },
            [a] => Scores::Gatv2 { a: floats(a) },
            _ => unreachable!("attention has one or two weights of scores"),
        },
        relation_bias: floats(&inputs[N - 3]),
        edges,
        slope: given.slope,
        heads,
        channels,
    };
    let product = if given.projects { 2 * rows * width * layer.row() } else { 0 };
    let sizes = Sizes {
        graphs: (CHUNK / rows.max(1)).max(1),
        x: rows * width,
        h: rows * layer.row(),
        y: edges.num_targets() * width,
        attention: edges.num_edges() * heads,
        flops: layer.flops(batch) + batch * product,
    };
    let gain = floats(&inputs[N - 2]);
    (Block { layer, heads: given.heads, gain, bias: floats(&inputs[N - 1]) }, sizes)
}

/// The layer's new rows and attention; `keep` the projected rows or do without them.
fn run<const N: usize>(
    inputs: &Inputs<N>,
    given: &Given,
    keep: bool,
) -> (FlexTensor, FlexTensor, Option<Arc<Kept>>) {
    let (block, sizes) = block(inputs, given);
    let [batch, rows, width] = dims(&inputs[0]);
    let row = block.layer.row();
    let mut out = vec![0.0; batch * sizes.y];
    let mut attention = vec![0.0; batch * sizes.attention];
    let mut kept = (keep && given.projects).then(|| Kept::new(batch * sizes.h));
    let second = floats(&inputs[1]);
    if !out.is_empty() {
        let panels = given.projects.then(|| Panels::new(Matrix::new(second, width, row), batch * rows));
        let mut tasks = Vec::with_capacity(batch.div_ceil(sizes.graphs));
        let mut rest_h = kept.as_deref_mut().unwrap_or_default();
        let mut rest_attention = &mut attention[..];
        for (chunk, y) in out.chunks_mut(sizes.graphs * sizes.y).enumerate() {
            let count = y.len() / sizes.y;
            let (h, alpha);
            (h, rest_h) = rest_h.split_at_mut(if rest_h.is_empty() { 0 } else { count * sizes.h });
            (alpha, rest_attention) = rest_attention.split_at_mut(count * sizes.attention);
            tasks.push((chunk * sizes.graphs..chunk * sizes.graphs + count, h, y, alpha));
        }
        map_tasks(tasks, sizes.flops, |(graphs, h, y, alpha)| {
            let x = &floats(&inputs[0])[graphs.start * sizes.x..graphs.end * sizes.x];
            let Some(panels) = &panels else {
                forward_blocks(&block, x, &second[graphs.start * sizes.h..graphs.end * sizes.h], y, alpha);
                return;
            };
            let mut passing = Scratch::new(if h.is_empty() { graphs.len() * sizes.h } else { 0 });
            let h = if h.is_empty() { &mut passing[..] } else { h };
            let x_rows = Matrix::new(x, graphs.len() * rows, width);
            gemm(level(), x_rows, panels, Init::Zero, h, |_| {});
            forward_blocks(&block, x, h, y, alpha);
        });
    }
    let attention = tensor(attention, [batch, given.edges.num_edges(), block.layer.heads]);
    (tensor(out, [batch, given.edges.num_targets(), width]), attention, kept.map(Arc::new))
}

/// [`crate::gat_layer`] on Flex: nothing is kept.
pub(super) fn flex<const N: usize>(inputs: Inputs<N>, given: Given) -> (FlexTensor, FlexTensor) {
    let (out, attention, _) = run(&inputs.map(row_major), &given, false);
    (out, attention)
}

#[derive(Debug)]
struct GatLayer;

impl<const N: usize> Backward<Flex, N> for GatLayer {
    type State = State<N>;

    fn backward(self, ops: Ops<State<N>, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let State { inputs, given, projected, attention } = &ops.state;
        let (block, sizes) = block(inputs, given);
        let [batch, rows, width] = dims(&inputs[0]);
        let row = block.layer.row();
        let wants = |input: usize| ops.parents[input].is_some();
        let (wants_weight, wants_product) = (given.projects && wants(1), given.projects && wants(0));
        let mut d_x = vec![0.0; if wants(0) { batch * sizes.x } else { 0 }];
        let mut d_rows = vec![0.0; if given.projects { 0 } else { batch * sizes.h }];
        let weight = || Matrix::new(floats(&inputs[1]), width, row).t();
        let panels = wants_product.then(|| Panels::new(weight(), batch * rows));
        let h = projected.as_ref().map_or_else(|| floats(&inputs[1]), |projected| &projected[..]);

        let mut tasks = Vec::new();
        let (mut rest_x, mut rest_rows) = (&mut d_x[..], &mut d_rows[..]);
        for first in (0..if sizes.y == 0 { 0 } else { batch }).step_by(sizes.graphs) {
            let graphs = first..batch.min(first + sizes.graphs);
            let (of_x, of_rows);
            (of_x, rest_x) = rest_x.split_at_mut(if rest_x.is_empty() { 0 } else { graphs.len() * sizes.x });
            (of_rows, rest_rows) =
                rest_rows.split_at_mut(if rest_rows.is_empty() { 0 } else { graphs.len() * sizes.h });
            tasks.push((graphs, of_x, of_rows));
        }
        let parts = map_tasks(tasks, 3 * sizes.flops, |(graphs, d_x, d_rows)| {
            let part = |size: usize| graphs.start * size..graphs.end * size;
            let mut d_parameters = vec![0.0; block.num_parameters()];
            let mut d_weight = vec![0.0; if wants_weight { width * row } else { 0 }];
            let mut passing = Scratch::new(if given.projects { graphs.len() * sizes.h } else { 0 });
            passing.fill(0.0);
            let d_h = if given.projects { &mut passing[..] } else { d_rows };
            let (g, attention) = (floats(&g), floats(attention));
            let (of_g, of_attention) = (&g[part(sizes.y)], &attention[part(sizes.attention)]);
            backward_blocks(&block, &h[part(sizes.h)], of_attention, of_g, d_h, &mut d_parameters);
            if graphs.end < batch {
                // The next chunk's first graph comes while the products of this one are computed.
                prefetch(&h[graphs.end * sizes.h..][..sizes.h]);
                prefetch(&attention[graphs.end * sizes.attention..][..sizes.attention]);
                prefetch(&g[graphs.end * sizes.y..][..sizes.y]);
            }
            let count = graphs.len() * rows;
            if let Some(panels) = &panels {
                gemm(level(), Matrix::new(d_h, count, row), panels, Init::Zero, d_x, |_| {});
            }
            if !d_x.is_empty() {
                block.add_residual(of_g, d_x);
            }
            if wants_weight {
                let (x, d_h) = (&floats(&inputs[0])[part(sizes.x)], Matrix::new(d_h, count, row));
                let x = Matrix::new(x, count, width).t();
                gemm(level(), x, &Panels::new(d_h, width), Init::Zero, &mut d_weight, |_| {});
            }
            (d_parameters, d_weight)
        });
        let (parameters, weights): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let mut rest = add_parts(parameters, block.num_parameters());
        let register = |grads: &mut Gradients, input: usize, gradient: Vec<f32>| {
            if let Some(node) = &ops.parents[input] {
                let shape = inputs[input].shape();
                let gradient = tensor(gradient, [shape.num_elements()]);
                grads.register::<Flex>(node.id, gradient.reshape(shape));
            }
        };
        register(grads, 0, d_x);
        register(grads, 1, if given.projects { add_parts(weights, width * row) } else { d_rows });
        for input in 2..N {
            let after = rest.split_off(inputs[input].shape().num_elements());
            register(grads, input, std::mem::replace(&mut rest, after));
        }
    }
}

/// [`crate::gat_layer`] on Flex with its gradient.
pub(super) fn autodiff<C: CheckpointStrategy, const N: usize>(
    inputs: [Tracked<C>; N],
    given: Given,
) -> (Tracked<C>, Tracked<C>) {
    let nodes = inputs.each_ref().map(|input| input.node.clone());
    let inputs = inputs.map(|input| row_major(input.primitive));
    let (out, attention, projected) = run(&inputs, &given, true);
    let seen = wrap::<Flex, 3>(attention.clone());
    let out = match GatLayer.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(State { inputs, given, projected, attention }, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    };
    (out, unwrap(Tensor::<Autodiff<Flex, C>, 3>::from_inner(seen)))
}
