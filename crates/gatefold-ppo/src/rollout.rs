//! What one rollout recorded, in time order.

use gatefold_env::{EnvSpec, Episode, EpisodeEnd, ObservationBatch, ObservationBatchMut};
use gatefold_monitor::{Metrics, names};
use gatefold_ops::probe;
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
    /// What the routing drew or selected `[T * N, K]`, row-major: Gumbel noise, random gates, top-k sets.
    /// The update routes with it again. Empty where the routing draws nothing.
    pub drawn: Vec<f32>,
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

/// The places of some neighbouring environments in a rollout.
pub(crate) struct Share<'a> {
    /// Rows of each block of observations.
    pub(crate) observations: Vec<ObservationBatchMut<'a>>,
    pub(crate) steps: Vec<Places<'a>>,
}

/// The places of some environments in one step.
pub(crate) struct Places<'a> {
    pub(crate) actions: &'a mut [i32],
    pub(crate) log_probs: &'a mut [f32],
    pub(crate) values: &'a mut [f32],
    pub(crate) rewards: &'a mut [f32],
    pub(crate) ends: &'a mut [Option<EpisodeEnd>],
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
            drawn: Vec::new(),
            episodes: Vec::with_capacity(num_envs),
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

    /// The places of each of some groups of environments, of so many each and all of them together.
    pub(crate) fn shares(&mut self, sizes: &[usize]) -> Vec<Share<'_>> {
        fn of<T>(all: &mut Array2<T>) -> &mut [T] {
            all.as_slice_mut().expect("standard layout")
        }
        fn take<'a, T>(rest: &mut &'a mut [T], count: usize) -> &'a mut [T] {
            rest.split_off_mut(..count).expect("sizes of all environments")
        }
        let steps = self.num_steps();
        let share =
            |_| Share { observations: Vec::with_capacity(steps + 1), steps: Vec::with_capacity(steps) };
        let mut shares: Vec<_> = sizes.iter().map(share).collect();
        let (mut observations, mut actions) = (self.observations.as_mut(), of(&mut self.actions));
        let (mut log_probs, mut values) = (of(&mut self.log_probs), of(&mut self.values));
        let (mut rewards, mut ends) = (of(&mut self.rewards), of(&mut self.ends));
        for step in 0..=steps {
            for (share, &size) in shares.iter_mut().zip(sizes) {
                let (rows, after) = observations.split_at(size);
                share.observations.push(rows);
                observations = after;
                if step < steps {
                    share.steps.push(Places {
                        actions: take(&mut actions, size),
                        log_probs: take(&mut log_probs, size),
                        values: take(&mut values, size),
                        rewards: take(&mut rewards, size),
                        ends: take(&mut ends, size),
                    });
                }
            }
        }
        shares
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
        let mut batch = Batch { rollout: self, advantages, returns };
        batch.probe();
        batch
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
    fn probe(&mut self) {
        let width = self.rollout.num_envs();
        for (site, values) in [
            ("batch/log_probs", &mut self.rollout.log_probs),
            ("batch/advantages", &mut self.advantages),
            ("batch/returns", &mut self.returns),
        ] {
            probe::slice(site, values.as_slice_mut().expect("standard layout"), width);
        }
    }

    /// The first number that is not finite among those that an update learns from, and what it is.
    pub(crate) fn first_non_finite(&self) -> Option<(String, f64)> {
        let all = [
            ("the log-probability", &self.rollout.log_probs),
            ("the advantage", &self.advantages),
            ("the value target", &self.returns),
        ];
        all.into_iter().find_map(|(what, values)| {
            let each = values.as_slice().expect("standard layout");
            let row = each.iter().position(|value| !value.is_finite())?;
            let (step, env) = (row / self.rollout.num_envs, row % self.rollout.num_envs);
            Some((format!("{what} of step {step}, environment {env},"), f64::from(each[row])))
        })
    }

    /// What the rollout says about the critic, the advantages and the use of actions.
    ///
    /// - explained variance: `1 - Var(returns - values) / Var(returns)`; 1 is perfect, 0 is no better
    ///   than a constant
    /// - value skill: the same with the mean square for the first variance, so that a wrong mean counts
    /// - ratio of the values' standard deviation to the returns'
    /// - standard deviation of the advantages before they are normalised
    /// - share of the most frequent action
    ///
    /// The first three are NaN if the returns do not vary.
    pub fn diagnostics(&self) -> Metrics {
        let [returns, values, advantages] = [&self.returns, &self.rollout.values, &self.advantages]
            .map(|all| all.as_slice().expect("standard layout"));
        let of_row = |row: usize| {
            let [r, v, a] = [returns[row], values[row], advantages[row]].map(f64::from);
            [r - v, r, v, a]
        };
        let [(mean_error, error), (_, returns), (_, values), (_, advantages)] =
            moments(returns.len(), of_row);
        let over_returns = |x: f64| if returns == 0.0 { f64::NAN } else { x / returns };
        let last = self.rollout.actions.iter().max().map_or(0, |&action| action as usize);
        let mut counts = vec![0usize; last + 1];
        self.rollout.actions.iter().for_each(|&action| counts[action as usize] += 1);
        let most = counts.into_iter().max().unwrap_or_default();
        let mut metrics = Metrics::new();
        metrics.set(names::TRAIN_EXPLAINED_VARIANCE, 1.0 - over_returns(error));
        metrics.set(names::TRAIN_VALUE_SKILL, 1.0 - over_returns(error + mean_error * mean_error));
        metrics.set(names::TRAIN_VALUE_SD_RATIO, over_returns(values).sqrt());
        metrics.set(names::TRAIN_ADVANTAGE_STD, advantages.sqrt());
        metrics.set(names::TRAIN_ACTION_MAX_SHARE, most as f64 / self.rollout.actions.len() as f64);
        metrics
    }
}

/// Mean and variance of each of several quantities over all rows; the variance of equal numbers is exactly 0.
///
/// Several at once, because each sum alone would wait for its last addition.
fn moments<const N: usize>(rows: usize, of_row: impl Fn(usize) -> [f64; N]) -> [(f64, f64); N] {
    if rows == 0 {
        return [(f64::NAN, f64::NAN); N];
    }
    let (first, count) = (of_row(0), rows as f64);
    let (mut shift, mut squares) = ([0.0; N], [0.0; N]);
    for row in 0..rows {
        let numbers = of_row(row);
        for n in 0..N {
            shift[n] += numbers[n] - first[n];
        }
    }
    shift = shift.map(|sum| sum / count);
    for row in 0..rows {
        let numbers = of_row(row);
        for n in 0..N {
            squares[n] += (numbers[n] - first[n] - shift[n]).powi(2);
        }
    }
    std::array::from_fn(|n| (first[n] + shift[n], squares[n] / count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_definition_and_equal_numbers_have_no_variance() {
        let near = |(mean, variance): (f64, f64), expected: (f64, f64)| {
            (mean - expected.0).abs() < 1e-12 && (variance - expected.1).abs() < 1e-12
        };
        let numbers = [1.0, 2.0, 3.0, 6.0];
        let [one, other] = moments(4, |i| [numbers[i], -2.0 * numbers[i]]);
        assert!(near(one, (3.0, 3.5)) && near(other, (-6.0, 14.0)));
        let [far] = moments(1001, |i| [1e6 + i as f64]);
        assert!(near(far, (1e6 + 500.0, 83500.0)));
        assert_eq!(moments(2047, |_| [f64::from(0.1f32)]), [(f64::from(0.1f32), 0.0)]);
        assert!(moments(0, |_| [0.0])[0].0.is_nan());
    }

    #[test]
    fn a_perfect_a_shifted_and_a_constant_critic_are_told_apart() {
        let returns = [1.0f32, 2.0, 3.0, 6.0]; // mean 3, variance 3.5
        let cases = [
            // values, explained variance, skill, sd ratio
            ([1.0, 2.0, 3.0, 6.0], 1.0, 1.0, 1.0),
            ([3.0, 4.0, 5.0, 8.0], 1.0, 1.0 - 4.0 / 3.5, 1.0),
            ([3.0, 3.0, 3.0, 3.0], 0.0, 0.0, 0.0),
        ];
        for (values, explained, skill, ratio) in cases {
            let mut rollout = Rollout::new(&EnvSpec::new(1, 3), 4, 1);
            rollout.values = Array2::from_shape_vec((4, 1), values.to_vec()).unwrap();
            rollout.actions = Array2::from_shape_vec((4, 1), vec![0, 2, 2, 2]).unwrap();
            let returns = Array2::from_shape_vec((4, 1), returns.to_vec()).unwrap();
            let batch = Batch { rollout, advantages: returns.clone(), returns };
            let metrics = batch.diagnostics();
            let expected = [
                (names::TRAIN_EXPLAINED_VARIANCE, explained),
                (names::TRAIN_VALUE_SKILL, skill),
                (names::TRAIN_VALUE_SD_RATIO, ratio),
                (names::TRAIN_ADVANTAGE_STD, 3.5f64.sqrt()),
                (names::TRAIN_ACTION_MAX_SHARE, 0.75),
            ];
            for (name, value) in expected {
                let got = metrics.get(name).unwrap();
                assert!((got - value).abs() < 1e-12, "{values:?}: {name} is {got}, not {value}");
            }
        }
    }
}
