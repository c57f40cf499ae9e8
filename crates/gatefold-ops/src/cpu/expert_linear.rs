//! The linear layers of K experts, computed only for active rows, and their backward pass.
//!
//! The active rows of an expert are gathered, pass through the one linear kernel, and are scattered
//! back. The kernel's bits do not depend on where a row stands, so skipping rows changes no other.

// K experts, B rows, I inputs, O outputs

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
    chunks::map_tasks,
    flat::{Tracked, dims, floats, row_major, tensor},
    linear::{self, Wanted},
};
use crate::Activation;

/// The rows of one expert that are computed; `None` = all.
fn active_rows(active: Option<&[bool]>, expert: usize, rows: usize) -> Option<Vec<usize>> {
    let active = &active?[expert * rows..(expert + 1) * rows];
    let list: Vec<usize> = (0..rows).filter(|&row| active[row]).collect();
    (list.len() < rows).then_some(list)
}

/// The listed rows of a row-major matrix.
fn gather(from: &[f32], width: usize, list: &[usize]) -> Vec<f32> {
    list.iter().flat_map(|&row| &from[row * width..(row + 1) * width]).copied().collect()
}

/// Writes rows back where [`gather`] took them from.
fn scatter(from: &[f32], width: usize, list: &[usize], to: &mut [f32]) {
    for (at, &row) in list.iter().enumerate() {
        to[row * width..(row + 1) * width].copy_from_slice(&from[at * width..(at + 1) * width]);
    }
}

/// What the backward pass needs.
#[derive(Debug, Clone)]
pub(super) struct State {
    x: FlexTensor,
    weight: FlexTensor,
    y: FlexTensor,
    act: Activation,
    active: Option<std::sync::Arc<Vec<bool>>>,
}

/// Expert `k`'s part of a `[K, _, _]` tensor, or the whole of a shared `[1, _, _]` one.
fn part(of: &[f32], size: usize, expert: usize) -> &[f32] {
    if of.len() == size { of } else { &of[expert * size..(expert + 1) * size] }
}

fn run([x, weight, bias]: [FlexTensor; 3], act: Activation, active: Option<&[bool]>) -> (State, FlexTensor) {
    let [x, weight, bias] = [x, weight, bias].map(row_major);
    let ([_, rows, inputs], [experts, _, outputs]) = (dims(&x), dims(&weight));
    let mut y = vec![0.0; experts * rows * outputs];
    if !y.is_empty() {
        let tasks: Vec<_> = y.chunks_mut(rows * outputs).enumerate().collect();
        map_tasks(tasks, 2 * experts * rows * inputs * outputs, |(expert, y)| {
            let x = part(floats(&x), rows * inputs, expert);
            let weight = &floats(&weight)[expert * inputs * outputs..][..inputs * outputs];
            let bias = &floats(&bias)[expert * outputs..][..outputs];
            match active_rows(active, expert, rows) {
                None => linear::forward(x, weight, bias, [rows, inputs, outputs], act, y),
                Some(list) => {
                    let mut out = vec![0.0; list.len() * outputs];
                    let x = gather(x, inputs, &list);
                    linear::forward(&x, weight, bias, [list.len(), inputs, outputs], act, &mut out);
                    scatter(&out, outputs, &list, y);
                }
            }
        });
    }
    let y = tensor(y, [experts, rows, outputs]);
    let active = active.map(|active| active.to_vec().into());
    (State { x, weight, y: y.clone(), act, active }, y)
}

/// [`crate::expert_linear`] on Flex.
pub(super) fn flex(inputs: [FlexTensor; 3], act: Activation, active: Option<&[bool]>) -> FlexTensor {
    run(inputs, act, active).1
}

/// The backward pass of one expert; the input's gradient has all rows, 0 for those not active.
fn backward(
    [x, weight, y, g]: [&[f32]; 4],
    [rows, inputs, outputs]: [usize; 3],
    act: Activation,
    list: Option<Vec<usize>>,
    wanted: Wanted,
) -> linear::Gradient {
    let Some(list) = list else {
        return linear::backward(x, weight, y, g, [rows, inputs, outputs], act, wanted);
    };
    let (x, y, g) = (gather(x, inputs, &list), gather(y, outputs, &list), gather(g, outputs, &list));
    let mut gradient = linear::backward(&x, weight, &y, &g, [list.len(), inputs, outputs], act, wanted);
    if wanted.input {
        let mut all = vec![0.0; rows * inputs];
        scatter(&gradient.input, inputs, &list, &mut all);
        gradient.input = all;
    }
    gradient
}

#[derive(Debug)]
struct ExpertLinear;

impl Backward<Flex, 3> for ExpertLinear {
    type State = State;

    fn backward(self, ops: Ops<State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let State { x, weight, y, act, active } = ops.state;
        let ([x_experts, rows, inputs], [experts, _, outputs]) = (dims(&x), dims(&weight));
        let [x_node, weight_node, bias_node] = ops.parents;
        let wanted =
            Wanted { input: x_node.is_some(), weight: weight_node.is_some(), bias: bias_node.is_some() };
        let tasks: Vec<usize> = (0..experts).collect();
        let parts = map_tasks(tasks, 4 * experts * rows * inputs * outputs, |expert| {
            let slices = [
                part(floats(&x), rows * inputs, expert),
                &floats(&weight)[expert * inputs * outputs..][..inputs * outputs],
                &floats(&y)[expert * rows * outputs..][..rows * outputs],
                &floats(&g)[expert * rows * outputs..][..rows * outputs],
            ];
            let list = active_rows(active.as_ref().map(|a| a.as_slice()), expert, rows);
            backward(slices, [rows, inputs, outputs], act, list, wanted)
        });
        let mut d_x = Vec::with_capacity(x_experts * rows * inputs);
        let mut d_weight = Vec::with_capacity(experts * inputs * outputs);
        let mut d_bias = Vec::with_capacity(experts * outputs);
        for (expert, gradient) in parts.into_iter().enumerate() {
            if x_experts == 1 && expert > 0 {
                for (sum, d) in d_x.iter_mut().zip(gradient.input) {
                    *sum += d;
                }
            } else {
                d_x.extend(gradient.input);
            }
            d_weight.extend(gradient.weight);
            d_bias.extend(gradient.bias);
        }
        if let Some(node) = x_node {
            grads.register::<Flex>(node.id, tensor(d_x, [x_experts, rows, inputs]));
        }
        if let Some(node) = weight_node {
            grads.register::<Flex>(node.id, tensor(d_weight, [experts, inputs, outputs]));
        }
        if let Some(node) = bias_node {
            grads.register::<Flex>(node.id, tensor(d_bias, [experts, outputs]));
        }
    }
}

/// [`crate::expert_linear`] on Flex with its gradient.
pub(super) fn autodiff<C: CheckpointStrategy>(
    [x, weight, bias]: [Tracked<C>; 3],
    act: Activation,
    active: Option<&[bool]>,
) -> Tracked<C> {
    let (state, y) = run([x.primitive, weight.primitive, bias.primitive], act, active);
    match ExpertLinear.prepare::<C>([x.node, weight.node, bias.node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(state, y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}
