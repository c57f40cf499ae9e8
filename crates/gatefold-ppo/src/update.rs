//! The PPO update: epochs of minibatches of one evaluation, one loss, one optimizer step.

use gatefold_curriculum::Plan;
use gatefold_env::{EnvSpec, Purpose, StreamRng, sibling};
use gatefold_monitor::{MeanAccumulator, Metrics, names};
use gatefold_ops::{OpsAutodiffBackend, beside, ppo_stats, probe};
use gatefold_optim::AdamW;
use gatefold_policy::ActorCritic;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::evaluate::{Evaluated, evaluate};
use crate::minibatch::{Epochs, Order, Place};
use crate::objective::Objective;
use crate::student::Student;
use crate::{Batch, LossConfig, PpoConfig};

/// The misfortunes of an update.
#[derive(Debug, Clone, PartialEq, Error, Serialize, Deserialize)]
pub enum UpdateError {
    /// A number was NaN or infinite. What was learned in this update is of no use.
    #[error("{what} is {value} in epoch {epoch}, minibatch {minibatch}")]
    NonFinite {
        /// Epoch of the update, from 0.
        epoch: usize,
        /// Minibatch of the epoch, from 0.
        minibatch: usize,
        /// The first tensor, loss term, gradient, parameter or moment found, in the order of computation.
        what: String,
        /// Its value, or its norm.
        value: f64,
        /// Rows of the minibatch in the rollout's flat buffers, in the order in which they were evaluated;
        /// empty if the rollout itself holds the number, so that none was.
        rows: Vec<usize>,
    },
}

/// What an update needs beside the policy: settings that stay the same between changes of the policy's
/// shape.
#[derive(Debug, Clone)]
pub struct Learner {
    /// Settings of the update.
    pub ppo: PpoConfig,
    /// Settings of the auxiliary losses.
    pub losses: LossConfig,
    /// Sizes of the environment.
    pub spec: EnvSpec,
    /// Names of the experts in play, in order.
    pub experts: Vec<String>,
    /// Look for numbers that are not finite after every step, not only at the update's end: slower, for
    /// finding the first.
    pub thorough: bool,
}

/// What an update did.
#[derive(Debug)]
pub struct Updated<P> {
    /// The policy with its new parameters.
    pub policy: P,
    /// Means over the update's minibatches, and what the first minibatch showed.
    pub metrics: Metrics,
    /// Path of the tensor with the largest gradient norm; its norm is among the metrics.
    pub largest_tensor: Option<String>,
}

impl Learner {
    /// Improves `policy` on `batch` and returns it with the update's metrics.
    ///
    /// Every minibatch is evaluated with the inputs, masks, routing and temperature of the rollout,
    /// so the probability ratio is 1 on the first one, unless a dropout is on. `optimizer_steps` counts
    /// on over the run and picks the learning rate from the plan's segment. `rng` draws the shuffles;
    /// what the graph encoder's dropouts drop comes from its [`sibling`]. Where a loss looks at several
    /// steps, minibatches are whole segments of 16 consecutive steps of one environment.
    #[expect(clippy::too_many_arguments, reason = "each is another thing that the run owns")]
    pub fn update<B: OpsAutodiffBackend>(
        &self,
        policy: ActorCritic<B>,
        optimizer: &mut AdamW<B::InnerBackend>,
        batch: &Batch,
        plan: &Plan,
        optimizer_steps: &mut u64,
        rng: &mut StreamRng,
        device: &B::Device,
    ) -> Result<Updated<ActorCritic<B>>, UpdateError> {
        probe::begin_update();
        if let Some((what, value)) = batch.first_non_finite() {
            return Err(non_finite(&Place::default(), what, value));
        }
        let objective = Objective::<B>::new(self, plan, device);
        let may_be_flat = !(self.thorough || objective.reads_encoding() || objective.reads_values());
        let mut student = Student::new(policy, optimizer, may_be_flat, batch, &self.spec, device);
        let mut dropout = sibling(rng, Purpose::Dropout);
        let order = Order::new(batch, plan.coefficients.needs_segments());
        let mut minibatches = Epochs::new(order, batch, &self.ppo, rng, student.reads_gathered());
        let mut means = MeanAccumulator::new();
        let mut epoch_kl = MeanAccumulator::new();
        let mut first = None;
        let mut largest: (f64, Option<String>) = (0.0, None);
        let mut last_lr = 0.0;
        let mut at = Place::default();
        let mut next = minibatches.next();
        while let Some(mut minibatch) = next {
            let evaluate =
                || evaluate(&mut student, &objective, batch, &mut minibatch, &mut dropout, first.is_none());
            // The next one is prepared meanwhile.
            let evaluated;
            (evaluated, next) = beside(minibatches.cost(), evaluate, || minibatches.next());
            let Evaluated { mut terms, value, statistics, known } = evaluated?;
            at = minibatch.at;

            let lr = plan.learning_rate.at(*optimizer_steps);
            let step = student.learn(terms.loss.take(), known, lr, self.ppo.max_grad_norm);
            if !step.grad_norm.is_finite() {
                let (path, norm) = step.largest;
                return Err(non_finite(&at, format!("the gradient of {path}"), norm));
            }
            if self.thorough {
                check_state(&at, student.shape(), student.optimizer)?;
            }
            *optimizer_steps += 1;
            last_lr = lr;

            let count = at.rows.len() as u64;
            let stats = &terms.ppo;
            if let Some(mut statistics) = statistics {
                let deviation = f64::from(stats[ppo_stats::MAX_RATIO_DEVIATION]);
                statistics.set(names::TRAIN_RATIO_DEVIATION_FIRST, deviation);
                first = Some(statistics);
            }
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
            terms.report(&mut means, count);
            means.add(names::TRAIN_LOSS, value, count);
            means.add(names::TRAIN_GRAD_NORM, step.grad_norm, 1);
            means.add(names::TRAIN_GRAD_CLIPPED_FRACTION, f64::from(u8::from(step.clipped)), 1);
            if step.largest.1 > largest.0 || largest.1.is_none() {
                largest = (step.largest.1, Some(step.largest.0));
            }
            if next.as_ref().is_none_or(|next| next.at.epoch != at.epoch) {
                let kl = epoch_kl.mean(names::TRAIN_APPROX_KL).expect("an epoch has minibatches");
                if self.ppo.target_kl > 0.0 && kl > f64::from(self.ppo.target_kl) {
                    break;
                }
                epoch_kl = MeanAccumulator::new();
            }
        }
        let (policy, optimizer) = student.finish();
        check_state(&at, &policy, optimizer)?;
        let mut metrics = means.metrics();
        metrics.merge(first.expect("an update has minibatches"));
        metrics.set(names::TRAIN_GRAD_NORM_MAX_TENSOR, largest.0);
        metrics.set(names::TRAIN_LEARNING_RATE, last_lr);
        metrics.merge(batch.diagnostics());
        metrics.set(names::TRAIN_OPTIMIZER_STEPS, *optimizer_steps as f64);
        Ok(Updated { policy, metrics, largest_tensor: largest.1 })
    }
}

pub(crate) fn non_finite(at: &Place, what: impl Into<String>, value: f64) -> UpdateError {
    let &Place { epoch, minibatch, ref rows } = at;
    UpdateError::NonFinite { epoch, minibatch, what: what.into(), value, rows: rows.clone() }
}

/// Fails if a parameter or a moment is not finite.
fn check_state<B: OpsAutodiffBackend>(
    at: &Place,
    policy: &ActorCritic<B>,
    optimizer: &AdamW<B::InnerBackend>,
) -> Result<(), UpdateError> {
    if let Some((path, norm)) = gatefold_optim::first_non_finite::<B, _>(policy) {
        return Err(non_finite(at, format!("the parameter {path}"), norm));
    }
    match optimizer.first_non_finite() {
        Some((path, norm)) => Err(non_finite(at, format!("the moment {path}"), norm)),
        None => Ok(()),
    }
}
