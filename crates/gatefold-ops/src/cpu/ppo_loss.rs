//! The masked categorical head and the PPO loss, with all gradients, in one pass over the rows.

use burn::backend::{
    Autodiff, Flex,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    flex::FlexTensor,
};
use burn::tensor::Tensor;

use super::{
    flat::{Tracked, dims, flags, floats, indices, row_major, tensor, unwrap, wrap},
    level::multiversion,
    math::exp,
};
use crate::{PpoBatch, PpoLossConfig, ppo_stats};

/// Log-softmax of one row over its allowed entries; `keep` gets each entry's `exp(z - max)`.
/// Returns their sum. The one definition for rollouts on the host and for the loss.
#[inline(always)]
fn log_softmax<const FMA: bool>(
    z: &[f32],
    allowed: impl Fn(usize) -> bool,
    log_probs: &mut [f32],
    mut keep: impl FnMut(usize, f32),
) -> f32 {
    let mut max = f32::NEG_INFINITY;
    for (a, &z) in z.iter().enumerate() {
        if allowed(a) && z > max {
            max = z;
        }
    }
    let mut sum = 0.0;
    for (a, &z) in z.iter().enumerate() {
        log_probs[a] = if allowed(a) { z - max } else { f32::NEG_INFINITY };
        let e = exp::<FMA>(log_probs[a]);
        keep(a, e);
        sum += e;
    }
    let log_sum = sum.ln();
    for (a, log_prob) in log_probs.iter_mut().enumerate() {
        if allowed(a) {
            *log_prob -= log_sum;
        }
    }
    sum
}

multiversion! {
    pub(crate) fn log_softmax_row(logits: &[f32], mask: Option<&[bool]>, log_probs: &mut [f32]) = row_body
}

#[inline(always)]
fn row_body<const FMA: bool>(logits: &[f32], mask: Option<&[bool]>, log_probs: &mut [f32]) {
    match mask {
        None => log_softmax::<FMA>(logits, |_| true, log_probs, |_, _| {}),
        Some(mask) => log_softmax::<FMA>(logits, |a| mask[a], log_probs, |_, _| {}),
    };
}

/// A minibatch as slices.
struct Rows<'a> {
    logits: &'a [f32],
    values: &'a [f32],
    actions: &'a [usize],
    mask: Option<&'a [bool]>,
    old_log_probs: &'a [f32],
    advantages: &'a [f32],
    returns: &'a [f32],
    old_values: &'a [f32],
    num_actions: usize,
}

/// The loss, its statistics, and its gradients.
struct Outcome {
    loss: f32,
    stats: [f32; ppo_stats::COUNT],
    logits: Vec<f32>,
    values: Vec<f32>,
}

multiversion! {
    fn evaluate(rows: &Rows<'_>, config: &PpoLossConfig) -> Outcome = evaluate_body
}

#[inline(always)]
fn evaluate_body<const FMA: bool>(rows: &Rows<'_>, config: &PpoLossConfig) -> Outcome {
    let (count, num_actions) = (rows.values.len(), rows.num_actions);
    let share = 1.0 / count as f32;
    let mut d_logits = vec![0.0; count * num_actions];
    let mut d_values = vec![0.0; count];
    let (mut log_probs, mut probs) = (vec![0.0; num_actions], vec![0.0; num_actions]);
    let mut poisoned = false;
    let [mut policy, mut value, mut entropy, mut kl, mut clipped] = [0.0f64; 5];
    let mut deviation = 0.0f32;

    for b in 0..count {
        let range = b * num_actions..(b + 1) * num_actions;
        let z = &rows.logits[range.clone()];
        let mask = rows.mask.map(|mask| &mask[range.clone()]);
        let allowed = |a: usize| mask.is_none_or(|mask| mask[a]);
        // A masked entry is never used below, so what is wrong with it has to be noted here.
        poisoned |= (0..num_actions).any(|a| !allowed(a) && (z[a].is_nan() || z[a] == f32::INFINITY));

        let sum = log_softmax::<FMA>(z, allowed, &mut log_probs, |a, e| probs[a] = e);
        let mut row_entropy = 0.0;
        for a in 0..num_actions {
            probs[a] /= sum;
            if allowed(a) {
                row_entropy -= probs[a] * log_probs[a];
            }
        }

        let action = rows.actions[b];
        let advantage = rows.advantages[b];
        let log_ratio = log_probs[action] - rows.old_log_probs[b];
        let ratio = exp::<FMA>(log_ratio);
        let (low, high) = (1.0 - config.clip, 1.0 + config.clip);
        let (free, bound) = (-advantage * ratio, -advantage * ratio.clamp(low, high));
        let inside = ratio >= low && ratio <= high;
        policy += f64::from(if free > bound { free } else { bound });
        let d_ratio = if free > bound || inside || ratio.is_nan() { -advantage } else { 0.0 };
        let d_log_prob = share * d_ratio * ratio;

        let bonus = share * config.entropy_coef;
        for (a, d) in d_logits[range].iter_mut().enumerate() {
            if allowed(a) {
                let taken = if a == action { 1.0 } else { 0.0 };
                *d = d_log_prob * (taken - probs[a]) + bonus * probs[a] * (log_probs[a] + row_entropy);
            }
        }

        let error = rows.values[b] - rows.returns[b];
        let (row_value, d_value) = match config.value_clip {
            None => (error * error, error),
            Some(c) => {
                let moved = rows.values[b] - rows.old_values[b];
                let near = rows.old_values[b] + moved.clamp(-c, c) - rows.returns[b];
                if error * error > near * near {
                    (error * error, error)
                } else {
                    (near * near, if moved.abs() > c { 0.0 } else { near })
                }
            }
        };
        value += f64::from(row_value);
        d_values[b] = share * config.value_coef * d_value;

        entropy += f64::from(row_entropy);
        kl += f64::from(ratio - 1.0 - log_ratio);
        let off = (ratio - 1.0).abs();
        clipped += if off > config.clip { 1.0 } else { 0.0 };
        deviation = if off > deviation || off.is_nan() { off } else { deviation };
    }

    let mean = |sum: f64| (sum / count as f64) as f32;
    let stats = [mean(policy), 0.5 * mean(value), mean(entropy), mean(kl), mean(clipped), deviation];
    let loss = stats[ppo_stats::POLICY_LOSS] + config.value_coef * stats[ppo_stats::VALUE_LOSS]
        - config.entropy_coef * stats[ppo_stats::ENTROPY];
    let loss = if poisoned { f32::NAN } else { loss };
    Outcome { loss, stats, logits: d_logits, values: d_values }
}

fn run(logits: FlexTensor, values: FlexTensor, batch: PpoBatch<Flex>, config: &PpoLossConfig) -> Outcome {
    let (logits, values) = (row_major(logits), row_major(values));
    let [_, num_actions] = dims(&logits);
    let data = |t: Tensor<Flex, 1>| row_major(unwrap(t));
    let (old_log_probs, advantages) = (data(batch.old_log_probs), data(batch.advantages));
    let (returns, old_values) = (data(batch.returns), data(batch.old_values));
    let actions = indices(&batch.actions.into_primitive());
    if let Some(action) = actions.iter().find(|&&a| a >= num_actions) {
        panic!("ppo_loss: action {action}, but there are {num_actions}");
    }
    let mask = batch.mask.map(|mask| flags(&mask.into_primitive()));
    let rows = Rows {
        logits: floats(&logits),
        values: floats(&values),
        actions: &actions,
        mask: mask.as_deref(),
        old_log_probs: floats(&old_log_probs),
        advantages: floats(&advantages),
        returns: floats(&returns),
        old_values: floats(&old_values),
        num_actions,
    };
    evaluate(&rows, config)
}

/// [`crate::ppo_loss`] on Flex.
pub(super) fn flex(
    logits: FlexTensor,
    values: FlexTensor,
    batch: PpoBatch<Flex>,
    config: &PpoLossConfig,
) -> (FlexTensor, FlexTensor) {
    let outcome = run(logits, values, batch, config);
    (tensor(vec![outcome.loss], [1]), tensor(outcome.stats.to_vec(), [ppo_stats::COUNT]))
}

#[derive(Debug)]
struct PpoLoss;

impl Backward<Flex, 2> for PpoLoss {
    /// Gradients of logits and values at a loss gradient of 1.
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let factor = floats(&g)[0];
        let (d_logits, d_values) = ops.state;
        let [logits_node, values_node] = ops.parents;
        let scaled = |d: FlexTensor| {
            let mut d = d;
            if factor != 1.0 {
                d.storage_mut::<f32>().iter_mut().for_each(|d| *d *= factor);
            }
            d
        };
        if let Some(node) = logits_node {
            grads.register::<Flex>(node.id, scaled(d_logits));
        }
        if let Some(node) = values_node {
            grads.register::<Flex>(node.id, scaled(d_values));
        }
    }
}

/// [`crate::ppo_loss`] on Flex with its gradient.
pub(super) fn autodiff<C: CheckpointStrategy>(
    logits: Tracked<C>,
    values: Tracked<C>,
    batch: PpoBatch<Autodiff<Flex, C>>,
    config: &PpoLossConfig,
) -> (Tracked<C>, Tracked<C>) {
    let batch = PpoBatch {
        actions: batch.actions.inner(),
        mask: batch.mask.map(Tensor::inner),
        old_log_probs: batch.old_log_probs.inner(),
        advantages: batch.advantages.inner(),
        returns: batch.returns.inner(),
        old_values: batch.old_values.inner(),
    };
    let [rows, num_actions] = dims(&logits.primitive);
    let outcome = run(logits.primitive, values.primitive, batch, config);
    let loss = tensor(vec![outcome.loss], [1]);
    let stats = wrap::<Flex, 1>(tensor(outcome.stats.to_vec(), [ppo_stats::COUNT]));
    let state = (tensor(outcome.logits, [rows, num_actions]), tensor(outcome.values, [rows]));
    let loss = match PpoLoss.prepare::<C>([logits.node, values.node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(state, loss),
        OpsKind::UnTracked(prep) => prep.finish(loss),
    };
    (loss, unwrap(Tensor::<Autodiff<Flex, C>, 1>::from_inner(stats)))
}
