//! What a run has reached so far: its first level, its best, and whether it lost it.

use serde::{Deserialize, Serialize};

use super::config::MonitorConfig;
use super::history::{History, mean, median, variance};
use crate::{Metrics, names};

/// Levels of the mean return over the run. A level is the median over the short window.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct ScoreRecord {
    /// The run's first mean returns, a short window of them.
    first: Vec<f64>,
    /// The highest level.
    best: Option<f64>,
    /// The present level, once a short window is full.
    level: Option<f64>,
    /// Iteration and episodes when the level fell below half of what was gained.
    lost_at: Option<(u64, f64)>,
    /// Iterations so far, and those of them that saw a reward.
    iterations: u64,
    rewarded: u64,
}

impl ScoreRecord {
    pub(crate) fn observe(
        &mut self,
        config: &MonitorConfig,
        iteration: u64,
        metrics: &Metrics,
        history: &History,
    ) {
        let seen = [names::ROLLOUT_REWARD_ABS_MEAN, names::ROLLOUT_RETURN_MEAN].map(|name| metrics.get(name));
        // Only the first that is reported: a mean over 100 episodes remembers rewards for long.
        self.rewarded += u64::from(seen.into_iter().flatten().next().is_some_and(|value| value != 0.0));
        self.iterations += 1;
        let Some(value) = metrics.get(names::ROLLOUT_RETURN_MEAN).filter(|value| value.is_finite()) else {
            return;
        };
        if self.first.len() < config.short_window {
            self.first.push(value);
        }
        self.level =
            history.window(names::ROLLOUT_RETURN_MEAN, config.short_window, 0).and_then(|last| median(&last));
        if let Some(level) = self.level {
            self.best = Some(self.best.map_or(level, |best| best.max(level)));
        }
        let episodes = metrics.get(names::ROLLOUT_EPISODES).unwrap_or(f64::NAN);
        self.lost_at = match self.lost_share() {
            Some(share) if share > config.lost_share => self.lost_at.or(Some((iteration, episodes))),
            _ => None,
        };
    }

    /// Forgets since when the best is lost: windows start anew.
    pub(crate) fn empty_windows(&mut self) {
        self.lost_at = None;
        self.level = None;
    }

    /// Mean of the run's first returns, once there is a short window of them.
    pub(crate) fn first(&self, config: &MonitorConfig) -> Option<f64> {
        (self.first.len() == config.short_window).then(|| mean(&self.first))
    }

    /// The highest level.
    pub(crate) fn best(&self) -> Option<f64> {
        self.best
    }

    /// The present level.
    pub(crate) fn level(&self) -> Option<f64> {
        self.level
    }

    /// Iteration and episodes when more than the configured share of the gain was lost.
    pub(crate) fn lost_at(&self) -> Option<(u64, f64)> {
        self.lost_at
    }

    /// Whether any reward was ever seen.
    pub(crate) fn rewarded(&self) -> bool {
        self.rewarded > 0
    }

    /// Whether most iterations before the last `window` ones saw a reward, so that none is a surprise.
    pub(crate) fn rewarded_regularly(&self, window: usize) -> bool {
        let before = self.iterations.saturating_sub(window as u64);
        self.rewarded > 0 && 2 * self.rewarded > before
    }

    /// Whether the best level is beyond what the first returns and their noise explain.
    pub(crate) fn learned(&self, config: &MonitorConfig) -> bool {
        let (Some(first), Some(best)) = (self.first(config), self.best) else { return false };
        best - first > self.margin(config)
    }

    /// Rise over the first level from which on it is learning: more than a share of that level, and more
    /// than its noise.
    pub(crate) fn margin(&self, config: &MonitorConfig) -> f64 {
        (config.learned_gain * mean(&self.first).abs()).max(2.0 * variance(&self.first).sqrt())
    }

    /// Which share of the gain, best over first, is missing now; `None` before there is a gain. Below the
    /// first level it is above 1.
    pub(crate) fn lost_share(&self) -> Option<f64> {
        let (best, level) = (self.best?, self.level?);
        let first = mean(&self.first);
        let noise = 2.0 * variance(&self.first).sqrt();
        (best - first > noise.max(f64::MIN_POSITIVE)).then(|| (best - level) / (best - first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(returns: impl IntoIterator<Item = f64>) -> ScoreRecord {
        let (config, mut history, mut record) =
            (MonitorConfig::default(), History::default(), ScoreRecord::default());
        for (iteration, value) in returns.into_iter().enumerate() {
            let mut metrics = Metrics::new();
            metrics.set(names::ROLLOUT_RETURN_MEAN, value);
            history.push(names::ROLLOUT_RETURN_MEAN, value);
            record.observe(&config, iteration as u64 + 1, &metrics, &history);
        }
        record
    }

    #[test]
    fn a_rising_return_is_learning_and_noise_around_the_first_level_is_not() {
        let config = MonitorConfig::default();
        assert!(record((0..40).map(f64::from)).learned(&config));
        assert!(!record((0..40).map(|i| 20.0 + f64::from(i % 3))).learned(&config));
        assert!(!record([5.0; 40]).learned(&config));
    }

    #[test]
    fn what_was_lost_is_measured_against_what_was_gained() {
        let rise_and_fall = |low: f64| record([vec![0.0; 10], vec![100.0; 20], vec![low; 10]].concat());
        assert_eq!(rise_and_fall(75.0).lost_share(), Some(0.25));
        assert_eq!(rise_and_fall(75.0).lost_at(), None);
        let lost = rise_and_fall(10.0);
        assert_eq!(lost.lost_share(), Some(0.9));
        assert_eq!(lost.lost_at().unwrap().0, 36, "the first iteration whose median is low");
        assert_eq!(record([5.0; 40]).lost_share(), None, "nothing was gained");
    }
}
