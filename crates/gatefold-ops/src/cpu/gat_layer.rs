//! A graph attention layer in one pass over each chunk of graphs, and its backward pass.
//!
//! A chunk's projected rows stay in cache from the product to the norm. Kept for the backward pass are,
//! beside the inputs, those rows, the attention and the norm's moments; what attention makes of them is
//! computed again, unless targets have many edges. A rollout keeps nothing.

// B batch, S source rows, T target rows, E edges, H heads, C width of a head, D width of a node

use std::{ops::Range, sync::Arc};

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
    gat_kernel::Layer,
    gat_layer_kernel::{Block, Trace, backward_blocks, counts_before, forward_blocks},
    gat_parts::{for_parts, of_heads},
    kept::Kept,
    level::level,
    panels::{Matrix, Panels},
    prefetch::{Soon, prefetch},
    scratch::Scratch,
    sgemm::{Init, gemm, gemm_unset},
    unset::Unset,
};
use crate::GatHeads;

pub(super) use super::gat_layer_kernel::Graphs;

/// Rows of a chunk, roughly: as many whole graphs as have so many.
const CHUNK: usize = 256;

/// Edges of a target, on average, from which on reading a row back costs less than adding it up again.
const MANY_EDGES: usize = 16;

/// `x`; `W` or the projected rows; the weights of the scores, which are two in GAT (`N = 7`) and one in
/// GATv2 (`N = 6`); the relation bias; gain and bias of the norm.
type Inputs<const N: usize> = [FlexTensor; N];

/// What a layer is told beside its tensors.
#[derive(Debug, Clone)]
pub(super) struct Given {
    /// Whether the second input is `W`.
    pub(super) projects: bool,
    pub(super) heads: GatHeads,
    pub(super) graphs: Graphs,
    pub(super) slope: f32,
    /// Whether the attention is to be seen.
    pub(super) traced: bool,
}

/// What a forward pass gives.
struct Outcome {
    out: FlexTensor,
    projected: Option<Arc<Kept>>,
    trace: Trace<Arc<Kept>>,
    seen: Option<FlexTensor>,
}

/// What the backward pass needs.
#[derive(Debug, Clone)]
struct State<const N: usize> {
    inputs: Inputs<N>,
    given: Given,
    /// `x W`, if it was computed here.
    projected: Option<Arc<Kept>>,
    trace: Trace<Arc<Kept>>,
}

/// How the work is cut.
struct Work {
    /// Graphs, and graphs of a chunk.
    batch: usize,
    graphs: usize,
    /// Floating-point operations of the forward pass, roughly.
    flops: usize,
}

impl Work {
    /// The graphs of each chunk.
    fn chunks(&self) -> impl Iterator<Item = Range<usize>> {
        let (batch, graphs) = (self.batch, self.graphs);
        (0..batch).step_by(graphs).map(move |first| first..batch.min(first + graphs))
    }
}

fn block<'a, const N: usize>(inputs: &'a Inputs<N>, given: &'a Given) -> (Block<'a>, Work) {
    let [batch, rows, width] = dims(&inputs[0]);
    let (batch, graphs) = match &given.graphs {
        Graphs::Same(_) => (batch, (CHUNK / rows.max(1)).max(1)),
        Graphs::Each(graphs) => (graphs.len(), 1),
    };
    let edges = given.graphs.edges(0);
    let layer = Layer::new(&inputs[2..N - 3], &inputs[N - 3], edges, given.slope);
    let (gain, bias) = (floats(&inputs[N - 2]), floats(&inputs[N - 1]));
    let before = counts_before(&given.graphs, batch);
    let all = before[batch];
    let product = if given.projects { 2 * all.sources * width * layer.row() } else { 0 };
    let flops = layer.flops_of(all.sources + all.targets, all.edges) + product;
    (
        Block { layer, heads: given.heads, gain, bias, graphs: &given.graphs, before },
        Work { batch, graphs, flops },
    )
}

/// The layer's new rows and attention, and as a tensor if it is to be seen; `keep` the projected rows or do
/// without them.
fn run<const N: usize>(inputs: &Inputs<N>, given: &Given, keep: bool) -> Outcome {
    let (block, work) = block(inputs, given);
    let [batch, rows, width] = dims(&inputs[0]);
    let (row, all) = (block.layer.row(), block.before[work.batch]);
    let numbers = block.numbers(all);
    let mut out = Unset::new(numbers.y);
    let mut attention = Kept::new(numbers.attention);
    let mut kept = (keep && given.projects).then(|| Kept::new(numbers.h));
    let many_edges = all.edges >= MANY_EDGES * all.targets;
    let mut met = Kept::new(if keep && many_edges { numbers.y } else { 0 });
    let mut moments = Kept::new(numbers.moments);
    let (first, second) = (floats(&inputs[0]), floats(&inputs[1]));
    let mut rest_y = out.whole();
    if !rest_y.is_empty() {
        let panels = given.projects.then(|| Panels::new(Matrix::new(second, width, row), all.sources));
        let mut tasks = Vec::with_capacity(work.batch.div_ceil(work.graphs));
        let mut rest_h = kept.as_deref_mut().unwrap_or_default();
        let (mut rest_attention, mut rest_moments, mut rest_met) =
            (&mut attention[..], &mut moments[..], &mut met[..]);
        for graphs in work.chunks() {
            let [start, end] = [graphs.start, graphs.end].map(|graph| block.numbers(block.before[graph]));
            let y = rest_y.take(end.y - start.y);
            let (h, attention, moments, met);
            (h, rest_h) = rest_h.split_at_mut(if rest_h.is_empty() { 0 } else { end.h - start.h });
            (attention, rest_attention) = rest_attention.split_at_mut(end.attention - start.attention);
            (moments, rest_moments) = rest_moments.split_at_mut(end.moments - start.moments);
            (met, rest_met) = rest_met.split_at_mut(if rest_met.is_empty() { 0 } else { end.y - start.y });
            tasks.push((graphs, h, y, Trace { attention, moments, met }));
        }
        map_tasks(tasks, work.flops, |(graphs, h, y, trace)| {
            let [start, end] = [graphs.start, graphs.end].map(|graph| block.numbers(block.before[graph]));
            let x = &first[start.x..end.x];
            let Some(panels) = &panels else {
                forward_blocks(&block, graphs, [x, &second[start.h..end.h]], y, trace);
                return;
            };
            let mut passing = Scratch::new(if h.is_empty() { end.h - start.h } else { 0 });
            let h = if h.is_empty() { &mut passing[..] } else { h };
            let x_rows = Matrix::new(x, x.len() / width, width);
            gemm(level(), x_rows, panels, Init::Zero, h, |_| {});
            forward_blocks(&block, graphs, [x, h], y, trace);
        });
    }
    let [batch, targets, edges] = match &given.graphs {
        Graphs::Same(edges) => [batch, edges.num_targets(), edges.num_edges()],
        Graphs::Each(_) => [1, all.targets, all.edges],
    };
    debug_assert_eq!(batch * rows, all.sources);
    Outcome {
        out: tensor(out.finish(), [batch, targets, width]),
        projected: kept.map(Arc::new),
        seen: given.traced.then(|| {
            let [heads, _] = block.layer.whole_heads();
            tensor(of_heads(attention.to_vec(), block.layer.parts), [batch, edges, heads])
        }),
        trace: Trace { attention, moments, met }.map(Arc::new),
    }
}

/// The inputs as kernels read them.
fn ready<const N: usize>(inputs: Inputs<N>) -> Inputs<N> {
    let mut inputs = inputs.map(row_major);
    inputs[N - 3] = for_parts(inputs[N - 3].clone(), &inputs[2]);
    inputs
}

/// [`crate::gat_layer`] on Flex: nothing is kept.
pub(super) fn flex<const N: usize>(inputs: Inputs<N>, given: Given) -> (FlexTensor, Option<FlexTensor>) {
    let Outcome { out, seen, .. } = run(&ready(inputs), &given, false);
    (out, seen)
}

#[derive(Debug)]
struct GatLayer;

impl<const N: usize> Backward<Flex, N> for GatLayer {
    type State = State<N>;

    fn backward(self, ops: Ops<State<N>, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let whole_g = row_major(grads.consume::<Flex>(&ops.node));
        let State { inputs, given, projected, trace } = &ops.state;
        let (block, work) = block(inputs, given);
        let [_, _, width] = dims(&inputs[0]);
        let (row, all) = (block.layer.row(), block.before[work.batch]);
        let numbers = block.numbers(all);
        let wants = |input: usize| ops.parents[input].is_some();
        let (wants_weight, wants_product) = (given.projects && wants(1), given.projects && wants(0));
        // The new rows' gradient is also that of the rows of `x` that they are: all of it, if `x` is not
        // projected here.
        let is_g = !given.projects && block.rows_stay(0..work.batch);
        let mut d_x = Unset::new(if wants(0) && !is_g { numbers.x } else { 0 });
        let mut d_rows = Unset::new(if given.projects { 0 } else { numbers.h });
        let weight = || Matrix::new(floats(&inputs[1]), width, row).t();
        let panels = wants_product.then(|| Panels::new(weight(), all.sources));
        let h = projected.as_ref().map_or_else(|| floats(&inputs[1]), |projected| &projected[..]);
        let (x, g) = (floats(&inputs[0]), floats(&whole_g));
        let Trace { attention, moments, met } = trace.each_ref().map(|kept| &kept[..]);

        let mut tasks = Vec::new();
        let (mut rest_x, mut rest_rows) = (d_x.whole(), d_rows.whole());
        for graphs in work.chunks().filter(|_| numbers.y > 0) {
            let [start, end] = [graphs.start, graphs.end].map(|graph| block.numbers(block.before[graph]));
            let of_x = rest_x.take(if rest_x.is_empty() { 0 } else { end.x - start.x });
            let of_rows = rest_rows.take(if rest_rows.is_empty() { 0 } else { end.h - start.h });
            tasks.push((graphs, of_x, of_rows));
        }
        // Without new rows there is no task.
        for rest in [rest_x, rest_rows] {
            rest.cleared();
        }
        let parts = map_tasks(tasks, 3 * work.flops, |(graphs, d_x, d_rows)| {
            let [start, end] = [graphs.start, graphs.end].map(|graph| block.numbers(block.before[graph]));
            let mut d_parameters = vec![0.0; block.num_parameters()];
            let mut d_weight = Unset::new(if wants_weight { width * row } else { 0 });
            let mut passing = Scratch::new(if given.projects { end.h - start.h } else { 0 });
            let d_h = if given.projects { &mut passing[..] } else { d_rows.cleared() };
            let (of_h, of_g) = (&h[start.h..end.h], &g[start.y..end.y]);
            let trace = Trace {
                attention: &attention[start.attention..end.attention],
                moments: &moments[start.moments..end.moments],
                met: if met.is_empty() { &[] } else { &met[start.y..end.y] },
            };
            backward_blocks(&block, graphs.clone(), of_h, trace, of_g, d_h, &mut d_parameters);
            let mut soon = [Soon::default(); 2];
            if graphs.end < work.batch {
                let of = |last: usize| block.numbers(block.before[work.batch.min(last)]);
                let (first, chunk) = (of(graphs.end + 1), of(graphs.end + work.graphs));
                prefetch(&attention[end.attention..first.attention]);
                if given.projects {
                    // The next chunk comes while the products of this one are computed.
                    soon = [Soon::of(&h[end.h..chunk.h]), Soon::of(&g[end.y..chunk.y])];
                } else {
                    prefetch(&h[end.h..first.h]);
                    prefetch(&g[end.y..first.y]);
                }
            }
            let [soon, later] = soon;
            let count = d_h.len() / row;
            let of_h = Matrix::new(d_h, count, row).before(soon);
            match &panels {
                Some(panels) if block.rows_stay(graphs.clone()) => {
                    gemm_unset(level(), of_h, panels, Init::Rows(of_g), d_x, |_| {});
                }
                _ if d_x.is_empty() => {}
                _ => {
                    let d_x = d_x.cleared();
                    block.add_to_own_rows(graphs, of_g, d_x);
                    if let Some(panels) = &panels {
                        gemm(level(), of_h, panels, Init::Held, d_x, |_| {});
                    }
                }
            }
            if wants_weight {
                let x = Matrix::new(&x[start.x..end.x], count, width).t().before(later);
                let panels = Panels::new(Matrix::new(d_h, count, row), width);
                gemm_unset(level(), x, &panels, Init::Zero, d_weight.whole(), |_| {});
            }
            (d_parameters, d_weight.finish())
        });
        let (parameters, weights): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let mut rest = add_parts(parameters, block.num_parameters());
        let register = |grads: &mut Gradients, input: usize, mut gradient: Vec<f32>| {
            if let Some(node) = &ops.parents[input] {
                let mut shape = inputs[input].shape();
                if input == N - 3 {
                    gradient = of_heads(gradient, block.layer.parts);
                    shape[1] /= block.layer.parts;
                }
                let gradient = tensor(gradient, [shape.num_elements()]);
                grads.register::<Flex>(node.id, gradient.reshape(shape));
            }
        };
        if is_g {
            if let Some(node) = &ops.parents[0] {
                grads.register::<Flex>(node.id, whole_g);
            }
        } else {
            register(grads, 0, d_x.finish());
        }
        register(grads, 1, if given.projects { add_parts(weights, width * row) } else { d_rows.finish() });
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
) -> (Tracked<C>, Option<Tracked<C>>) {
    let nodes = inputs.each_ref().map(|input| input.node.clone());
    let inputs = ready(inputs.map(|input| input.primitive));
    let Outcome { out, projected, trace, seen } = run(&inputs, &given, true);
    let out = match GatLayer.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(State { inputs, given, projected, trace }, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    };
    let untracked = |seen| unwrap(Tensor::<Autodiff<Flex, C>, 3>::from_inner(wrap::<Flex, 3>(seen)));
    (out, seen.map(untracked))
}
