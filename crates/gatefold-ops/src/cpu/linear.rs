//! The linear layer: product, bias and activation in one pass, and its backward pass.

// R rows, I inputs, O outputs

use std::ops::Range;

use burn::backend::{
    Flex,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    flex::FlexTensor,
};

use super::{
    chunks::{add, map_tasks, pays},
    flat::{Tracked, dims, floats, row_major, tensor},
    level::{level, mul_add, multiversion},
    math::{add_scaled, tanh_in_place},
    panels::{Matrix, Panels},
    prefetch::Soon,
    scratch::Scratch,
    sgemm::{Init, gemm, gemm_unset, is_narrow, narrow},
    unset::{Part, Unset},
};
use crate::Activation;

/// Rows per chunk; the parts of a weight gradient belong to these chunks.
pub(super) const CHUNK: usize = 256;

/// Rows of a result that are handed out at once, of a call of so many floating-point operations: a whole chunk where
/// one thread computes them all, else few, because even 64 are worth two threads. It divides [`CHUNK`]; a row's
/// bits do not depend on it.
pub(super) fn piece(rows: usize, flops: usize) -> usize {
    if pays(flops) { rows.div_ceil(16).next_power_of_two().clamp(32, CHUNK) } else { CHUNK }
}

/// Up to so many rows a weight gradient is a sum of outer products.
const FEW_ROWS: usize = 4;

/// Applies the activation to finished elements.
pub(super) fn activate(act: Activation, y: &mut [f32]) {
    match act {
        Activation::Identity => {}
        Activation::Tanh => tanh_in_place(y),
        // Not `max`, which would turn a NaN into 0.
        Activation::Relu => y.iter_mut().for_each(|y| *y = if *y <= 0.0 { 0.0 } else { *y }),
    }
}

multiversion! {
    /// `dz *= act'`, with the derivative expressed by the result `y`, and `bias += sum of rows of dz`.
    pub(super) fn activation_gradient(act: Activation, y: &[f32], dz: &mut [f32], bias: &mut [f32]) = gradient_body
}

#[inline(always)]
fn gradient_body<const FMA: bool>(act: Activation, y: &[f32], dz: &mut [f32], bias: &mut [f32]) {
    match act {
        Activation::Identity => add_rows_of(y, dz, bias, |_, dz| dz),
        Activation::Tanh => add_rows_of(y, dz, bias, |y, dz| dz * mul_add::<FMA>(-y, y, 1.0)),
        Activation::Relu => add_rows_of(y, dz, bias, |y, dz| if y == 0.0 { 0.0 } else { dz }),
    }
}

/// `dz = f(y, dz)`, and `bias += sum of rows of dz`.
#[inline(always)]
fn add_rows_of(y: &[f32], dz: &mut [f32], bias: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    let mut first = 0;
    while first + 32 <= bias.len() {
        add_columns::<32>(first, y, dz, bias, &f);
        first += 32;
    }
    while first + 8 <= bias.len() {
        add_columns::<8>(first, y, dz, bias, &f);
        first += 8;
    }
    for column in first..bias.len() {
        add_columns::<1>(column, y, dz, bias, &f);
    }
}

/// Some columns of [`add_rows_of`], whose sums stay in registers.
#[inline(always)]
fn add_columns<const WIDTH: usize>(
    first: usize,
    y: &[f32],
    dz: &mut [f32],
    bias: &mut [f32],
    f: impl Fn(f32, f32) -> f32,
) {
    let n = bias.len();
    let mut sums = [0.0; WIDTH];
    sums.copy_from_slice(&bias[first..first + WIDTH]);
    for (y, dz) in y.chunks_exact(n).zip(dz.chunks_exact_mut(n)) {
        let (y, dz) = (&y[first..first + WIDTH], &mut dz[first..first + WIDTH]);
        for j in 0..WIDTH {
            dz[j] = f(y[j], dz[j]);
            sums[j] += dz[j];
        }
    }
    bias[first..first + WIDTH].copy_from_slice(&sums);
}

multiversion! {
    /// `bias += sum of rows of g`.
    pub(super) fn add_rows(g: &[f32], bias: &mut [f32]) = add_rows_body
}

#[inline(always)]
fn add_rows_body<const FMA: bool>(g: &[f32], bias: &mut [f32]) {
    let n = bias.len();
    for g in g.chunks_exact(n) {
        for j in 0..n {
            bias[j] += g[j];
        }
    }
}

multiversion! {
    /// `d_weight = x^T dz` for a few rows, or `+=` where it is `held`, with the bits of the matrix product: one
    /// row of the result at a time, because for short sums a tile costs more to start than to compute.
    fn outer_products(x: &[f32], dz: &[f32], held: bool, d_weight: &mut [f32], outputs: usize) = outer_body
}

#[inline(always)]
fn outer_body<const FMA: bool>(x: &[f32], dz: &[f32], held: bool, d_weight: &mut [f32], outputs: usize) {
    let inputs = d_weight.len() / outputs;
    for (i, row) in d_weight.chunks_exact_mut(outputs).enumerate() {
        if !held {
            row.fill(0.0);
        }
        for (x, dz) in x.chunks_exact(inputs).zip(dz.chunks_exact(outputs)) {
            add_scaled::<FMA>(row, x[i], dz);
        }
    }
}

/// `d_weight = x^T dz`, `[I, O]`, of `[R, I]` and `[R, O]`, or `+=` where it is `held`.
fn weight_gradient(
    x: &[f32],
    dz: &[f32],
    held: bool,
    d_weight: &mut [f32],
    [rows, inputs, outputs]: [usize; 3],
    soon: Soon,
) {
    if rows <= FEW_ROWS {
        outer_products(x, dz, held, d_weight, outputs);
        return;
    }
    let init = if held { Init::Held } else { Init::Zero };
    let (x, dz) = (Matrix::new(x, rows, inputs), Matrix::new(dz, rows, outputs));
    if is_narrow(inputs, outputs) {
        narrow(level(), x.t(), dz, init, d_weight);
    } else {
        gemm(level(), x.t().before(soon), &Panels::new(dz, inputs), init, d_weight, |_| {});
    }
}

/// `d_weight += x^T dz`, `[I, O]`, of `[R, I]` and `[R, O]`, before what is wanted `soon`.
pub(super) fn add_weight_gradient(
    x: &[f32],
    dz: &[f32],
    d_weight: &mut [f32],
    shape: [usize; 3],
    soon: Soon,
) {
    weight_gradient(x, dz, true, d_weight, shape, soon);
}

/// The rows that are handed out at once, see [`piece`].
fn pieces(rows: usize, flops: usize) -> impl Iterator<Item = Range<usize>> {
    let piece = piece(rows, flops);
    (0..rows).step_by(piece).map(move |first| first..rows.min(first + piece))
}

/// A layer's weight `[I, O]`.
#[derive(Clone, Copy)]
pub(super) struct Weight<'a> {
    pub(super) own: &'a [f32],
    /// That of the layer after it, where they are too many to stay in cache.
    pub(super) next: &'a [f32],
}

impl<'a> Weight<'a> {
    /// One beside which no other is asked for.
    pub(super) fn alone(own: &'a [f32]) -> Self {
        Self { own, next: &[] }
    }
}

/// `y = act(x W + b)`, `[R, O]`.
pub(super) fn forward(
    x: &[f32],
    weight: Weight<'_>,
    bias: &[f32],
    [rows, inputs, outputs]: [usize; 3],
    act: Activation,
    mut y: Part<'_>,
) {
    if rows == 0 || outputs == 0 {
        return;
    }
    let soon = Soon::of(weight.next);
    let weight = Matrix::new(weight.own, inputs, outputs);
    let panels = (!is_narrow(rows, outputs)).then(|| Panels::new(weight, rows));
    let flops = 2 * rows * inputs * outputs;
    let tasks = pieces(rows, flops).map(|rows| (rows.clone(), y.take(rows.len() * outputs))).collect();
    map_tasks(tasks, flops, |(rows, y)| {
        let x = Matrix::new(&x[rows.start * inputs..rows.end * inputs], rows.len(), inputs).before(soon);
        match &panels {
            Some(panels) => {
                gemm_unset(level(), x, panels, Init::Row(bias), y, |y| activate(act, y));
            }
            None => {
                let y = y.cleared();
                narrow(level(), x, weight, Init::Row(bias), y);
                activate(act, y);
            }
        }
    });
}

/// Which gradients are wanted.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) input: bool,
    pub(super) weight: bool,
    pub(super) bias: bool,
}

/// Gradients of one linear layer; empty where not wanted.
pub(super) struct Gradient {
    pub(super) input: Vec<f32>,
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

/// Where [`backward_into`] writes; empty where a gradient is not wanted. That of the weight holds anything, that
/// of the bias zeros.
pub(super) struct Into<'a> {
    pub(super) input: Part<'a>,
    pub(super) weight: &'a mut [f32],
    pub(super) bias: &'a mut [f32],
}

impl<'a> Into<'a> {
    /// What each of several layers gets of memory for all, by how many rows it has.
    pub(super) fn split(mut self, rows: &[usize]) -> Vec<Self> {
        let width = self.input.len() / rows.iter().sum::<usize>().max(1);
        let [of_weight, of_bias] = [self.weight.len(), self.bias.len()].map(|len| len / rows.len().max(1));
        let one = |&rows: &usize| {
            let (weight, bias);
            (weight, self.weight) = std::mem::take(&mut self.weight).split_at_mut(of_weight);
            (bias, self.bias) = std::mem::take(&mut self.bias).split_at_mut(of_bias);
            Self { input: self.input.take(rows * width), weight, bias }
        };
        rows.iter().map(one).collect()
    }
}

/// The backward pass into new memory.
pub(super) fn backward(
    x: &[f32],
    weight: &[f32],
    y: &[f32],
    g: &[f32],
    [rows, inputs, outputs]: [usize; 3],
    act: Activation,
    wanted: Wanted,
) -> Gradient {
    let zeros = |wanted: bool, size: usize| vec![0.0; if wanted { size } else { 0 }];
    let mut input = Unset::new(if wanted.input { rows * inputs } else { 0 });
    let (mut d_weight, mut bias) = (zeros(wanted.weight, inputs * outputs), zeros(wanted.bias, outputs));
    let into = Into { input: input.whole(), weight: &mut d_weight, bias: &mut bias };
    backward_into(x, Weight::alone(weight), y, g, [rows, inputs, outputs], act, into);
    Gradient { input: input.finish(), weight: d_weight, bias }
}

/// Where a product goes.
enum To<'a> {
    Unset(Part<'a>),
    Set(&'a mut [f32]),
}

/// The gradients of `x` by `dz` `[R, O]` and the panels of `W^T`, and of `W`, where they are wanted.
fn products_back(
    x: &[f32],
    dz: &[f32],
    panels: Option<&Panels<'_>>,
    shape @ [rows, inputs, outputs]: [usize; 3],
    mut d_x: Part<'_>,
    d_weight: Option<&mut [f32]>,
    [before_weight, after]: [Soon; 2],
) {
    let dz_rows = Matrix::new(dz, rows, outputs);
    let wanted = usize::from(panels.is_some()) + usize::from(d_weight.is_some());
    let flops = 2 * wanted * rows * inputs * outputs;
    if !pays(flops) || rows <= FEW_ROWS || is_narrow(inputs, outputs) {
        if let Some(panels) = panels {
            gemm_unset(level(), dz_rows.before(before_weight), panels, Init::Zero, d_x, |_| {});
        }
        if let Some(d_weight) = d_weight {
            weight_gradient(x, dz, false, d_weight, shape, after);
        }
        return;
    }
    let turned = d_weight.is_some().then(|| Panels::new(dz_rows, inputs));
    let mut tasks = Vec::new();
    if let Some(panels) = panels {
        let mut of_rows = |of: Range<usize>| To::Unset(d_x.take(of.len() * inputs));
        tasks.extend(pieces(rows, flops).map(|of| (dz_rows.some_rows(of.clone()), panels, of_rows(of))));
    }
    if let (Some(d_weight), Some(panels)) = (d_weight, &turned) {
        let x = Matrix::new(x, rows, inputs).t();
        let parts = d_weight.chunks_mut(piece(inputs, flops) * outputs);
        tasks.extend(pieces(inputs, flops).zip(parts).map(|(of, to)| (x.some_rows(of), panels, To::Set(to))));
    }
    map_tasks(tasks, flops, |(a, panels, to)| match to {
        To::Unset(to) => {
            gemm_unset(level(), a, panels, Init::Zero, to, |_| {});
        }
        To::Set(to) => gemm(level(), a, panels, Init::Zero, to, |_| {}),
    });
}

/// The backward pass, chunk by chunk, so that what one chunk needs stays in cache.
pub(super) fn backward_into(
    x: &[f32],
    weight: Weight<'_>,
    y: &[f32],
    g: &[f32],
    [rows, inputs, outputs]: [usize; 3],
    act: Activation,
    into: Into<'_>,
) {
    if rows == 0 || outputs == 0 {
        into.input.cleared();
        return;
    }
    let (wants_input, wants_weight) = (!into.input.is_empty(), !into.weight.is_empty());
    let wants_bias = !into.bias.is_empty();
    let next = Soon::of(weight.next);
    // While one product is computed, where the other will be written comes, and what the next layer reads.
    let written = if next.lines > 0 { Soon::of(into.weight) } else { next };
    let weight = Matrix::new(weight.own, inputs, outputs);
    let panels = wants_input.then(|| Panels::new(weight.t(), rows));
    // The bias is summed beside an activation's gradient whether wanted or not.
    let mut unwanted = Scratch::new(if wants_bias { 0 } else { outputs });
    let whole_bias: &mut [f32] = if wants_bias { into.bias } else { &mut unwanted };
    let chunk = |first: usize, end: usize, input: Part<'_>, [d_weight, bias]: [&mut [f32]; 2]| {
        let count = end - first;
        let (y, g) = (&y[first * outputs..end * outputs], &g[first * outputs..end * outputs]);
        let mut buffer;
        let dz = if act == Activation::Identity {
            if wants_bias {
                add_rows(g, bias);
            }
            g
        } else {
            buffer = Scratch::new(count * outputs);
            buffer.copy_from_slice(g);
            activation_gradient(act, y, &mut buffer, bias);
            &buffer
        };
        let weight = wants_weight.then_some(d_weight);
        let x = &x[first * inputs..end * inputs];
        products_back(x, dz, panels.as_ref(), [count, inputs, outputs], input, weight, [written, next]);
    };
    let (of_weight, of_chunk) = (into.weight.len(), into.weight.len() + outputs);
    // The sums of the first chunk are begun in place, the others' beside.
    let chunks = rows.div_ceil(CHUNK);
    let mut parts = Scratch::new((chunks - 1) * of_chunk);
    let others = parts.chunks_exact_mut(of_chunk).map(|part| {
        part[of_weight..].fill(0.0);
        part.split_at_mut(of_weight).into()
    });
    let sums = std::iter::once([&mut *into.weight, &mut *whole_bias]).chain(others);
    let mut rest = into.input;
    let mut tasks = Vec::with_capacity(chunks);
    for (first, sums) in (0..rows).step_by(CHUNK).zip(sums) {
        let end = rows.min(first + CHUNK);
        tasks.push((first, end, rest.take(if wants_input { (end - first) * inputs } else { 0 }), sums));
    }
    map_tasks(tasks, 4 * rows * inputs * outputs, |(first, end, input, sums)| chunk(first, end, input, sums));
    for part in parts.chunks_exact(of_chunk) {
        add(into.weight, &part[..of_weight]);
        add(whole_bias, &part[of_weight..]);
    }
}

/// The fused operation on plain tensors; returns the row-major inputs too, for the backward pass.
fn run(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, act: Activation) -> (State, FlexTensor) {
    let (x, weight, bias) = (row_major(x), row_major(weight), row_major(bias));
    let ([rows, inputs], [_, outputs]) = (dims(&x), dims(&weight));
    let mut y = Unset::new(rows * outputs);
    forward(
        floats(&x),
        Weight::alone(floats(&weight)),
        floats(&bias),
        [rows, inputs, outputs],
        act,
        y.whole(),
    );
    let y = tensor(y.finish(), [rows, outputs]);
    (State { x, weight, y: y.clone(), act }, y)
}

/// [`crate::linear`] on Flex.
pub(super) fn flex(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, act: Activation) -> FlexTensor {
    run(x, weight, bias, act).1
}

#[derive(Debug, Clone)]
struct State {
    x: FlexTensor,
    weight: FlexTensor,
    y: FlexTensor,
    act: Activation,
}

#[derive(Debug)]
struct Linear;

impl Backward<Flex, 3> for Linear {
    type State = State;

    fn backward(self, ops: Ops<State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let State { x, weight, y, act } = ops.state;
        let ([rows, inputs], [_, outputs]) = (dims(&x), dims(&weight));
        let [x_node, weight_node, bias_node] = ops.parents;
        let wanted =
            Wanted { input: x_node.is_some(), weight: weight_node.is_some(), bias: bias_node.is_some() };
        let shape = [rows, inputs, outputs];
        let gradient = backward(floats(&x), floats(&weight), floats(&y), floats(&g), shape, act, wanted);
        if let Some(node) = x_node {
            grads.register::<Flex>(node.id, tensor(gradient.input, [rows, inputs]));
        }
        if let Some(node) = weight_node {
            grads.register::<Flex>(node.id, tensor(gradient.weight, [inputs, outputs]));
        }
        if let Some(node) = bias_node {
            grads.register::<Flex>(node.id, tensor(gradient.bias, [outputs]));
        }
    }
}

/// [`crate::linear`] on Flex with its gradient.
pub(super) fn autodiff<C: CheckpointStrategy>(
    x: Tracked<C>,
    weight: Tracked<C>,
    bias: Tracked<C>,
    act: Activation,
) -> Tracked<C> {
    let (state, y) = run(x.primitive, weight.primitive, bias.primitive, act);
    match Linear.prepare::<C>([x.node, weight.node, bias.node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(state, y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_without_outputs_moves_no_input() {
        let wanted = Wanted { input: true, weight: true, bias: true };
        let shape = [2 * CHUNK, 3, 0];
        let gradient = backward(&vec![1.0; 6 * CHUNK], &[], &[], &[], shape, Activation::Tanh, wanted);
        assert!(gradient.input.len() == 6 * CHUNK && gradient.input.iter().all(|&d| d == 0.0));
    }

    #[test]
    fn a_weight_gradient_of_a_few_rows_has_the_bits_of_the_matrix_product() {
        let numbers = |len: usize, seed: f32| -> Vec<f32> {
            (0..len).map(|i| (i as f32 * 1.37 + seed).sin()).collect()
        };
        for (rows, inputs, outputs) in [(1, 5, 3), (2, 17, 40), (4, 64, 33)] {
            let (x, dz) = (numbers(rows * inputs, 0.3), numbers(rows * outputs, 1.1));
            let mut few = vec![f32::NAN; inputs * outputs];
            outer_products(&x, &dz, false, &mut few, outputs);
            let mut product = vec![f32::NAN; inputs * outputs];
            let (x_rows, dz_rows) = (Matrix::new(&x, rows, inputs), Matrix::new(&dz, rows, outputs));
            let panels = Panels::new(dz_rows, inputs);
            gemm(level(), x_rows.t(), &panels, Init::Zero, &mut product, |_| {});
            assert_eq!(few, product, "{rows} rows");
            outer_products(&x, &dz, true, &mut few, outputs);
            gemm(level(), x_rows.t(), &panels, Init::Held, &mut product, |_| {});
            assert_eq!(few, product, "{rows} rows, twice");
        }
    }
}
