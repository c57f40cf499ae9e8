//! The PPO loss of a policy and a value function that are MLPs, as one operation.

use burn::tensor::{
    Tensor,
    backend::{AutodiffBackend, Backend},
    ops::FloatTensor,
};

use crate::{FlatMlp, OpsAutodiffBackend, PpoBatch, PpoLossConfig, composed};

/// An MLP and its parameters `[P]`, as [`flat_mlp`](crate::flat_mlp()) takes them.
pub type Network<'a, B> = (&'a FlatMlp, Tensor<B, 1>);

/// A loss, what it was made of, and its gradients; none of it tracked.
#[derive(Debug)]
pub struct Evaluated<B: Backend> {
    /// The loss `[1]`.
    pub loss: Tensor<B, 1>,
    /// Its statistics, see [`ppo_stats`](crate::ppo_stats).
    pub stats: Tensor<B, 1>,
    /// Logits `[R, A]`.
    pub logits: Tensor<B, 2>,
    /// Values `[R]`.
    pub values: Tensor<B, 1>,
    /// The loss's gradients by the parameters `[P]` of actor and critic.
    pub gradients: [FloatTensor<B>; 2],
}

/// [`ppo_loss`](crate::ppo_loss()) of `[R, A]` logits by `actor` and `[R]` values by `critic` of the same data
/// `x` `[R, in]`, with its gradients by their parameters.
///
/// The gradients come with the loss, so that no graph has to be kept of what led to it. On the CPU each chunk
/// of rows goes through a network, its terms of the loss and back while it is in cache; the bits are those of the
/// three operations and their backward passes. `B` is the autodiff backend that finds the gradients elsewhere.
/// Panics if shapes differ.
pub fn flat_ppo_loss<B: OpsAutodiffBackend>(
    x: Tensor<B::InnerBackend, 2>,
    actor: Network<'_, B::InnerBackend>,
    critic: Network<'_, B::InnerBackend>,
    batch: PpoBatch<B::InnerBackend>,
    config: &PpoLossConfig,
) -> Evaluated<B::InnerBackend> {
    actor.0.check(&x, &actor.1);
    critic.0.check(&x, &critic.1);
    assert_eq!(critic.0.outputs(), 1, "flat_ppo_loss: outputs of the critic");
    assert_eq!(x.dims()[0], batch.actions.dims()[0], "flat_ppo_loss: rows of x and of the minibatch");
    B::flat_ppo_loss(x, [actor, critic], batch, config)
}

/// [`flat_ppo_loss`] as three operations and what autodiff finds of them.
pub fn composed<B: OpsAutodiffBackend>(
    x: Tensor<B::InnerBackend, 2>,
    networks: [Network<'_, B::InnerBackend>; 2],
    batch: PpoBatch<B::InnerBackend>,
    config: &PpoLossConfig,
) -> Evaluated<B::InnerBackend> {
    let x = Tensor::<B, 2>::from_inner(x);
    let [actor, critic] = networks.map(|(mlp, all)| (mlp, Tensor::<B, 1>::from_inner(all).require_grad()));
    let logits = composed::flat_mlp(x.clone(), actor.1.clone(), actor.0);
    let values = composed::flat_mlp_column(x, critic.1.clone(), critic.0);
    let (loss, stats) =
        composed::ppo_loss(logits.clone(), values.clone(), PpoBatch::from_inner(batch), config);
    let mut found = loss.backward();
    let gradients = [actor.1, critic.1].map(|leaf| gradient(&leaf, &mut found));
    let [loss, stats, values] = [loss, stats, values].map(Tensor::inner);
    Evaluated { loss, stats, logits: logits.inner(), values, gradients }
}

fn gradient<B: AutodiffBackend>(
    leaf: &Tensor<B, 1>,
    found: &mut B::Gradients,
) -> FloatTensor<B::InnerBackend> {
    let gradient = leaf.grad_remove(found).expect("the loss depends on both networks");
    gradient.into_primitive().tensor()
}
