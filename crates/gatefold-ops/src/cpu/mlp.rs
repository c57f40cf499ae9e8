//! A whole MLP as one operation: its rows in chunks, and its nodes in Burn's graph.

// R rows, L layers, I inputs, O outputs of a layer

use std::{borrow::Cow, sync::Arc};

use burn::backend::{
    Autodiff, Flex,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients as Grads,
        ops::{Backward, Ops, OpsKind},
    },
    flex::FlexTensor,
};
use burn::tensor::backend::Backend;

use super::{
    chunks::{add_parts, map_tasks, pays},
    flat::{Tracked, dims, floats, row_major, tensor, tensors, unwrap},
    linear::{self, CHUNK, Weight, piece},
    mlp_kernel::{
        Layer, Parameters, Shape, Wanted, backward_chunk, by_layer, flops, forward_rows, hidden_width,
        panels, shapes, turned,
    },
    scratch::Scratch,
    unset::Unset,
};
use crate::{FlatMlp, MlpLayer};

/// What the backward pass needs.
#[derive(Debug)]
struct State {
    x: FlexTensor,
    shapes: Vec<Shape>,
    parameters: Parameters,
    /// Results of all layers but the last: one chunk of rows after the other, in it layer by layer.
    hidden: Scratch,
    /// Sum of the hidden layers' widths.
    hidden_width: usize,
    y: FlexTensor,
}

impl State {
    /// Rows of x, of the hidden results and of `last` (y, or its gradient), chunk by chunk.
    fn chunks<'a>(&'a self, last: &'a [f32]) -> impl Iterator<Item = [&'a [f32]; 3]> {
        let [rows, inputs] = dims(&self.x);
        let (x, outputs) = (floats(&self.x), last.len() / rows.max(1));
        (0..rows).step_by(CHUNK).map(move |first| {
            let end = rows.min(first + CHUNK);
            let of = |all: &'a [f32], width: usize| &all[first * width..end * width];
            [of(x, inputs), of(&self.hidden, self.hidden_width), of(last, outputs)]
        })
    }
}

/// The results of the last layer alone.
fn evaluate(x: &[f32], shapes: &[Shape], parameters: &Parameters, rows: usize) -> Vec<f32> {
    let (inputs, outputs) = (shapes[0].inputs, shapes[shapes.len() - 1].outputs);
    let mut y = vec![0.0; rows * outputs];
    if y.is_empty() {
        return y;
    }
    let layers = &Layer::all(shapes, parameters);
    let flops = flops(layers, rows);
    let (panels, hidden_width, piece) = (panels(layers, rows), hidden_width(shapes), piece(rows, flops));
    let tasks = x.chunks(piece * inputs).zip(y.chunks_mut(piece * outputs)).collect();
    map_tasks(tasks, flops, |(x, y)| {
        let rows = y.len() / outputs;
        let mut hidden = Scratch::new(rows * hidden_width);
        forward_rows(x, layers, &panels, by_layer(&mut hidden, layers, rows), y);
    });
    y
}

/// The results of the hidden layers and of the last one.
fn forward(x: &[f32], shapes: &[Shape], parameters: &Parameters, rows: usize) -> (Scratch, Vec<f32>) {
    let (inputs, outputs) = (shapes[0].inputs, shapes[shapes.len() - 1].outputs);
    let hidden_width = hidden_width(shapes);
    let (mut hidden, mut y) = (Scratch::new(rows * hidden_width), vec![0.0; rows * outputs]);
    if y.is_empty() {
        return (hidden, y);
    }
    let layers = &Layer::all(shapes, parameters);
    let flops = flops(layers, rows);
    let (panels, piece) = (panels(layers, rows), piece(rows, flops));
    let mut tasks = Vec::with_capacity(rows.div_ceil(piece));
    let mut rest = &mut hidden[..];
    for (x, y) in x.chunks(CHUNK * inputs).zip(y.chunks_mut(CHUNK * outputs)) {
        let own;
        (own, rest) = rest.split_at_mut(y.len() / outputs * hidden_width);
        let of_layers = by_layer(own, layers, y.len() / outputs).into_iter().zip(shapes);
        let mut of_layers: Vec<_> =
            of_layers.map(|(of, shape)| of.chunks_mut(piece * shape.outputs)).collect();
        for (x, y) in x.chunks(piece * inputs).zip(y.chunks_mut(piece * outputs)) {
            let hidden: Vec<_> = of_layers.iter_mut().flat_map(Iterator::next).collect();
            tasks.push((x, hidden, y));
        }
    }
    map_tasks(tasks, flops, |(x, hidden, y)| forward_rows(x, layers, &panels, hidden, y));
    (hidden, y)
}

/// Gradients of x, where wanted, and of all parameters: of each layer's weight `[I, O]`, then of its bias
/// `[O]`, in one buffer.
struct Gradients {
    input: Vec<f32>,
    parameters: Vec<f32>,
}

fn backward(state: &State, g: &[f32], wanted: &Wanted) -> Gradients {
    let layers = &Layer::all(&state.shapes, &state.parameters);
    let [rows, inputs] = dims(&state.x);
    let num_parameters = state.shapes.iter().flat_map(Shape::sizes).sum();
    let flops = 2 * flops(layers, rows);
    if (1..=CHUNK).contains(&rows) && pays(flops) {
        return backward_by_layer(state, g, wanted, layers);
    }
    let mut d_x = vec![0.0; if wanted.input { rows * inputs } else { 0 }];
    let turned = turned(layers, rows, wanted.input);
    let mut rest = &mut d_x[..];
    let mut tasks = Vec::with_capacity(rows.div_ceil(CHUNK));
    let gradients = state.chunks(g).map(|[_, _, g]| g);
    for ([x, hidden, y], g) in state.chunks(floats(&state.y)).zip(gradients) {
        let own;
        (own, rest) = rest.split_at_mut(if wanted.input { x.len() } else { 0 });
        tasks.push(([x, hidden, y, g], own));
    }
    let parts = map_tasks(tasks, flops, |(data, d_x)| {
        let mut sums = vec![0.0; num_parameters];
        backward_chunk(data, layers, &turned, wanted, &mut sums, d_x);
        sums
    });
    Gradients { input: d_x, parameters: add_parts(parts, num_parameters) }
}

/// The backward pass of a single chunk, layer by layer, so that several threads have a part in it; with the same
/// bits.
fn backward_by_layer(state: &State, g: &[f32], wanted: &Wanted, layers: &[Layer<'_>]) -> Gradients {
    let [rows, _] = dims(&state.x);
    let mut parameters = vec![0.0; state.shapes.iter().flat_map(Shape::sizes).sum()];
    let mut g = Cow::Borrowed(g);
    let lowest = wanted.lowest().unwrap_or(layers.len());
    let (mut rest, mut end) = (&mut parameters[..], state.hidden.len());
    let mut y = floats(&state.y);
    for number in (lowest..layers.len()).rev() {
        let Layer { shape: Shape { inputs, outputs, act }, weight, .. } = layers[number];
        let [of_weight, of_bias] = layers[number].shape.sizes();
        let (d_weight, d_bias);
        (rest, d_bias) = rest.split_at_mut(rest.len() - of_bias);
        (rest, d_weight) = rest.split_at_mut(rest.len() - of_weight);
        let x = match number {
            0 => floats(&state.x),
            _ => &state.hidden[end - rows * inputs..end],
        };
        let mut below = Unset::new(if number > lowest || wanted.input { rows * inputs } else { 0 });
        let d_weight = if wanted.layers[number] { d_weight } else { &mut [] };
        let into = linear::Into { input: below.whole(), weight: d_weight, bias: d_bias };
        linear::backward_into(x, Weight::alone(weight), y, &g, [rows, inputs, outputs], act, into);
        (g, y, end) = (Cow::Owned(below.finish()), x, end.saturating_sub(rows * inputs));
    }
    Gradients { input: if wanted.input { g.into_owned() } else { Vec::new() }, parameters }
}

/// The last layer's results `[R, O]`, or as a `column` `[R]`.
fn results(y: Vec<f32>, rows: usize, shapes: &[Shape], column: bool) -> FlexTensor {
    let outputs = shapes[shapes.len() - 1].outputs;
    if column { tensor(y, [rows]) } else { tensor(y, [rows, outputs]) }
}

fn run(x: FlexTensor, shapes: Vec<Shape>, parameters: Parameters, column: bool) -> State {
    let x = row_major(x);
    let [rows, _] = dims(&x);
    let (hidden, y) = forward(floats(&x), &shapes, &parameters, rows);
    let y = results(y, rows, &shapes, column);
    State { x, hidden_width: hidden_width(&shapes), shapes, parameters, hidden, y }
}

fn run_without_gradient(
    x: FlexTensor,
    shapes: &[Shape],
    parameters: &Parameters,
    column: bool,
) -> FlexTensor {
    let x = row_major(x);
    let [rows, _] = dims(&x);
    results(evaluate(floats(&x), shapes, parameters, rows), rows, shapes, column)
}

/// Shape and parameters of a layer.
fn layer<B: Backend<FloatTensorPrimitive = T>, T>(
    layer: MlpLayer<B>,
    take: impl FnMut(T) -> FlexTensor,
) -> (Shape, [FlexTensor; 2]) {
    let [weight, bias] = [unwrap(layer.weight), unwrap(layer.bias)].map(take).map(row_major);
    let [inputs, outputs] = dims(&weight);
    (Shape { inputs, outputs, act: layer.activation }, [weight, bias])
}

/// [`crate::mlp`] on Flex.
pub(super) fn flex(x: FlexTensor, layers: Vec<MlpLayer<Flex>>) -> FlexTensor {
    let (shapes, each): (Vec<_>, _) = layers.into_iter().map(|of| layer(of, |t| t)).unzip();
    run_without_gradient(x, &shapes, &Parameters::Each(each), false)
}

/// A node with `N` parents: x, then weight and bias of each layer.
#[derive(Debug)]
struct Mlp<const N: usize>;

impl<const N: usize> Backward<Flex, N> for Mlp<N> {
    type State = Arc<State>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Grads, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let state = ops.state;
        let wanted = Wanted {
            input: ops.parents[0].is_some(),
            layers: ops.parents[1..].chunks(2).map(|pair| pair.iter().any(Option::is_some)).collect(),
        };
        let gradients = backward(&state, floats(&g), &wanted);
        let mut parents = ops.parents.into_iter();
        if let Some(node) = parents.next().flatten() {
            grads.register::<Flex>(node.id, tensor(gradients.input, dims::<2>(&state.x)));
        }
        let shapes: Vec<_> = state.shapes.iter().map(|shape| [shape.inputs, shape.outputs]).collect();
        let shapes = shapes.iter().flat_map(|shape| [&shape[..], &shape[1..]]);
        for (parent, gradient) in parents.zip(tensors(gradients.parameters, shapes)) {
            if let Some(node) = parent {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}

/// Most layers of one node.
const MOST_LAYERS: usize = 5;

/// [`crate::mlp`] on Flex with its gradient.
pub(super) fn autodiff<C: CheckpointStrategy>(
    x: Tracked<C>,
    mut layers: Vec<MlpLayer<Autodiff<Flex, C>>>,
) -> Tracked<C> {
    if layers.len() > MOST_LAYERS {
        let above = layers.split_off(MOST_LAYERS);
        return autodiff::<C>(autodiff::<C>(x, layers), above);
    }
    let count = layers.len();
    let mut nodes = vec![x.node];
    let take = |t: Tracked<C>| {
        nodes.push(t.node);
        t.primitive
    };
    let mut take = take;
    let (shapes, each) = layers.into_iter().map(|of| layer(of, &mut take)).unzip();
    let state = run(x.primitive, shapes, Parameters::Each(each), false);
    let y = state.y.clone();
    macro_rules! node {
        ($parents:literal) => {{
            let nodes: [_; $parents] = nodes.try_into().expect("x and two parameters for each layer");
            match Mlp::<$parents>.prepare::<C>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(prep) => prep.finish(Arc::new(state), y),
                OpsKind::UnTracked(prep) => prep.finish(y),
            }
        }};
    }
    match count {
        1 => node!(3),
        2 => node!(5),
        3 => node!(7),
        4 => node!(9),
        _ => node!(11),
    }
}

/// [`crate::flat_mlp`] on Flex; as a `column`, with the shape `[R]`.
pub(super) fn flex_flat(x: FlexTensor, parameters: FlexTensor, mlp: &FlatMlp, column: bool) -> FlexTensor {
    run_without_gradient(x, &shapes(mlp), &Parameters::Flat(row_major(parameters)), column)
}

#[derive(Debug)]
struct Flat;

impl Backward<Flex, 2> for Flat {
    type State = Arc<State>;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Grads, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let (state, [x, parameters]) = (ops.state, ops.parents);
        let wanted = Wanted { input: x.is_some(), layers: vec![parameters.is_some(); state.shapes.len()] };
        let gradients = backward(&state, floats(&g), &wanted);
        if let Some(node) = x {
            grads.register::<Flex>(node.id, tensor(gradients.input, dims::<2>(&state.x)));
        }
        if let Some(node) = parameters {
            let count = gradients.parameters.len();
            grads.register::<Flex>(node.id, tensor(gradients.parameters, [count]));
        }
    }
}

/// [`crate::flat_mlp`] on Flex with its gradient; as a `column`, with the shape `[R]`.
pub(super) fn autodiff_flat<C: CheckpointStrategy>(
    x: Tracked<C>,
    parameters: Tracked<C>,
    mlp: &FlatMlp,
    column: bool,
) -> Tracked<C> {
    let flat = Parameters::Flat(row_major(parameters.primitive));
    let state = run(x.primitive, shapes(mlp), flat, column);
    let y = state.y.clone();
    match Flat.prepare::<C>([x.node, parameters.node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(Arc::new(state), y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}
