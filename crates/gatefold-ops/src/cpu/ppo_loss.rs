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
    math::{exp, ln},
};
use crate::{PpoBatch, PpoLossConfig, ppo_stats};

// B rows, A actions, L rows side by side in the lanes

/// Rows that are computed side by side; the same number at every SIMD level.
const LANES: usize = 16;

/// One number for each of some rows.
type Lane = [f32; LANES];

multiversion! {
    /// Log-softmax of one row over its allowed entries, for the host: with the bits that the loss has.
    pub(crate) fn log_softmax_row(logits: &[f32], mask: Option<&[bool]>, log_probs: &mut [f32]) = row_body
}

#[inline(always)]
fn row_body<const FMA: bool>(logits: &[f32], mask: Option<&[bool]>, log_probs: &mut [f32]) {
    let mut max = f32::NEG_INFINITY;
    for (a, &z) in logits.iter().enumerate() {
        let z = if mask.is_none_or(|mask| mask[a]) { z } else { f32::NEG_INFINITY };
        log_probs[a] = z;
        max = if z > max { z } else { max };
    }
    let mut sum = 0.0;
    for log_prob in log_probs.iter_mut() {
        *log_prob -= max;
        sum += exp::<FMA>(*log_prob);
    }
    let log_sum = ln::<FMA>(sum);
    log_probs.iter_mut().for_each(|log_prob| *log_prob -= log_sum);
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

/// Log-probabilities and probabilities of `LANES` rows, action by action.
struct Head {
    log_probs: Vec<Lane>,
    probs: Vec<Lane>,
    allowed: Vec<[bool; LANES]>,
    entropy: Lane,
    /// Whether a masked logit is NaN or infinite: it is never used, so what is wrong with it is noted.
    poisoned: bool,
}

impl Head {
    fn new(num_actions: usize) -> Self {
        Self {
            log_probs: vec![[0.0; LANES]; num_actions],
            probs: vec![[0.0; LANES]; num_actions],
            allowed: vec![[true; LANES]; num_actions],
            entropy: [0.0; LANES],
            poisoned: false,
        }
    }

    /// Computes the rows of these indices.
    #[inline(always)]
    fn compute<const FMA: bool>(&mut self, rows: &Rows<'_>, of: &[usize; LANES]) {
        let num_actions = rows.num_actions;
        let Self { log_probs, probs, allowed, entropy, poisoned } = self;
        for a in 0..num_actions {
            for l in 0..LANES {
                log_probs[a][l] = rows.logits[of[l] * num_actions + a];
            }
        }
        if let Some(mask) = rows.mask {
            for a in 0..num_actions {
                for l in 0..LANES {
                    allowed[a][l] = mask[of[l] * num_actions + a];
                    if !allowed[a][l] {
                        let z = log_probs[a][l];
                        *poisoned |= z.is_nan() || z == f32::INFINITY;
                        log_probs[a][l] = f32::NEG_INFINITY;
                    }
                }
            }
        }
        let mut max = [f32::NEG_INFINITY; LANES];
        for z in log_probs.iter() {
            for l in 0..LANES {
                max[l] = if z[l] > max[l] { z[l] } else { max[l] };
            }
        }
        let mut sum = [0.0; LANES];
        for (z, p) in log_probs.iter_mut().zip(probs.iter_mut()) {
            for l in 0..LANES {
                z[l] -= max[l];
                p[l] = exp::<FMA>(z[l]);
                sum[l] += p[l];
            }
        }
        let mut log_sum = [0.0; LANES];
        for l in 0..LANES {
            log_sum[l] = ln::<FMA>(sum[l]);
        }
        *entropy = [0.0; LANES];
        for ((log_p, p), allowed) in log_probs.iter_mut().zip(probs.iter_mut()).zip(allowed.iter()) {
            for l in 0..LANES {
                log_p[l] -= log_sum[l];
                p[l] /= sum[l];
                entropy[l] -= if allowed[l] { p[l] * log_p[l] } else { 0.0 };
            }
        }
    }
}

/// The sums of the statistics, in the order of rows.
#[derive(Default)]
struct Totals {
    policy: f64,
    value: f64,
    entropy: f64,
    kl: f64,
    clipped: f64,
    deviation: f32,
}

#[inline(always)]
fn evaluate_body<const FMA: bool>(rows: &Rows<'_>, config: &PpoLossConfig) -> Outcome {
    let (count, num_actions) = (rows.values.len(), rows.num_actions);
    let share = 1.0 / count as f32;
    let mut d_logits = vec![0.0; count * num_actions];
    let mut d_values = vec![0.0; count];
    let mut head = Head::new(num_actions);
    let mut totals = Totals::default();
    for first in (0..count).step_by(LANES) {
        let present = LANES.min(count - first);
        // Lanes beyond the last row repeat it.
        let of: [usize; LANES] = std::array::from_fn(|l| first + l.min(present - 1));
        let lane = |all: &[f32]| -> Lane { std::array::from_fn(|l| all[of[l]]) };
        head.compute::<FMA>(rows, &of);

        let taken: [usize; LANES] = std::array::from_fn(|l| rows.actions[of[l]]);
        let log_prob: Lane = std::array::from_fn(|l| head.log_probs[taken[l]][l]);
        let (old_log_prob, advantage) = (lane(rows.old_log_probs), lane(rows.advantages));
        let (low, high) = (1.0 - config.clip, 1.0 + config.clip);
        let [mut log_ratio, mut ratio, mut policy, mut d_log_prob] = [[0.0; LANES]; 4];
        for l in 0..LANES {
            log_ratio[l] = log_prob[l] - old_log_prob[l];
            ratio[l] = exp::<FMA>(log_ratio[l]);
            let (free, bound) = (-advantage[l] * ratio[l], -advantage[l] * ratio[l].clamp(low, high));
            let inside = ratio[l] >= low && ratio[l] <= high;
            policy[l] = if free > bound { free } else { bound };
            let d_ratio = if free > bound || inside || ratio[l].is_nan() { -advantage[l] } else { 0.0 };
            d_log_prob[l] = share * d_ratio * ratio[l];
        }

        let bonus = share * config.entropy_coef;
        for a in 0..num_actions {
            let (p, log_p) = (&head.probs[a], &head.log_probs[a]);
            let mut d = [0.0; LANES];
            for l in 0..LANES {
                let chosen = if a == taken[l] { 1.0 } else { 0.0 };
                d[l] = d_log_prob[l] * (chosen - p[l]) + bonus * p[l] * (log_p[l] + head.entropy[l]);
            }
            for l in 0..present {
                if head.allowed[a][l] {
                    d_logits[(first + l) * num_actions + a] = d[l];
                }
            }
        }

        let (values, returns) = (lane(rows.values), lane(rows.returns));
        let (mut value, mut d_value) = ([0.0; LANES], [0.0; LANES]);
        match config.value_clip {
            None => {
                for l in 0..LANES {
                    let error = values[l] - returns[l];
                    (value[l], d_value[l]) = (error * error, error);
                }
            }
            Some(c) => {
                let old_values = lane(rows.old_values);
                for l in 0..LANES {
                    let error = values[l] - returns[l];
                    let moved = values[l] - old_values[l];
                    let near = old_values[l] + moved.clamp(-c, c) - returns[l];
                    let free = error * error > near * near;
                    let d_near = if moved.abs() > c { 0.0 } else { near };
                    value[l] = if free { error * error } else { near * near };
                    d_value[l] = if free { error } else { d_near };
                }
            }
        }
        for l in 0..present {
            d_values[first + l] = share * config.value_coef * d_value[l];
            totals.policy += f64::from(policy[l]);
            totals.value += f64::from(value[l]);
            totals.entropy += f64::from(head.entropy[l]);
            totals.kl += f64::from(ratio[l] - 1.0 - log_ratio[l]);
            let off = (ratio[l] - 1.0).abs();
            totals.clipped += if off > config.clip { 1.0 } else { 0.0 };
            totals.deviation = if off > totals.deviation || off.is_nan() { off } else { totals.deviation };
        }
    }

    let mean = |sum: f64| (sum / count as f64) as f32;
    let Totals { policy, value, entropy, kl, clipped, deviation } = totals;
    let stats = [mean(policy), 0.5 * mean(value), mean(entropy), mean(kl), mean(clipped), deviation];
    let loss = stats[ppo_stats::POLICY_LOSS] + config.value_coef * stats[ppo_stats::VALUE_LOSS]
        - config.entropy_coef * stats[ppo_stats::ENTROPY];
    let loss = if head.poisoned { f32::NAN } else { loss };
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
