//! Bringing rewards to unit scale.

use gatefold_env::EpisodeEnd;
use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use crate::{RewardConfig, RewardScaling};

/// Added to a variance before its root.
const EPSILON: f64 = 1e-8;

/// Running mean and variance (Welford), population variance, in `f64`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Welford {
    /// Number of samples.
    pub count: f64,
    /// Their mean.
    pub mean: f64,
    /// Sum of squared distances from the mean.
    pub squares: f64,
}

impl Welford {
    /// Takes in one sample.
    pub fn add(&mut self, x: f64) {
        self.count += 1.0;
        let delta = x - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (x - self.mean);
    }

    /// Population variance; 0 before the first sample.
    pub fn variance(&self) -> f64 {
        if self.count > 0.0 { self.squares / self.count } else { 0.0 }
    }
}

/// Scales the rewards of whole rollouts; its statistics are part of a run's state.
///
/// `returns` divides by the running standard deviation of each environment's discounted return
/// `R_t = gamma R_{t-1} + r_t`, which starts anew after an episode end. Differs from
/// Stable-Baselines3, which scales step by step: the whole rollout is taken into the statistics
/// first, then scaled by one number. Rewards are not centred, so their sign is kept.
/// `standardize` subtracts the mean of rewards and divides by their standard deviation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RewardScaler {
    config: RewardConfig,
    discounted: Vec<f64>,
    statistics: Welford,
}

impl RewardScaler {
    /// For `num_envs` environments.
    pub fn new(config: RewardConfig, num_envs: usize) -> Self {
        Self { config, discounted: vec![0.0; num_envs], statistics: Welford::default() }
    }

    /// Takes raw rewards `[T, N]` into the statistics and returns them scaled.
    ///
    /// `ends` `[T, N]` says where episodes ended. Panics if shapes differ.
    pub fn scale(
        &mut self,
        rewards: ArrayView2<'_, f32>,
        ends: ArrayView2<'_, Option<EpisodeEnd>>,
        gamma: f32,
    ) -> Array2<f32> {
        let (steps, envs) = rewards.dim();
        assert!(ends.dim() == (steps, envs) && self.discounted.len() == envs, "shapes of rewards and ends");
        for t in 0..steps {
            for env in 0..envs {
                let reward = f64::from(rewards[(t, env)]);
                match self.config.scaling {
                    RewardScaling::Off => {}
                    RewardScaling::Standardize => self.statistics.add(reward),
                    RewardScaling::Returns => {
                        self.discounted[env] = f64::from(gamma) * self.discounted[env] + reward;
                        self.statistics.add(self.discounted[env]);
                        if ends[(t, env)].is_some() {
                            self.discounted[env] = 0.0;
                        }
                    }
                }
            }
        }
        #[cfg(feature = "chaos")]
        self.probe();
        let (shift, divisor) = (self.shift(), self.divisor());
        let clip = f64::from(self.config.clip);
        rewards.mapv(|reward| {
            let scaled = (f64::from(reward) - shift) / divisor;
            let clipped = clip > 0.0 && self.config.scaling != RewardScaling::Off;
            (if clipped { scaled.clamp(-clip, clip) } else { scaled }) as f32
        })
    }

    /// What rewards are divided by at present.
    pub fn divisor(&self) -> f64 {
        match self.config.scaling {
            RewardScaling::Off => 1.0,
            _ => (self.statistics.variance() + EPSILON).sqrt(),
        }
    }

    fn shift(&self) -> f64 {
        match self.config.scaling {
            RewardScaling::Standardize => self.statistics.mean,
            _ => 0.0,
        }
    }

    /// Whether all statistics are numbers. Where they are not, what [`scale`](Self::scale) gave is of no
    /// use, even if it looks like numbers: an infinite deviation turns every reward into 0.
    pub fn is_finite(&self) -> bool {
        let Welford { count, mean, squares } = self.statistics;
        [count, mean, squares].iter().chain(&self.discounted).all(|x| x.is_finite())
    }

    /// Lets an installed probe change mean and sum of squares, at the site `normaliser/rewards`.
    #[cfg(feature = "chaos")]
    fn probe(&mut self) {
        const SITE: &str = "normaliser/rewards";
        if self.config.scaling != RewardScaling::Off && gatefold_ops::probe::wants(SITE) {
            let mut values = [self.statistics.mean as f32, self.statistics.squares as f32];
            gatefold_ops::probe::slice(SITE, &mut values, 2);
            [self.statistics.mean, self.statistics.squares] = values.map(f64::from);
        }
    }

    /// The running statistics.
    pub fn statistics(&self) -> Welford {
        self.statistics
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn scaler(scaling: RewardScaling) -> RewardScaler {
        RewardScaler::new(RewardConfig { scaling, clip: 10.0 }, 1)
    }

    #[test]
    fn returns_start_anew_after_an_episode_and_rewards_keep_their_sign() {
        let rewards = array![[1.0], [-1.0], [1.0]];
        let ends = array![[None], [Some(EpisodeEnd::Terminated)], [None]];
        let mut scaler = scaler(RewardScaling::Returns);
        let scaled = scaler.scale(rewards.view(), ends.view(), 0.5);
        // discounted returns 1, -0.5, 1: mean 0.5, population variance 0.5
        let expected = (1.0 / (0.5f64 + EPSILON).sqrt()) as f32;
        assert_eq!(scaled, array![[expected], [-expected], [expected]]);
        assert!((scaler.statistics().mean - 0.5).abs() < 1e-12);
    }

    #[test]
    fn off_changes_nothing_and_standardize_centres() {
        let rewards = array![[1.0], [3.0]];
        let ends = array![[None], [None]];
        assert_eq!(scaler(RewardScaling::Off).scale(rewards.view(), ends.view(), 0.9), rewards);
        let centred = scaler(RewardScaling::Standardize).scale(rewards.view(), ends.view(), 0.9);
        assert!((centred[(0, 0)] + 1.0).abs() < 1e-6 && (centred[(1, 0)] - 1.0).abs() < 1e-6, "{centred}");
    }

    #[test]
    fn statistics_that_took_in_no_number_say_so() {
        for scaling in [RewardScaling::Returns, RewardScaling::Standardize] {
            let mut scaler = scaler(scaling);
            let ends = array![[None], [None]];
            scaler.scale(array![[1.0], [-1.0]].view(), ends.view(), 0.5);
            assert!(scaler.is_finite());
            scaler.scale(array![[f32::INFINITY], [1.0]].view(), ends.view(), 0.5);
            assert!(!scaler.is_finite(), "{scaling:?}");
        }
    }

    #[test]
    fn scaled_rewards_are_clipped_but_a_nan_is_not_hidden() {
        let rewards = array![[0.0], [0.0], [1e6], [f32::NAN]];
        let ends = Array2::from_elem((4, 1), None);
        let scaled = scaler(RewardScaling::Returns).scale(
            rewards.slice(ndarray::s![..3, ..]),
            ends.slice(ndarray::s![..3, ..]),
            0.0,
        );
        assert!(scaled.iter().all(|x| x.abs() <= 10.0));
        assert!(scaler(RewardScaling::Returns).scale(rewards.view(), ends.view(), 0.0)[(3, 0)].is_nan());
    }
}
