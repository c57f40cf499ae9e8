//! The linear layers of K experts on all rows, and their backward pass: the linear kernel, expert by expert.

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
    linear::{self, Into, Weight},
    unset::Unset,
};
use crate::Activation;

/// What the backward pass needs.
#[derive(Debug, Clone)]
pub(super) struct State {
    x: FlexTensor,
    weight: FlexTensor,
    y: FlexTensor,
    act: Activation,
}

/// Expert `k`'s part of a `[K, _, _]` tensor, or the whole of a shared `[1, _, _]` one.
fn part(of: &[f32], size: usize, expert: usize) -> &[f32] {
    if of.len() == size { of } else { &of[expert * size..(expert + 1) * size] }
}

/// Adds all further parts of a size to the first, and drops them.
fn add_to_first(parts: &mut Vec<f32>, size: usize) {
    let (first, rest) = parts.split_at_mut(size);
    for part in rest.chunks_exact(size.max(1)) {
        for (sum, d) in first.iter_mut().zip(part) {
            *sum += d;
        }
    }
    parts.truncate(size);
}

fn run([x, weight, bias]: [FlexTensor; 3], act: Activation) -> (State, FlexTensor) {
    let [x, weight, bias] = [x, weight, bias].map(row_major);
    let ([_, rows, inputs], [experts, _, outputs]) = (dims(&x), dims(&weight));
    let mut y = Unset::new(experts * rows * outputs);
    let mut rest = y.whole();
    if !rest.is_empty() {
        let tasks = (0..experts).map(|expert| (expert, rest.take(rows * outputs))).collect();
        map_tasks(tasks, 2 * experts * rows * inputs * outputs, |(expert, y)| {
            let x = part(floats(&x), rows * inputs, expert);
            let weight = &floats(&weight)[expert * inputs * outputs..][..inputs * outputs];
            let bias = &floats(&bias)[expert * outputs..][..outputs];
            linear::forward(x, Weight::alone(weight), bias, [rows, inputs, outputs], act, y);
        });
    }
    let y = tensor(y.finish(), [experts, rows, outputs]);
    (State { x, weight, y: y.clone(), act }, y)
}

/// [`crate::expert_linear`] on Flex.
pub(super) fn flex(inputs: [FlexTensor; 3], act: Activation) -> FlexTensor {
    run(inputs, act).1
}

#[derive(Debug)]
struct ExpertLinear;

impl Backward<Flex, 3> for ExpertLinear {
    type State = State;

    fn backward(self, ops: Ops<State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let State { x, weight, y, act } = ops.state;
        let ([x_experts, rows, inputs], [experts, _, outputs]) = (dims(&x), dims(&weight));
        let [x_node, weight_node, bias_node] = ops.parents;
        let size = |wanted: bool, size: usize| if wanted { experts * size } else { 0 };
        let mut d_x = Unset::new(size(x_node.is_some(), rows * inputs));
        let mut d_weight = vec![0.0; size(weight_node.is_some(), inputs * outputs)];
        let mut d_bias = vec![0.0; size(bias_node.is_some(), outputs)];
        let into = Into { input: d_x.whole(), weight: &mut d_weight, bias: &mut d_bias };
        let tasks = into.split(&vec![rows; experts]).into_iter().enumerate().collect();
        map_tasks(tasks, 4 * experts * rows * inputs * outputs, |(expert, into)| {
            let x = part(floats(&x), rows * inputs, expert);
            let weight = &floats(&weight)[expert * inputs * outputs..][..inputs * outputs];
            let of = |t| &floats(t)[expert * rows * outputs..][..rows * outputs];
            linear::backward_into(
                x,
                Weight::alone(weight),
                of(&y),
                of(&g),
                [rows, inputs, outputs],
                act,
                into,
            );
        });
        if let Some(node) = x_node {
            let mut d_x = d_x.finish();
            if x_experts < experts {
                add_to_first(&mut d_x, rows * inputs);
            }
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
) -> Tracked<C> {
    let (state, y) = run([x.primitive, weight.primitive, bias.primitive], act);
    match ExpertLinear.prepare::<C>([x.node, weight.node, bias.node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(state, y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}
