//! The loops of an MLP: some rows through all layers, block by block, so that what one layer writes the next finds in
//! cache; and back.

// R rows, L layers, I inputs, O outputs of a layer

use burn::backend::flex::FlexTensor;

use super::{
    flat::floats,
    level::level,
    linear::{activate, activation_gradient, add_weight_gradient},
    panels::{Matrix, Panels},
    prefetch::Soon,
    scratch::Scratch,
    sgemm::{Init, gemm, is_narrow, narrow},
};
use crate::{Activation, FlatMlp};

/// Rows that pass through all layers together; so many divide a chunk.
const BLOCK: usize = 64;

/// Inputs and outputs of a layer, and its activation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) act: Activation,
}

impl Shape {
    /// Elements of weight and bias.
    pub(super) fn sizes(&self) -> [usize; 2] {
        [self.inputs * self.outputs, self.outputs]
    }
}

/// The layers of an MLP whose parameters lie in one tensor.
pub(super) fn shapes(mlp: &FlatMlp) -> Vec<Shape> {
    mlp.layers().map(|([inputs, outputs], act)| Shape { inputs, outputs, act }).collect()
}

/// Where weights and biases are, row-major.
#[derive(Debug)]
pub(super) enum Parameters {
    /// A weight and a bias for each layer.
    Each(Vec<[FlexTensor; 2]>),
    /// All in one buffer: a layer's weight, its bias, the next layer's weight.
    Flat(FlexTensor),
}

/// A layer with its parameters.
pub(super) struct Layer<'a> {
    pub(super) shape: Shape,
    pub(super) weight: &'a [f32],
    bias: &'a [f32],
}

impl<'a> Layer<'a> {
    pub(super) fn all(shapes: &[Shape], parameters: &'a Parameters) -> Vec<Self> {
        match parameters {
            Parameters::Each(each) => {
                let of = |(&shape, [weight, bias]): (_, &'a [FlexTensor; 2])| Self {
                    shape,
                    weight: floats(weight),
                    bias: floats(bias),
                };
                shapes.iter().zip(each).map(of).collect()
            }
            Parameters::Flat(all) => {
                let mut rest = floats(all);
                let of = |&shape: &Shape| {
                    let (weight, bias);
                    let [of_weight, of_bias] = shape.sizes();
                    (weight, rest) = rest.split_at(of_weight);
                    (bias, rest) = rest.split_at(of_bias);
                    Self { shape, weight, bias }
                };
                shapes.iter().map(of).collect()
            }
        }
    }

    fn matrix(&self) -> Matrix<'a> {
        Matrix::new(self.weight, self.shape.inputs, self.shape.outputs)
    }

    /// The layer on some rows; without panels where it is narrow.
    fn forward(&self, panels: &Option<Panels<'_>>, x: &[f32], y: &mut [f32]) {
        let Shape { inputs, outputs, act } = self.shape;
        let x = Matrix::new(x, y.len() / outputs, inputs);
        let init = Init::Row(self.bias);
        match panels {
            Some(panels) => gemm(level(), x, panels, init, y, |y| activate(act, y)),
            None => {
                narrow(level(), x, self.matrix(), init, y);
                activate(act, y);
            }
        }
    }
}

/// Floating-point operations of the products of a forward pass.
pub(super) fn flops(layers: &[Layer<'_>], rows: usize) -> usize {
    2 * rows * layers.iter().map(|layer| layer.weight.len()).sum::<usize>()
}

/// Sum of the hidden layers' widths.
pub(super) fn hidden_width(shapes: &[Shape]) -> usize {
    shapes[..shapes.len() - 1].iter().map(|shape| shape.outputs).sum()
}

/// The weights for a forward pass of `rows` rows; none where a layer is narrow.
pub(super) fn panels<'a>(layers: &[Layer<'a>], rows: usize) -> Vec<Option<Panels<'a>>> {
    let of = |layer: &Layer<'a>| {
        let narrow = is_narrow(rows, layer.shape.outputs);
        (!narrow).then(|| Panels::new(layer.matrix(), rows))
    };
    layers.iter().map(of).collect()
}

/// The transposed weights for a backward pass, without the first layer's unless x wants a gradient.
pub(super) fn turned<'a>(layers: &[Layer<'a>], rows: usize, input: bool) -> Vec<Option<Panels<'a>>> {
    let of = |(number, layer): (usize, &Layer<'a>)| {
        (number > 0 || input).then(|| Panels::new(layer.matrix().t(), rows))
    };
    layers.iter().enumerate().map(of).collect()
}

/// Memory for the results of the hidden layers of some rows, layer by layer.
pub(super) fn by_layer<'a>(
    mut hidden: &'a mut [f32],
    layers: &[Layer<'_>],
    rows: usize,
) -> Vec<&'a mut [f32]> {
    let of = |layer: &Layer<'_>| {
        let own;
        (own, hidden) = std::mem::take(&mut hidden).split_at_mut(rows * layer.shape.outputs);
        own
    };
    layers[..layers.len() - 1].iter().map(of).collect()
}

/// Writes the results of the hidden layers, each to a place of its own, and of the last one.
pub(super) fn forward_rows(
    x: &[f32],
    layers: &[Layer<'_>],
    panels: &[Option<Panels<'_>>],
    mut hidden: Vec<&mut [f32]>,
    y: &mut [f32],
) {
    let (inputs, last) = (layers[0].shape.inputs, layers.len() - 1);
    let outputs = layers[last].shape.outputs;
    let rows = y.len() / outputs;
    for first in (0..rows).step_by(BLOCK) {
        let end = rows.min(first + BLOCK);
        let mut below = &x[first * inputs..end * inputs];
        for ((layer, panels), own) in layers[..last].iter().zip(panels).zip(&mut hidden) {
            let outputs = layer.shape.outputs;
            let out = &mut own[first * outputs..end * outputs];
            layer.forward(panels, below, out);
            below = out;
        }
        layers[last].forward(&panels[last], below, &mut y[first * outputs..end * outputs]);
    }
}

/// Which gradients are wanted: of x, and of each layer's weight and bias.
pub(super) struct Wanted {
    pub(super) input: bool,
    pub(super) layers: Vec<bool>,
}

impl Wanted {
    /// The lowest layer with a gradient.
    pub(super) fn lowest(&self) -> Option<usize> {
        if self.input { Some(0) } else { self.layers.iter().position(|&wanted| wanted) }
    }
}

/// The backward pass of a chunk of rows, from x, the results of the hidden layers, those of the last one and their
/// gradient: adds to the gradients of the parameters, layer by layer in `sums`, and fills that of x if it is wanted.
pub(super) fn backward_chunk(
    [x, hidden, y, g]: [&[f32]; 4],
    layers: &[Layer<'_>],
    turned: &[Option<Panels<'_>>],
    wanted: &Wanted,
    sums: &mut [f32],
    d_x: &mut [f32],
) {
    let outputs = layers[layers.len() - 1].shape.outputs;
    let rows = y.len().checked_div(outputs).unwrap_or(0);
    let widest = layers.iter().map(|layer| layer.shape.outputs).max().unwrap_or_default();
    let (mut above, mut below) = (Scratch::new(BLOCK * widest), Scratch::new(BLOCK * widest));
    let Some(lowest) = wanted.lowest() else { return };
    // Where the results of each layer begin in `hidden`.
    let mut starts = Vec::with_capacity(layers.len());
    layers.iter().fold(0, |start, layer| {
        starts.push(start);
        start + rows * layer.shape.outputs
    });
    for first in (0..rows).step_by(BLOCK) {
        let end = rows.min(first + BLOCK);
        let count = end - first;
        let result = |number: usize| {
            let width = layers[number].shape.outputs;
            let all = if number + 1 == layers.len() { y } else { &hidden[starts[number]..] };
            &all[first * width..end * width]
        };
        above[..count * outputs].copy_from_slice(&g[first * outputs..end * outputs]);
        let mut rest = &mut *sums; // of the layers from the lowest up to this one
        for number in (lowest..layers.len()).rev() {
            let shape @ Shape { inputs, outputs, act } = layers[number].shape;
            let dz = &mut above[..count * outputs];
            let [of_weight, of_bias] = shape.sizes();
            let (weight, bias);
            (rest, bias) = rest.split_at_mut(rest.len() - of_bias);
            (rest, weight) = rest.split_at_mut(rest.len() - of_weight);
            activation_gradient(act, result(number), dz, bias);
            let input = match number {
                0 => &x[first * inputs..end * inputs],
                _ => result(number - 1),
            };
            if wanted.layers[number] {
                add_weight_gradient(input, dz, weight, [count, inputs, outputs], Soon::default());
            }
            if number > lowest || wanted.input {
                let panels = turned[number].as_ref().expect("made for all layers with a gradient below");
                let to = match number {
                    0 => &mut d_x[first * inputs..end * inputs],
                    _ => &mut below[..count * inputs],
                };
                gemm(level(), Matrix::new(dz, count, outputs), panels, Init::Zero, to, |_| {});
                std::mem::swap(&mut above, &mut below);
            }
        }
    }
}
