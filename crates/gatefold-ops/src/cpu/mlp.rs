//! A whole MLP: layers block by block of rows, so that what one layer writes the next finds in cache.

// R rows, L layers, I inputs, O outputs of a layer

use std::sync::Arc;

use burn::backend::{
    Autodiff, Flex,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients as Grads,
        ops::{Backward, Ops, OpsKind},
    },
    flex::FlexTensor,
};

use super::{
    chunks::map_tasks,
    flat::{Tracked, dims, floats, row_major, tensor, unwrap},
    level::level,
    linear::{CHUNK, activate, activation_gradient, add_weight_gradient},
    scratch::Scratch,
    sgemm::{Init, Matrix, Panels, gemm, is_narrow, narrow},
};
use crate::{Activation, MlpLayer};

/// Rows that pass through all layers together. It divides [`CHUNK`].
const BLOCK: usize = 64;

/// One layer, row-major.
#[derive(Debug, Clone)]
struct Layer {
    weight: FlexTensor,
    bias: FlexTensor,
    inputs: usize,
    outputs: usize,
    act: Activation,
}

impl Layer {
    fn new(weight: FlexTensor, bias: FlexTensor, act: Activation) -> Self {
        let [inputs, outputs] = dims(&weight);
        Self { weight: row_major(weight), bias: row_major(bias), inputs, outputs, act }
    }

    fn matrix(&self) -> Matrix<'_> {
        Matrix::new(floats(&self.weight), self.inputs, self.outputs)
    }

    /// The layer on some rows; without panels where it is narrow.
    fn forward(&self, panels: &Option<Panels<'_>>, x: &[f32], y: &mut [f32]) {
        let x = Matrix::new(x, y.len() / self.outputs, self.inputs);
        let init = Init::Row(floats(&self.bias));
        match panels {
            Some(panels) => gemm(level(), x, panels, init, y, |y| activate(self.act, y)),
            None => {
                narrow(level(), x, self.matrix(), init, y);
                activate(self.act, y);
            }
        }
    }
}

/// What the backward pass needs.
#[derive(Debug)]
struct State {
    x: FlexTensor,
    layers: Vec<Layer>,
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

/// Floating-point operations of the products of a forward pass.
fn flops(layers: &[Layer], rows: usize) -> usize {
    2 * rows * layers.iter().map(|layer| layer.inputs * layer.outputs).sum::<usize>()
}

/// The results of the hidden layers and of the last one.
fn forward(x: &[f32], layers: &[Layer], rows: usize) -> (Scratch, Vec<f32>) {
    let inputs = layers[0].inputs;
    let outputs = layers[layers.len() - 1].outputs;
    let hidden_width: usize = layers[..layers.len() - 1].iter().map(|layer| layer.outputs).sum();
    let (mut hidden, mut y) = (Scratch::new(rows * hidden_width), vec![0.0; rows * outputs]);
    let panels: Vec<_> = layers
        .iter()
        .map(|layer| (!is_narrow(rows, layer.outputs)).then(|| Panels::new(layer.matrix(), rows)))
        .collect();
    if y.is_empty() {
        return (hidden, y);
    }
    let mut rest = &mut hidden[..];
    let mut tasks = Vec::with_capacity(rows.div_ceil(CHUNK));
    for (x, y) in x.chunks(CHUNK * inputs).zip(y.chunks_mut(CHUNK * outputs)) {
        let own;
        (own, rest) = rest.split_at_mut(y.len() / outputs * hidden_width);
        tasks.push((x, own, y));
    }
    map_tasks(tasks, flops(layers, rows), |(x, hidden, y)| forward_chunk(x, layers, &panels, hidden, y));
    (hidden, y)
}

fn forward_chunk(
    x: &[f32],
    layers: &[Layer],
    panels: &[Option<Panels<'_>>],
    hidden: &mut [f32],
    y: &mut [f32],
) {
    let last = layers.len() - 1;
    let rows = y.len() / layers[last].outputs;
    for first in (0..rows).step_by(BLOCK) {
        let end = rows.min(first + BLOCK);
        let mut below = x; // of the whole chunk
        let mut rest = &mut hidden[..];
        for (layer, panels) in layers[..last].iter().zip(panels) {
            let (own, above) = rest.split_at_mut(rows * layer.outputs);
            let out = &mut own[first * layer.outputs..end * layer.outputs];
            layer.forward(panels, &below[first * layer.inputs..end * layer.inputs], out);
            (below, rest) = (own, above);
        }
        let layer = &layers[last];
        let out = &mut y[first * layer.outputs..end * layer.outputs];
        layer.forward(&panels[last], &below[first * layer.inputs..end * layer.inputs], out);
    }
}

/// Which gradients are wanted: of x, and of each layer's weight and bias.
struct Wanted {
    input: bool,
    layers: Vec<bool>,
}

/// Gradients of the layers' weights and biases, `[I, O]` and `[O]`; of x where wanted.
struct Gradients {
    input: Vec<f32>,
    layers: Vec<[Vec<f32>; 2]>,
}

fn backward(state: &State, g: &[f32], wanted: &Wanted) -> Gradients {
    let layers = &state.layers;
    let [rows, inputs] = dims(&state.x);
    let zeros = || -> Vec<[Vec<f32>; 2]> {
        let of = |layer: &Layer| [vec![0.0; layer.inputs * layer.outputs], vec![0.0; layer.outputs]];
        layers.iter().map(of).collect()
    };
    let mut d_x = vec![0.0; if wanted.input { rows * inputs } else { 0 }];
    let turned: Vec<_> = layers
        .iter()
        .enumerate()
        .map(|(number, layer)| (number > 0 || wanted.input).then(|| Panels::new(layer.matrix().t(), rows)))
        .collect();
    let mut rest = &mut d_x[..];
    let mut tasks = Vec::with_capacity(rows.div_ceil(CHUNK));
    let gradients = state.chunks(g).map(|[_, _, g]| g);
    for ([x, hidden, y], g) in state.chunks(floats(&state.y)).zip(gradients) {
        let own;
        (own, rest) = rest.split_at_mut(if wanted.input { x.len() } else { 0 });
        tasks.push(([x, hidden, y, g], own));
    }
    let parts = map_tasks(tasks, 2 * flops(layers, rows), |(data, d_x)| {
        let mut sums = zeros();
        backward_chunk(data, layers, &turned, wanted, &mut sums, d_x);
        sums
    });
    let mut parts = parts.into_iter();
    let mut sums = parts.next().unwrap_or_else(zeros);
    for part in parts {
        for (sum, part) in sums.iter_mut().flatten().zip(part.iter().flatten()) {
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
    }
    Gradients { input: d_x, layers: sums }
}

fn backward_chunk(
    [x, hidden, y, g]: [&[f32]; 4],
    layers: &[Layer],
    turned: &[Option<Panels<'_>>],
    wanted: &Wanted,
    sums: &mut [[Vec<f32>; 2]],
    d_x: &mut [f32],
) {
    let outputs = layers[layers.len() - 1].outputs;
    let rows = y.len().checked_div(outputs).unwrap_or(0);
    let widest = layers.iter().map(|layer| layer.outputs).max().unwrap_or_default();
    let (mut above, mut below) = (Scratch::new(BLOCK * widest), Scratch::new(BLOCK * widest));
    let lowest = if wanted.input { Some(0) } else { wanted.layers.iter().position(|&wanted| wanted) };
    let Some(lowest) = lowest else { return };
    // Where the results of each layer begin in `hidden`.
    let mut starts = Vec::with_capacity(layers.len());
    layers.iter().fold(0, |start, layer| {
        starts.push(start);
        start + rows * layer.outputs
    });
    for first in (0..rows).step_by(BLOCK) {
        let end = rows.min(first + BLOCK);
        let count = end - first;
        let result = |number: usize| {
            let width = layers[number].outputs;
            let all = if number + 1 == layers.len() { y } else { &hidden[starts[number]..] };
            &all[first * width..end * width]
        };
        above[..count * outputs].copy_from_slice(&g[first * outputs..end * outputs]);
        for number in (lowest..layers.len()).rev() {
            let layer = &layers[number];
            let shape = [count, layer.inputs, layer.outputs];
            let dz = &mut above[..count * layer.outputs];
            let [weight, bias] = &mut sums[number];
            activation_gradient(layer.act, result(number), dz, bias);
            let input = match number {
                0 => &x[first * layer.inputs..end * layer.inputs],
                _ => result(number - 1),
            };
            if wanted.layers[number] {
                add_weight_gradient(input, dz, weight, shape);
            }
            if number > lowest || wanted.input {
                let panels = turned[number].as_ref().expect("made for all layers with a gradient below");
                let to = match number {
                    0 => &mut d_x[first * layer.inputs..end * layer.inputs],
                    _ => &mut below[..count * layer.inputs],
                };
                gemm(level(), Matrix::new(dz, count, layer.outputs), panels, Init::Zero, to, |_| {});
                std::mem::swap(&mut above, &mut below);
            }
        }
    }
}

fn run(x: FlexTensor, layers: Vec<Layer>, column: bool) -> State {
    let x = row_major(x);
    let [rows, _] = dims(&x);
    let (hidden, y) = forward(floats(&x), &layers, rows);
    let outputs = layers[layers.len() - 1].outputs;
    let y = if column { tensor(y, [rows]) } else { tensor(y, [rows, outputs]) };
    let hidden_width = layers[..layers.len() - 1].iter().map(|layer| layer.outputs).sum();
    State { x, layers, hidden, hidden_width, y }
}

/// [`crate::mlp`] on Flex; as a `column`, with the shape `[R]`.
pub(super) fn flex(x: FlexTensor, layers: Vec<MlpLayer<Flex>>, column: bool) -> FlexTensor {
    let of = |layer: MlpLayer<Flex>| Layer::new(unwrap(layer.weight), unwrap(layer.bias), layer.activation);
    run(x, layers.into_iter().map(of).collect(), column).y
}

/// A node with `N` parents: x, then weight and bias of each layer.
#[derive(Debug)]
struct Mlp<const N: usize>;

impl<const N: usize> Backward<Flex, N> for Mlp<N> {
    type State = Arc<State>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Grads, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let state = ops.state;
        let [rows, inputs] = dims(&state.x);
        let wanted = Wanted {
            input: ops.parents[0].is_some(),
            layers: ops.parents[1..].chunks(2).map(|pair| pair.iter().any(Option::is_some)).collect(),
        };
        let gradients = backward(&state, floats(&g), &wanted);
        let mut parents = ops.parents.into_iter();
        if let Some(node) = parents.next().flatten() {
            grads.register::<Flex>(node.id, tensor(gradients.input, [rows, inputs]));
        }
        for (layer, [weight, bias]) in state.layers.iter().zip(gradients.layers) {
            if let Some(node) = parents.next().flatten() {
                grads.register::<Flex>(node.id, tensor(weight, [layer.inputs, layer.outputs]));
            }
            if let Some(node) = parents.next().flatten() {
                grads.register::<Flex>(node.id, tensor(bias, [layer.outputs]));
            }
        }
    }
}

/// Most layers of one node.
const MOST_LAYERS: usize = 5;

/// [`crate::mlp`] on Flex with its gradient; as a `column`, with the shape `[R]`.
pub(super) fn autodiff<C: CheckpointStrategy>(
    x: Tracked<C>,
    mut layers: Vec<MlpLayer<Autodiff<Flex, C>>>,
    column: bool,
) -> Tracked<C> {
    if layers.len() > MOST_LAYERS {
        let above = layers.split_off(MOST_LAYERS);
        return autodiff::<C>(autodiff::<C>(x, layers, false), above, column);
    }
    let count = layers.len();
    let (mut nodes, mut held) = (Vec::with_capacity(1 + 2 * count), Vec::with_capacity(1 + 2 * count));
    let mut take = |t: Tracked<C>| {
        nodes.push(t.node);
        held.push(t.rc); // until this node is registered: see `Leaf::Kept`
        t.primitive
    };
    let x = take(x);
    let of = |layer: MlpLayer<Autodiff<Flex, C>>| {
        let (weight, bias) = (take(unwrap(layer.weight)), take(unwrap(layer.bias)));
        Layer::new(weight, bias, layer.activation)
    };
    let layers = layers.into_iter().map(of).collect();
    let state = run(x, layers, column);
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
    let y = match count {
        1 => node!(3),
        2 => node!(5),
        3 => node!(7),
        4 => node!(9),
        _ => node!(11),
    };
    drop(held);
    y
}
