//! The PPO update: epochs of minibatches of one evaluation, one loss, one optimizer step.

use burn::optim::GradientsParams;
use burn::tensor::{Int, Tensor, TensorData, backend::AutodiffBackend, backend::Backend};
use gatefold_curriculum::Plan;
use gatefold_env::{EnvSpec, StreamRng};
use gatefold_monitor::{MeanAccumulator, Metrics, names};
use gatefold_ops::{OpsAutodiffBackend, PpoBatch, PpoLossConfig, ppo_loss, ppo_stats};
use gatefold_optim::AdamW;
use gatefold_policy::{ActorCritic, Evaluation, Observation};
use rand::seq::SliceRandom;
use thiserror::Error;

use crate::collect::to_host;
use crate::{Batch, LoadBalance, LossConfig, PpoConfig, ValueLoss, losses};

/// The misfortunes of an update.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum UpdateError {
    /// A loss or a gradient was NaN or infinite; the step was not taken.
    #[error("{what} is {value} in epoch {epoch}, minibatch {minibatch}; the step was not taken")]
    NonFinite {
        /// Epoch of the update, from 0.
        epoch: usize,
        /// Minibatch of the epoch, from 0.
        minibatch: usize,
        /// The loss term, or the gradient norm.
        what: &'static str,
        /// Its value.
        value: f64,
    },
}

/// What an update needs beside the policy: settings that stay the same through a run.
#[derive(Debug, Clone)]
pub struct Learner {
    /// Settings of the update.
    pub ppo: PpoConfig,
    /// Settings of the auxiliary losses.
    pub losses: LossConfig,
    /// Sizes of the environment.
    pub spec: EnvSpec,
}

impl Learner {
    /// Improves the policy on one batch; returns it with the update's metrics.
    ///
    /// Every minibatch is evaluated with the inputs, masks, routing and temperature of the rollout,
    /// so the probability ratio is 1 on the first one. `optimizer_steps` counts on over the run and
    /// picks the learning rate from the plan's segment. `rng` draws the shuffles.
    pub fn update<B: OpsAutodiffBackend>(
        &self,
        mut policy: ActorCritic<B>,
        optimizer: &mut AdamW<B::InnerBackend>,
        batch: &Batch,
        plan: &Plan,
        optimizer_steps: &mut u64,
        rng: &mut StreamRng,
        device: &B::Device,
    ) -> Result<(ActorCritic<B>, Metrics), UpdateError> {
        let mut order: Vec<usize> = (0..batch.advantages.len()).collect();
        let mut means = MeanAccumulator::new();
        let mut first_deviation = None;
        let mut last_lr = 0.0;
        for epoch in 0..self.ppo.epochs {
            order.shuffle(rng);
            let mut epoch_kl = MeanAccumulator::new();
            for (minibatch, rows) in even_split(&order, self.ppo.minibatch).enumerate() {
                let stop = |what, value| UpdateError::NonFinite { epoch, minibatch, what, value };
                let (observation, data) = self.gather::<B>(batch, rows, device);
                let evaluation = policy.evaluate(&observation, plan.routing, plan.temperature);
                let (loss, stats) = self.loss(evaluation, &observation, data, plan, &mut means, rows.len());

                let value = f64::from(to_host(loss.clone().inner())[0]);
                if !value.is_finite() {
                    return Err(stop("the loss", value));
                }
                let grads = GradientsParams::from_grads(loss.backward(), &policy);
                let lr = plan.learning_rate.at(*optimizer_steps);
                let (stepped, step) = optimizer.step::<B, _>(policy, grads, lr, self.ppo.max_grad_norm);
                policy = stepped;
                if !step.grad_norm.is_finite() {
                    return Err(stop("the gradient norm", step.grad_norm));
                }
                *optimizer_steps += 1;
                last_lr = lr;

                let count = rows.len() as u64;
                first_deviation.get_or_insert(stats[ppo_stats::MAX_RATIO_DEVIATION]);
                epoch_kl.add(names::TRAIN_APPROX_KL, f64::from(stats[ppo_stats::APPROX_KL]), count);
                for (name, index) in [
                    (names::TRAIN_POLICY_LOSS, ppo_stats::POLICY_LOSS),
                    (names::TRAIN_VALUE_LOSS, ppo_stats::VALUE_LOSS),
                    (names::TRAIN_ENTROPY, ppo_stats::ENTROPY),
                    (names::TRAIN_APPROX_KL, ppo_stats::APPROX_KL),
                    (names::TRAIN_CLIP_FRACTION, ppo_stats::CLIP_FRACTION),
                ] {
                    means.add(name, f64::from(stats[index]), count);
                }
                means.add(names::TRAIN_LOSS, value, count);
                means.add(names::TRAIN_GRAD_NORM, step.grad_norm, 1);
                means.add(names::TRAIN_GRAD_CLIPPED_FRACTION, f64::from(u8::from(step.clipped)), 1);
            }
            let kl = epoch_kl.mean(names::TRAIN_APPROX_KL).expect("an epoch has minibatches");
            if self.ppo.target_kl > 0.0 && kl > f64::from(self.ppo.target_kl) {
                break;
            }
        }
        let mut metrics = means.metrics();
        let first_deviation = first_deviation.expect("an update has minibatches");
        metrics.set(names::TRAIN_RATIO_DEVIATION_FIRST, f64::from(first_deviation));
        metrics.set(names::TRAIN_LEARNING_RATE, last_lr);
        metrics.set(names::TRAIN_EXPLAINED_VARIANCE, batch.explained_variance());
        metrics.set(names::TRAIN_OPTIMIZER_STEPS, *optimizer_steps as f64);
        Ok((policy, metrics))
    }

    /// The whole loss `[1]` and the PPO statistics; auxiliary values go to `means`.
    fn loss<B: OpsAutodiffBackend>(
        &self,
        evaluation: Evaluation<B>,
        observation: &Observation<B>,
        data: PpoBatch<B>,
        plan: &Plan,
        means: &mut MeanAccumulator,
        rows: usize,
    ) -> (Tensor<B, 1>, Vec<f32>) {
        let coefficients = &plan.coefficients;
        let huber = self.ppo.value_loss == ValueLoss::Huber;
        let config = PpoLossConfig {
            clip: self.ppo.clip,
            value_clip: (self.ppo.value_clip > 0.0).then_some(self.ppo.value_clip),
            // The operation's value loss has a factor 1/2; ours is a weight of the mean square.
            value_coef: if huber { 0.0 } else { 2.0 * self.ppo.value_coef },
            entropy_coef: coefficients.entropy,
        };
        let returns = data.returns.clone();
        let (mut loss, stats) = ppo_loss(evaluation.logits, evaluation.values.clone(), data, &config);
        let mut stats = to_host(stats.inner());
        if huber {
            let term = huber_loss(evaluation.values - returns);
            stats[ppo_stats::VALUE_LOSS] = to_host(term.clone().inner())[0];
            loss = loss + term * (2.0 * self.ppo.value_coef);
        }
        let count = rows as u64;
        let mut add = |loss: Tensor<B, 1>, name, coefficient: f32, term: Tensor<B, 1>| {
            means.add(name, f64::from(to_host(term.clone().inner())[0]), count);
            loss + term * coefficient
        };
        if let Some(gates) = evaluation.gates {
            if coefficients.load_balance != 0.0 {
                let term = match self.losses.load_balance {
                    LoadBalance::Mse => losses::load_balance_mse(gates.probabilities),
                    LoadBalance::Switch => {
                        losses::load_balance_switch(gates.probabilities, gates.alpha.clone())
                    }
                };
                loss = add(loss, names::LOSSES_LOAD_BALANCE, coefficients.load_balance, term);
            }
            if coefficients.gate_entropy != 0.0 {
                let term = losses::gate_entropy(gates.alpha);
                loss = add(loss, names::LOSSES_GATE_ENTROPY, -coefficients.gate_entropy, term);
            }
        }
        if let Some(logits) = evaluation.expert_logits
            && coefficients.diversity != 0.0
            && diversity_applies(&logits)
        {
            // Rows of a minibatch are shuffled, so the first ones are a fair sample.
            let compared = 0..rows.min(self.losses.compared_rows);
            let mask = observation.mask.clone().map(|mask| mask.slice([compared.clone()]));
            let term = losses::diversity(logits.slice([compared]), mask);
            loss = add(loss, names::LOSSES_DIVERSITY, coefficients.diversity, term);
        }
        (loss, stats)
    }

    fn gather<B: Backend>(
        &self,
        batch: &Batch,
        rows: &[usize],
        device: &B::Device,
    ) -> (Observation<B>, PpoBatch<B>) {
        let seen = batch.rollout.observations.pick(rows.iter().copied());
        let observation = Observation::new(&self.spec, seen, device);
        let vector = |all: &ndarray::Array2<f32>| -> Vec<f32> {
            let all = all.as_slice().expect("rollout arrays are in standard layout");
            rows.iter().map(|&row| all[row]).collect()
        };
        let tensor = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, [rows.len()]), device);
        let mut advantages = vector(&batch.advantages);
        if self.ppo.normalize_advantages {
            normalize(&mut advantages);
        }
        let actions = batch.rollout.actions.as_slice().expect("standard layout");
        let actions: Vec<i32> = rows.iter().map(|&row| actions[row]).collect();
        let data = PpoBatch {
            actions: Tensor::<B, 1, Int>::from_data(TensorData::new(actions, [rows.len()]), device),
            mask: observation.mask.clone(),
            old_log_probs: tensor(vector(&batch.rollout.log_probs)),
            advantages: tensor(advantages),
            returns: tensor(vector(&batch.returns)),
            old_values: tensor(vector(&batch.rollout.values)),
        };
        (observation, data)
    }
}

/// Whether a diversity loss makes sense: with two actions centred logits are always collinear.
fn diversity_applies<B: Backend>(expert_logits: &Tensor<B, 3>) -> bool {
    let [_, num_experts, num_actions] = expert_logits.dims();
    num_experts >= 2 && num_actions > 2
}

/// `mean(|e| <= 1 ? e^2 / 2 : |e| - 1/2)`.
fn huber_loss<B: AutodiffBackend>(errors: Tensor<B, 1>) -> Tensor<B, 1> {
    let near = errors.clone().clamp(-1.0, 1.0);
    (near.clone().detach() * (errors - near.detach() * 0.5)).mean()
}

/// `(a - mean) / (std + 1e-8)` with the unbiased standard deviation, as CleanRL and SB3 do; a
/// minibatch of one row becomes 0.
fn normalize(advantages: &mut [f32]) {
    let count = advantages.len() as f64;
    let mean = advantages.iter().map(|&a| f64::from(a)).sum::<f64>() / count;
    let squares: f64 = advantages.iter().map(|&a| (f64::from(a) - mean).powi(2)).sum();
    let deviation = (squares / (count - 1.0).max(1.0)).sqrt() + 1e-8;
    for a in advantages {
        *a = ((f64::from(*a) - mean) / deviation) as f32;
    }
}

/// Splits into `ceil(len / size)` pieces whose lengths differ by at most one.
fn even_split(order: &[usize], size: usize) -> impl Iterator<Item = &[usize]> {
    let pieces = order.len().div_ceil(size);
    (0..pieces).map(move |i| &order[i * order.len() / pieces..(i + 1) * order.len() / pieces])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};

    #[test]
    fn minibatch_sizes_differ_by_at_most_one_and_cover_every_row() {
        for (rows, size) in [(2048, 64), (100, 32), (7, 2), (5, 5), (6, 4)] {
            let order: Vec<usize> = (0..rows).collect();
            let lengths: Vec<usize> = even_split(&order, size).map(<[usize]>::len).collect();
            let (least, most) = (lengths.iter().min().unwrap(), lengths.iter().max().unwrap());
            assert!(most - least <= 1 && *most <= size, "{rows} by {size}: {lengths:?}");
            assert_eq!(lengths.iter().sum::<usize>(), rows);
        }
    }

    #[test]
    fn normalised_advantages_have_mean_0_and_unbiased_deviation_1() {
        let mut advantages = [1.0, 2.0, 3.0];
        normalize(&mut advantages);
        assert_eq!(advantages, [-1.0, 0.0, 1.0]);
        let mut alone = [3.0];
        normalize(&mut alone);
        assert_eq!(alone, [0.0]);
    }

    #[test]
    fn huber_is_quadratic_near_zero_and_linear_beyond_in_value_and_gradient() {
        let data = TensorData::new(vec![0.5f32, -3.0], [2]);
        let errors = Tensor::<Autodiff<Flex>, 1>::from_data(data, &Default::default()).require_grad();
        let loss = huber_loss(errors.clone());
        assert_eq!(loss.clone().into_scalar(), (0.125 + 2.5) / 2.0);
        let grads = loss.backward();
        let grad = errors.grad(&grads).unwrap().into_data().to_vec::<f32>().unwrap();
        assert_eq!(grad, [0.25, -0.5], "d/de = clamp(e, -1, 1) / 2");
    }
}
