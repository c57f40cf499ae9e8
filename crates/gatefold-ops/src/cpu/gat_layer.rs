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
        NodeId,
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
    gat_layer_kernel::{Block, Numbers, Trace, backward_blocks, counts_before, forward_blocks},
    gat_parts::{for_parts, of_heads},
    kept::Kept,
    level::level,
    panels::{Matrix, Panels},
    prefetch::{Soon, prefetch},
    scratch::Scratch,
    sgemm::{Init, gemm, gemm_unset},
    unset::{Part, Unset},
};
use crate::GatHeads;

pub(super) use super::gat_layer_kernel::Graphs;

/// Rows of a chunk, roughly: as many whole graphs as have so many.
const CHUNK: usize = 256;

/// Edges of a target, on average, from which on reading a row back costs less than adding it up again.
const MANY_EDGES: usize = 16;

/// `x`; `W` or the projected rows; then what is [`Learned`].
type Inputs<const N: usize> = [FlexTensor; N];

/// What is learned beside the rows: the weights of the scores, which are two in GAT (`N = 7`) and one in GATv2
/// (`N = 6`); the relation bias; gain and bias of the norm.
pub(super) type Learned = [FlexTensor];

/// What a layer is told beside its tensors.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) heads: GatHeads,
    pub(super) graphs: Graphs,
    pub(super) slope: f32,
    /// Whether the attention is to be seen.
    pub(super) traced: bool,
}

/// What a forward pass gives.
pub(super) struct Outcome {
    pub(super) out: FlexTensor,
    /// The projected rows, if they are kept.
    pub(super) projected: Option<Arc<Kept>>,
    pub(super) trace: Trace<Arc<Kept>>,
    pub(super) seen: Option<FlexTensor>,
}

/// What the backward pass needs.
#[derive(Debug, Clone)]
struct State<const N: usize> {
    inputs: Inputs<N>,
    /// Whether the second input is `W`.
    projects: bool,
    given: Given,
    /// `x W`, if it was computed here.
    projected: Option<Arc<Kept>>,
    trace: Trace<Arc<Kept>>,
}

/// How the work is cut.
pub(super) struct Work {
    /// Graphs, and graphs of a chunk.
    pub(super) batch: usize,
    pub(super) graphs: usize,
    /// Floating-point operations of the forward pass, roughly.
    pub(super) flops: usize,
}

/// So many at a time.
pub(super) fn cut(all: Range<usize>, many: usize) -> impl Iterator<Item = Range<usize>> {
    all.clone().step_by(many).map(move |first| first..all.end.min(first + many))
}

/// A layer over graphs in a batch of `batch`, each of `rows` rows; `product` are the floating-point operations that
/// make a row.
pub(super) fn block<'a>(
    learned: &'a Learned,
    given: &'a Given,
    [batch, rows]: [usize; 2],
    product: usize,
) -> (Block<'a>, Work) {
    let [weights @ .., relation_bias, gain, bias] = learned else { unreachable!("a norm has two") };
    let sources = batch * rows;
    let (batch, graphs) = match &given.graphs {
        Graphs::Same(_) => (batch, (CHUNK / rows.max(1)).max(1)),
        Graphs::Each(graphs) => (graphs.len(), 1),
    };
    let layer = Layer::new(weights, relation_bias, given.graphs.edges(0), given.slope);
    let before = counts_before(&given.graphs, batch);
    let all = before[batch];
    debug_assert_eq!(sources, all.sources);
    let flops = layer.flops_of(all.sources + all.targets, all.edges) + product * all.sources;
    (
        Block {
            layer,
            heads: given.heads,
            gain: floats(gain),
            bias: floats(bias),
            graphs: &given.graphs,
            before,
        },
        Work { batch, graphs, flops },
    )
}

/// The block of a layer on rows in memory.
fn block_of<'a, const N: usize>(
    inputs: &'a Inputs<N>,
    projects: bool,
    given: &'a Given,
) -> (Block<'a>, Work) {
    let ([batch, rows, _], second) = (dims(&inputs[0]), &inputs[1]);
    // As many as the numbers of W, if that is what it is.
    let product = if projects { 2 * second.shape().num_elements() } else { 0 };
    block(&inputs[2..], given, [batch, rows], product)
}

/// What a forward pass keeps for the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Nothing,
    /// All but the projected rows.
    Trace,
    TraceAndProjected,
}

/// A chunk of graphs forward.
pub(super) struct Chunk<'a> {
    graphs: Range<usize>,
    /// What there is before its graphs, and up to their end.
    pub(super) ends: [Numbers; 2],
    /// Where its projected rows are kept; empty if they are not.
    pub(super) kept: &'a mut [f32],
    y: Part<'a>,
    trace: Trace<&'a mut [f32]>,
}

impl Chunk<'_> {
    /// Fills it from `x` and the projected rows.
    pub(super) fn fill(self, block: &Block<'_>, rows: [&[f32]; 2]) {
        forward_blocks(block, self.graphs, rows, self.y, self.trace);
    }
}

/// The layer's new rows and attention, and as a tensor if it is to be seen; `fill` fills every chunk.
pub(super) fn forward(
    (block, work): &(Block<'_>, Work),
    given: &Given,
    keep: Keep,
    fill: impl Fn(Chunk<'_>) + Sync + Send,
) -> Outcome {
    let all = block.before[work.batch];
    let (numbers, width) = (block.numbers(all), block.gain.len());
    let mut out = Unset::new(numbers.y);
    let mut attention = Kept::new(numbers.attention);
    let mut kept = (keep == Keep::TraceAndProjected).then(|| Kept::new(numbers.h));
    let many_edges = all.edges >= MANY_EDGES * all.targets;
    let mut met = Kept::new(if keep != Keep::Nothing && many_edges { numbers.y } else { 0 });
    let mut moments = Kept::new(numbers.moments);
    let mut rest_y = out.whole();
    if !rest_y.is_empty() {
        let mut tasks = Vec::with_capacity(work.batch.div_ceil(work.graphs));
        let mut rest_h = kept.as_deref_mut().unwrap_or_default();
        let (mut rest_attention, mut rest_moments, mut rest_met) =
            (&mut attention[..], &mut moments[..], &mut met[..]);
        for graphs in cut(0..work.batch, work.graphs) {
            let ends @ [start, end] = &block.ends(&graphs);
            let y = rest_y.take(end.y - start.y);
            let (kept, attention, moments, met);
            (kept, rest_h) = rest_h.split_at_mut(if rest_h.is_empty() { 0 } else { end.h - start.h });
            (attention, rest_attention) = rest_attention.split_at_mut(end.attention - start.attention);
            (moments, rest_moments) = rest_moments.split_at_mut(end.moments - start.moments);
            (met, rest_met) = rest_met.split_at_mut(if rest_met.is_empty() { 0 } else { end.y - start.y });
            tasks.push(Chunk { graphs, ends: *ends, kept, y, trace: Trace { attention, moments, met } });
        }
        map_tasks(tasks, work.flops, fill);
    }
    let [batch, targets, edges] = match &given.graphs {
        Graphs::Same(edges) => [work.batch, edges.num_targets(), edges.num_edges()],
        Graphs::Each(_) => [1, all.targets, all.edges],
    };
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

/// [`forward`] on rows in memory, keeping what the backward pass needs or nothing.
fn run<const N: usize>(inputs: &Inputs<N>, projects: bool, given: &Given, keep: bool) -> Outcome {
    let layer = block_of(inputs, projects, given);
    let (block, work) = &layer;
    let (width, row) = (block.gain.len(), block.layer.row());
    let (first, second) = (floats(&inputs[0]), floats(&inputs[1]));
    if !projects {
        let keep = if keep { Keep::Trace } else { Keep::Nothing };
        return forward(&layer, given, keep, |chunk| {
            let [start, end] = chunk.ends;
            chunk.fill(block, [&first[start.x..end.x], &second[start.h..end.h]]);
        });
    }
    let panels = Panels::new(Matrix::new(second, width, row), block.before[work.batch].sources);
    let keep = if keep { Keep::TraceAndProjected } else { Keep::Nothing };
    forward(&layer, given, keep, |mut chunk| {
        let [start, end] = chunk.ends;
        let kept = std::mem::take(&mut chunk.kept);
        let mut passing = Scratch::new(if kept.is_empty() { end.h - start.h } else { 0 });
        let h = if kept.is_empty() { &mut passing[..] } else { kept };
        let x = &first[start.x..end.x];
        gemm(level(), Matrix::new(x, x.len() / width, width), &panels, Init::Zero, h, |_| {});
        chunk.fill(block, [x, h]);
    })
}

/// The inputs as kernels read them; the last are what is [`Learned`].
pub(super) fn ready<const N: usize>(inputs: Inputs<N>, first_learned: usize) -> Inputs<N> {
    let mut inputs = inputs.map(row_major);
    inputs[N - 3] = for_parts(inputs[N - 3].clone(), &inputs[first_learned]);
    inputs
}

/// [`crate::gat_layer`] on Flex, whose second input is `W` or the projected rows: nothing is kept.
pub(super) fn flex<const N: usize>(
    inputs: Inputs<N>,
    projects: bool,
    given: Given,
) -> (FlexTensor, Option<FlexTensor>) {
    let Outcome { out, seen, .. } = run(&ready(inputs, 2), projects, &given, false);
    (out, seen)
}

/// Registers the gradients of what is [`Learned`], which `rest` has one after the other.
pub(super) fn register_learned(
    grads: &mut Gradients,
    nodes: impl Iterator<Item = Option<NodeId>>,
    learned: &Learned,
    parts: usize,
    mut rest: Vec<f32>,
) {
    for (i, (node, input)) in nodes.zip(learned).enumerate() {
        let mut shape = input.shape();
        let after = rest.split_off(shape.num_elements());
        let mut gradient = std::mem::replace(&mut rest, after);
        let Some(node) = node else { continue };
        if i + 3 == learned.len() {
            gradient = of_heads(gradient, parts);
            shape[1] /= parts;
        }
        grads.register::<Flex>(node, tensor(gradient, [shape.num_elements()]).reshape(shape));
    }
}

/// An untracked tensor of a tracked one's kind.
pub(super) fn untracked<C: CheckpointStrategy>(seen: FlexTensor) -> Tracked<C> {
    unwrap(Tensor::<Autodiff<Flex, C>, 3>::from_inner(wrap::<Flex, 3>(seen)))
}

#[derive(Debug)]
struct GatLayer;

impl<const N: usize> Backward<Flex, N> for GatLayer {
    type State = State<N>;

    fn backward(self, ops: Ops<State<N>, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let whole_g = row_major(grads.consume::<Flex>(&ops.node));
        let State { inputs, projects, given, projected, trace } = &ops.state;
        let projects = *projects;
        let (block, work) = block_of(inputs, projects, given);
        let [_, _, width] = dims(&inputs[0]);
        let (row, all) = (block.layer.row(), block.before[work.batch]);
        let numbers = block.numbers(all);
        let wants = |input: usize| ops.parents[input].is_some();
        let (wants_weight, wants_product) = (projects && wants(1), projects && wants(0));
        // The new rows' gradient is also that of the rows of `x` that they are: all of it, if `x` is not
        // projected here.
        let is_g = !projects && block.rows_stay(0..work.batch);
        let mut d_x = Unset::new(if wants(0) && !is_g { numbers.x } else { 0 });
        let mut d_rows = Unset::new(if projects { 0 } else { numbers.h });
        let weight = || Matrix::new(floats(&inputs[1]), width, row).t();
        let panels = wants_product.then(|| Panels::new(weight(), all.sources));
        let h = projected.as_ref().map_or_else(|| floats(&inputs[1]), |projected| &projected[..]);
        let (x, g) = (floats(&inputs[0]), floats(&whole_g));
        let trace = trace.each_ref().map(|kept| &kept[..]);

        let mut tasks = Vec::new();
        let (mut rest_x, mut rest_rows) = (d_x.whole(), d_rows.whole());
        for graphs in cut(0..work.batch, work.graphs).filter(|_| numbers.y > 0) {
            let [start, end] = block.ends(&graphs);
            let of_x = rest_x.take(if rest_x.is_empty() { 0 } else { end.x - start.x });
            let of_rows = rest_rows.take(if rest_rows.is_empty() { 0 } else { end.h - start.h });
            tasks.push((graphs, of_x, of_rows));
        }
        // Without new rows there is no task.
        for rest in [rest_x, rest_rows] {
            rest.cleared();
        }
        let parts = map_tasks(tasks, 3 * work.flops, |(graphs, d_x, d_rows)| {
            let [start, end] = block.ends(&graphs);
            let mut d_parameters = vec![0.0; block.num_parameters()];
            let mut d_weight = Unset::new(if wants_weight { width * row } else { 0 });
            let mut passing = Scratch::new(if projects { end.h - start.h } else { 0 });
            let d_h = if projects { &mut passing[..] } else { d_rows.cleared() };
            let (of_h, of_g) = (&h[start.h..end.h], &g[start.y..end.y]);
            let of_trace = trace.between(&[start, end]);
            backward_blocks(&block, graphs.clone(), of_h, of_trace, of_g, d_h, &mut d_parameters);
            let mut soon = [Soon::default(); 2];
            if graphs.end < work.batch {
                let of = |last: usize| block.numbers(block.before[work.batch.min(last)]);
                let (first, chunk) = (of(graphs.end + 1), of(graphs.end + work.graphs));
                prefetch(&trace.attention[end.attention..first.attention]);
                if projects {
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
        if let Some(node) = &ops.parents[0] {
            let d_x = if is_g { whole_g } else { tensor(d_x.finish(), dims::<3>(&inputs[0])) };
            grads.register::<Flex>(node.id, d_x);
        }
        if let Some(node) = &ops.parents[1] {
            let d_rows = if projects { add_parts(weights, width * row) } else { d_rows.finish() };
            let count = d_rows.len();
            grads.register::<Flex>(node.id, tensor(d_rows, [count]).reshape(inputs[1].shape()));
        }
        let rest = add_parts(parameters, block.num_parameters());
        let nodes = ops.parents[2..].iter().map(|node| node.as_ref().map(|node| node.id));
        register_learned(grads, nodes, &inputs[2..], block.layer.parts, rest);
    }
}

/// [`crate::gat_layer`] on Flex with its gradient.
pub(super) fn autodiff<C: CheckpointStrategy, const N: usize>(
    inputs: [Tracked<C>; N],
    projects: bool,
    given: Given,
) -> (Tracked<C>, Option<Tracked<C>>) {
    let nodes = inputs.each_ref().map(|input| input.node.clone());
    let inputs = ready(inputs.map(|input| input.primitive), 2);
    let Outcome { out, projected, trace, seen } = run(&inputs, projects, &given, true);
    let out = match GatLayer.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(State { inputs, projects, given, projected, trace }, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    };
    (out, seen.map(untracked::<C>))
}
