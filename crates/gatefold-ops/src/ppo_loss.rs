//! The PPO loss of a masked categorical policy and its value head.

use burn::tensor::{
    Bool, Int, Tensor,
    backend::{AutodiffBackend, Backend},
};

use crate::{OpsBackend, masked_softmax::selected_log_softmax};

/// The recorded side of a PPO minibatch: data, without gradient.
#[derive(Debug, Clone)]
pub struct PpoBatch<B: Backend> {
    /// Actions taken, `[B]`.
    pub actions: Tensor<B, 1, Int>,
    /// Allowed actions, `[B, A]`, `true` = allowed; `None` = all.
    pub mask: Option<Tensor<B, 2, Bool>>,
    /// Log-probabilities of the actions at rollout time, `[B]`.
    pub old_log_probs: Tensor<B, 1>,
    /// Advantages, already normalised, `[B]`.
    pub advantages: Tensor<B, 1>,
    /// Value targets, `[B]`.
    pub returns: Tensor<B, 1>,
    /// Values at rollout time, `[B]`; read only when values are clipped.
    pub old_values: Tensor<B, 1>,
}

impl<B: Backend> PpoBatch<B> {
    /// Panics unless there are so many of everything.
    pub(crate) fn check(&self, rows: usize) {
        let lengths = [
            self.actions.dims()[0],
            self.old_log_probs.dims()[0],
            self.advantages.dims()[0],
            self.returns.dims()[0],
            self.old_values.dims()[0],
        ];
        assert!(lengths == [rows; 5], "PpoBatch: {rows} rows, data of lengths {lengths:?}");
        if let Some(mask) = &self.mask {
            assert_eq!(mask.dims()[0], rows, "PpoBatch: rows of the mask");
        }
    }
}

impl<B: AutodiffBackend> PpoBatch<B> {
    /// The same data on the inner backend.
    pub fn inner(self) -> PpoBatch<B::InnerBackend> {
        PpoBatch {
            actions: self.actions.inner(),
            mask: self.mask.map(Tensor::inner),
            old_log_probs: self.old_log_probs.inner(),
            advantages: self.advantages.inner(),
            returns: self.returns.inner(),
            old_values: self.old_values.inner(),
        }
    }

    /// Data of the inner backend.
    pub fn from_inner(batch: PpoBatch<B::InnerBackend>) -> Self {
        Self {
            actions: Tensor::from_inner(batch.actions),
            mask: batch.mask.map(Tensor::from_inner),
            old_log_probs: Tensor::from_inner(batch.old_log_probs),
            advantages: Tensor::from_inner(batch.advantages),
            returns: Tensor::from_inner(batch.returns),
            old_values: Tensor::from_inner(batch.old_values),
        }
    }
}

/// The numbers of the PPO loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PpoLossConfig {
    /// Half-width of the trusted ratio band.
    pub clip: f32,
    /// Half-width of the trusted band around the old value; `None` = no value clipping.
    pub value_clip: Option<f32>,
    /// Weight of the value loss.
    pub value_coef: f32,
    /// Weight of the entropy bonus.
    pub entropy_coef: f32,
}

/// Positions in the statistics that [`ppo_loss`] returns.
pub mod ppo_stats {
    /// Mean clipped surrogate, the policy part of the loss.
    pub const POLICY_LOSS: usize = 0;
    /// Half the mean squared value error, before its coefficient.
    pub const VALUE_LOSS: usize = 1;
    /// Mean entropy of the policy, in nats.
    pub const ENTROPY: usize = 2;
    /// Mean of `(ratio - 1) - log ratio`.
    pub const APPROX_KL: usize = 3;
    /// Fraction of rows with `|ratio - 1| > clip`.
    pub const CLIP_FRACTION: usize = 4;
    /// Largest `|ratio - 1|`.
    pub const MAX_RATIO_DEVIATION: usize = 5;
    /// Number of statistics.
    pub const COUNT: usize = 6;
}

/// The PPO loss `[1]` and its statistics `[6]` (untracked, see [`ppo_stats`]).
///
/// `loss = policy_loss + value_coef * value_loss - entropy_coef * entropy`, where
/// `policy_loss = mean max(-adv * ratio, -adv * clamp(ratio, 1 - clip, 1 + clip))`,
/// `value_loss = 0.5 * mean (V - R)^2`, with value clipping
/// `0.5 * mean max((V - R)^2, (V_old + clamp(V - V_old, -c, c) - R)^2)`, and
/// `entropy = mean -sum p log p` over the allowed actions.
///
/// Shapes: `logits` `[B, A]`, `values` `[B]`. Masked entries take no part and get gradient 0; they
/// may be `-inf`. Any other NaN or infinity in the logits, masked or not, makes the loss NaN.
/// Every action must be an allowed one. Panics if shapes differ or an action is not below `A`.
/// Source: Schulman et al. 2017, arXiv 1707.06347.
pub fn ppo_loss<B: OpsBackend>(
    logits: Tensor<B, 2>,
    values: Tensor<B, 1>,
    batch: PpoBatch<B>,
    config: &PpoLossConfig,
) -> (Tensor<B, 1>, Tensor<B, 1>) {
    let [rows, num_actions] = logits.dims();
    assert!(rows > 0, "ppo_loss: an empty minibatch has no mean");
    assert_eq!(values.dims(), [rows], "ppo_loss: rows of values and of logits");
    batch.check(rows);
    if let Some(mask) = &batch.mask {
        assert_eq!(mask.dims(), [rows, num_actions], "ppo_loss: shape of the mask");
    }
    B::ppo_loss(logits, values, batch, config)
}

/// [`ppo_loss`] by plain tensor operations.
pub fn composed<B: Backend>(
    logits: Tensor<B, 2>,
    values: Tensor<B, 1>,
    batch: PpoBatch<B>,
    config: &PpoLossConfig,
) -> (Tensor<B, 1>, Tensor<B, 1>) {
    let PpoBatch { actions, mask, old_log_probs, advantages, returns, old_values } = batch;
    let masked = mask.map(Tensor::bool_not);

    // Masked logits are never used below, so a NaN there has to be carried over by hand.
    let raw = logits.clone().detach();
    let poison = match &masked {
        None => raw.mul_scalar(0.0).sum(),
        Some(masked) => {
            let harmless = raw.clone().equal_elem(f32::NEG_INFINITY).bool_and(masked.clone());
            raw.mask_fill(harmless, 0.0).mul_scalar(0.0).sum()
        }
    };

    let log_probs = selected_log_softmax(logits, masked.clone()); // [B, A]
    let mut p_log_p = log_probs.clone().exp() * log_probs.clone();
    if let Some(masked) = masked {
        p_log_p = p_log_p.mask_fill(masked, 0.0);
    }
    let entropy = p_log_p.sum_dim(1).neg().mean(); // [1]

    let taken = log_probs.gather(1, actions.unsqueeze_dim(1)).squeeze_dim::<1>(1); // [B]
    let log_ratio = taken - old_log_probs;
    let ratio = log_ratio.clone().exp();
    let unclipped = advantages.clone().neg() * ratio.clone();
    let clipped = advantages.neg() * ratio.clone().clamp(1.0 - config.clip, 1.0 + config.clip);
    let policy_loss = larger(unclipped, clipped).mean();

    let squared = (values.clone() - returns.clone()).square();
    let value_loss = match config.value_clip {
        None => squared,
        Some(c) => {
            let near = old_values.clone() + (values - old_values).clamp(-c, c);
            larger(squared, (near - returns).square())
        }
    }
    .mean()
        * 0.5;

    let loss = policy_loss.clone() + value_loss.clone() * config.value_coef
        - entropy.clone() * config.entropy_coef
        + poison;
    let (ratio, log_ratio) = (ratio.detach(), log_ratio.detach());
    let deviation = ratio.sub_scalar(1.0);
    let stats = Tensor::cat(
        vec![
            policy_loss.detach(),
            value_loss.detach(),
            entropy.detach(),
            (deviation.clone() - log_ratio).mean(),
            deviation.clone().abs().greater_elem(config.clip).float().mean(),
            deviation.abs().max(),
        ],
        0,
    );
    (loss, stats)
}

/// The larger of two, `b` on ties, by selection; a NaN in `b` is kept, one in `a` too because both
/// come from the same source.
fn larger<B: Backend, const D: usize>(a: Tensor<B, D>, b: Tensor<B, D>) -> Tensor<B, D> {
    let first = a.clone().greater(b.clone());
    b.mask_where(first, a)
}
