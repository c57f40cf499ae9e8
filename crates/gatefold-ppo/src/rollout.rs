//! What one rollout recorded, in time order.

use gatefold_env::{EnvSpec, Episode, EpisodeEnd, ObservationBatch};
use ndarray::{Array2, s};

use crate::gae;

// T steps, N environments, K experts

/// One rollout of `T` steps in `N` environments; row `t * N + n` of the flat buffers.
///
/// Observations have one row block more: block `T` is where the next rollout starts.
#[derive(Debug, Clone)]
pub struct Rollout {
    /// Observations as the policy saw them (scaled, if it scales), `(T + 1) * N` rows.
    pub observations: ObservationBatch,
    /// Actions `[T, N]`.
    pub actions: Array2<i32>,
    /// Log-probabilities of the actions `[T, N]`.
    pub log_probs: Array2<f32>,
    /// Values in units of scaled rewards `[T, N]`.
    pub values: Array2<f32>,
    /// The bootstrap of each step `[T, N]`: 0 after a termination, V(final observation) after a
    /// truncation, V of the next observation otherwise.
    pub next_values: Array2<f32>,
    /// Raw rewards `[T, N]`.
    pub rewards: Array2<f32>,
    /// How episodes ended `[T, N]`.
    pub ends: Array2<Option<EpisodeEnd>>,
    /// Gates `[T * N, K]`, row-major; empty without a router.
    pub gates: Vec<f32>,
    /// Episodes that ended, in the order in which they did.
    pub episodes: Vec<Episode>,
    num_envs: usize,
}

/// A rollout with its advantages: what an update reads, in any order.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The rollout.
    pub rollout: Rollout,
    /// Advantages `[T, N]`.
    pub advantages: Array2<f32>,
    /// Value targets `A + V` `[T, N]`.
    pub returns: Array2<f32>,
}

impl Rollout {
    /// Empty buffers.
    pub fn new(spec: &EnvSpec, num_steps: usize, num_envs: usize) -> Self {
        let shape = (num_steps, num_envs);
        Self {
            observations: ObservationBatch::new(spec, (num_steps + 1) * num_envs),
            actions: Array2::zeros(shape),
            log_probs: Array2::zeros(shape),
            values: Array2::zeros(shape),
            next_values: Array2::zeros(shape),
            rewards: Array2::zeros(shape),
            ends: Array2::from_elem(shape, None),
            gates: Vec::new(),
            episodes: Vec::new(),
            num_envs,
        }
    }

    /// Steps T.
    pub fn num_steps(&self) -> usize {
        self.actions.nrows()
    }

    /// Environments N.
    pub fn num_envs(&self) -> usize {
        self.num_envs
    }

    /// Advantages and value targets, in time order; only afterwards may anything shuffle.
    ///
    /// `rewards` are the scaled ones `[T, N]`.
    pub fn into_batch(self, rewards: &Array2<f32>, gamma: f32, lambda: f32) -> Batch {
        let advantages = gae::advantages(
            rewards.view(),
            self.values.view(),
            self.next_values.view(),
            self.ends.view(),
            gamma,
            lambda,
        );
        let returns = &advantages + &self.values;
        Batch { rollout: self, advantages, returns }
    }

    /// Fills `next_values` from `values`, the values `last` of block T, and `finals`, the values
    /// of final observations of truncated episodes by `(step, env)`.
    pub(crate) fn bootstrap(&mut self, last: &[f32], finals: &[((usize, usize), f32)]) {
        let steps = self.num_steps();
        self.next_values.slice_mut(s![..steps - 1, ..]).assign(&self.values.slice(s![1.., ..]));
        for (next, &value) in self.next_values.row_mut(steps - 1).iter_mut().zip(last) {
            *next = value;
        }
        for (next, end) in self.next_values.iter_mut().zip(&self.ends) {
            if *end == Some(EpisodeEnd::Terminated) {
                *next = 0.0;
            }
        }
        for &(place, value) in finals {
            self.next_values[place] = value;
        }
    }
}

impl Batch {
    /// Explained variance of the values: `1 - Var(returns - values) / Var(returns)`; 1 is perfect,
    /// 0 is no better than a constant. NaN if the returns do not vary.
    pub fn explained_variance(&self) -> f64 {
        let variance = |values: &mut dyn Iterator<Item = f64>| {
            let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
            for x in values {
                count += 1.0;
                let delta: f64 = x - mean;
                mean += delta / count;
                squares += delta * (x - mean);
            }
            squares / count
        };
        let returns = variance(&mut self.returns.iter().map(|&r| f64::from(r)));
        let errors = variance(
            &mut self.returns.iter().zip(&self.rollout.values).map(|(&r, &v)| f64::from(r) - f64::from(v)),
        );
        if returns == 0.0 { f64::NAN } else { 1.0 - errors / returns }
    }
}
