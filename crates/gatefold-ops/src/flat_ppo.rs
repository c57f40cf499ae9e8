//! The PPO loss of a policy and a value function that are MLPs, as one operation.

use burn::tensor::Tensor;

use crate::{FlatMlp, OpsAutodiffBackend, OpsBackend, PpoBatch, PpoLossConfig, composed};

/// An MLP and its parameters `[P]`, as [`flat_mlp`](crate::flat_mlp()) takes them.
pub type Network<'a, B> = (&'a FlatMlp, Tensor<B, 1>);

/// A loss and what it was made of.
#[derive(Debug)]
pub struct Evaluated<B: OpsBackend> {
    /// The loss `[1]`, with its gradient by the parameters.
    pub loss: Tensor<B, 1>,
    /// Its statistics, see [`ppo_stats`](crate::ppo_stats); untracked.
    pub stats: Tensor<B, 1>,
    /// Logits `[R, A]`, untracked.
    pub logits: Tensor<B, 2>,
    /// Values `[R]`, untracked.
    pub values: Tensor<B, 1>,
}

/// [`ppo_loss`](crate::ppo_loss()) of `[R, A]` logits by `actor` and `[R]` values by `critic` of the same data
/// `x` `[R, in]`, which gets no gradient.
///
/// On the CPU each chunk of rows goes through both networks, the loss and back while it is in cache; the bits
/// are those of the three operations. Panics if shapes differ.
pub fn flat_ppo_loss<B: OpsAutodiffBackend>(
    x: Tensor<B, 2>,
    actor: Network<'_, B>,
    critic: Network<'_, B>,
    batch: PpoBatch<B>,
    config: &PpoLossConfig,
) -> Evaluated<B> {
    actor.0.check(&x, &actor.1);
    critic.0.check(&x, &critic.1);
    assert_eq!(critic.0.outputs(), 1, "flat_ppo_loss: outputs of the critic");
    assert_eq!(x.dims()[0], batch.actions.dims()[0], "flat_ppo_loss: rows of x and of the minibatch");
    B::flat_ppo_loss(x, [actor, critic], batch, config)
}

/// [`flat_ppo_loss`] as three operations.
pub fn composed<B: OpsBackend>(
    x: Tensor<B, 2>,
    [actor, critic]: [Network<'_, B>; 2],
    batch: PpoBatch<B>,
    config: &PpoLossConfig,
) -> Evaluated<B> {
    let logits = composed::flat_mlp(x.clone(), actor.1, actor.0);
    let values = composed::flat_mlp_column(x, critic.1, critic.0);
    let (loss, stats) = composed::ppo_loss(logits.clone(), values.clone(), batch, config);
    Evaluated { loss, stats, logits: logits.detach(), values: values.detach() }
}
