//! The linear layers of K experts on packed rows, and their backward pass.
//!
//! An expert's rows lie side by side, so each expert is one call of the linear kernel, which reads and
//! writes them in place.

// K experts, P pairs, I inputs, O outputs

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
    zeros::{remember, zeros},
};
use crate::{Activation, ActivePairs};

/// What the backward pass needs.
#[derive(Debug, Clone)]
pub(super) struct State {
    x: FlexTensor,
    weight: FlexTensor,
    y: FlexTensor,
    act: Activation,
    pairs: ActivePairs,
}

/// Experts that have rows.
fn busy(pairs: &ActivePairs) -> impl Iterator<Item = usize> {
    (0..pairs.num_experts()).filter(|&expert| !pairs.of_expert(expert).is_empty())
}

/// More weights than this do not stay in a core's own cache from one pass to the next.
const MANY: usize = 1 << 17;

/// The weight of an expert, and of the next one that has rows if there are so many that they have to come from memory.
fn weight_of<'a>(all: &'a FlexTensor, pairs: &ActivePairs, expert: usize) -> Weight<'a> {
    let [_, inputs, outputs] = dims(all);
    let of = |expert: usize| &floats(all)[expert * inputs * outputs..][..inputs * outputs];
    let busy = |&next: &usize| !pairs.of_expert(next).is_empty();
    let next = (expert + 1..pairs.num_experts()).find(busy).filter(|_| floats(all).len() > MANY);
    Weight { own: of(expert), next: next.map_or(&[], of) }
}

fn run([x, weight, bias]: [FlexTensor; 3], act: Activation, pairs: &ActivePairs) -> (State, FlexTensor) {
    let [x, weight, bias] = [x, weight, bias].map(row_major);
    let [_, inputs, outputs] = dims(&weight);
    let mut y = Unset::new(pairs.len() * outputs);
    let mut rest = y.whole();
    let own = |expert| (expert, rest.take(pairs.of_expert(expert).len() * outputs));
    let tasks = busy(pairs).map(own).collect();
    map_tasks(tasks, 2 * pairs.len() * inputs * outputs, |(expert, y)| {
        let own = pairs.of_expert(expert);
        let x = &floats(&x)[own.start * inputs..own.end * inputs];
        let weight = weight_of(&weight, pairs, expert);
        let bias = &floats(&bias)[expert * outputs..][..outputs];
        linear::forward(x, weight, bias, [own.len(), inputs, outputs], act, y);
    });
    let y = tensor(y.finish(), [pairs.len(), outputs]);
    (State { x, weight, y: y.clone(), act, pairs: pairs.clone() }, y)
}

/// [`crate::packed_expert_linear`] on Flex.
pub(super) fn flex(inputs: [FlexTensor; 3], act: Activation, pairs: &ActivePairs) -> FlexTensor {
    run(inputs, act, pairs).1
}

#[derive(Debug)]
struct PackedLinear;

impl Backward<Flex, 3> for PackedLinear {
    type State = State;

    fn backward(self, ops: Ops<State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let State { x, weight, y, act, pairs } = ops.state;
        let [experts, inputs, outputs] = dims(&weight);
        let [x_node, weight_node, bias_node] = ops.parents;
        let size = |wanted: bool, size: usize| if wanted { size } else { 0 };
        let x_width = size(x_node.is_some(), inputs);
        let weight_size = size(weight_node.is_some(), inputs * outputs);
        let bias_size = size(bias_node.is_some(), outputs);
        let mut d_x = Unset::new(pairs.len() * x_width);
        // An expert without rows keeps its zeros.
        let written: Vec<_> = busy(&pairs).map(|of| of * weight_size..(of + 1) * weight_size).collect();
        let mut d_weight = zeros(experts * weight_size, &written);
        let mut d_bias = vec![0.0; experts * bias_size];
        let into = Into { input: d_x.whole(), weight: d_weight.storage_mut(), bias: &mut d_bias };
        let rows: Vec<usize> = (0..experts).map(|expert| pairs.of_expert(expert).len()).collect();
        let tasks = into.split(&rows).into_iter().enumerate().filter(|&(expert, _)| rows[expert] > 0);
        map_tasks(tasks.collect(), 4 * pairs.len() * inputs * outputs, |(expert, into)| {
            let own = pairs.of_expert(expert);
            let of = |t, width| &floats(t)[own.start * width..own.end * width];
            let weight = weight_of(&weight, &pairs, expert);
            let shape = [own.len(), inputs, outputs];
            linear::backward_into(of(&x, inputs), weight, of(&y, outputs), of(&g, outputs), shape, act, into);
        });
        if let Some(node) = x_node {
            grads.register::<Flex>(node.id, tensor(d_x.finish(), [pairs.len(), inputs]));
        }
        if let Some(node) = weight_node {
            remember(&d_weight, written);
            grads.register::<Flex>(node.id, d_weight.reshape([experts, inputs, outputs].into()));
        }
        if let Some(node) = bias_node {
            grads.register::<Flex>(node.id, tensor(d_bias, [experts, outputs]));
        }
    }
}

/// [`crate::packed_expert_linear`] on Flex with its gradient.
pub(super) fn autodiff<C: CheckpointStrategy>(
    [x, weight, bias]: [Tracked<C>; 3],
    act: Activation,
    pairs: &ActivePairs,
) -> Tracked<C> {
    let (state, y) = run([x.primitive, weight.primitive, bias.primitive], act, pairs);
    match PackedLinear.prepare::<C>([x.node, weight.node, bias.node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(state, y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}
