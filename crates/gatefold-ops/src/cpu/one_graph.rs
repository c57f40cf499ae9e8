//! An operation of no numbers, which puts many tensors into one of autodiff's graphs.

use burn::backend::{
    Flex,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
};

use super::flat::{Tracked, tensor};

/// Tensors that one operation puts together.
const AT_ONCE: usize = 64;

#[derive(Debug)]
struct OneGraph;

impl Backward<Flex, AT_ONCE> for OneGraph {
    type State = ();

    fn backward(self, _: Ops<(), AT_ONCE>, _: &mut Gradients, _: &mut Checkpointer) {
        unreachable!("nothing is computed from what belongs together");
    }
}

/// [`crate::in_one_graph`] of what Flex computes.
pub(super) fn autodiff<C: CheckpointStrategy>(tensors: &[Tracked<C>]) {
    if tensors.len() < 2 {
        return;
    }
    let together = |some: &[Tracked<C>]| {
        let nodes = std::array::from_fn(|at| some[at.min(some.len() - 1)].node.clone());
        match OneGraph.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((), tensor(Vec::new(), [0])),
            OpsKind::UnTracked(prep) => prep.finish(tensor(Vec::new(), [0])),
        }
    };
    autodiff::<C>(&tensors.chunks(AT_ONCE).map(together).collect::<Vec<_>>());
}
