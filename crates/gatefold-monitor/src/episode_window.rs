//! The last finished episodes and their means.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::{Metrics, names};

/// One finished episode.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// Sum of the raw rewards, undiscounted.
    pub total_return: f64,
    /// The environment's own measure of success at the episode's end.
    pub score: f64,
    /// Length in environment steps.
    pub length: u64,
}

/// The last [`EpisodeWindow::CAPACITY`] finished episodes, and how many finished in all.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct EpisodeWindow {
    episodes: VecDeque<Episode>,
    finished: u64,
}

impl EpisodeWindow {
    /// Episodes that a mean is taken over, as in CleanRL and Stable-Baselines3.
    pub const CAPACITY: usize = 100;

    /// Takes in a finished episode; the oldest leaves a full window.
    pub fn push(&mut self, episode: Episode) {
        if self.episodes.len() == Self::CAPACITY {
            self.episodes.pop_front();
        }
        self.episodes.push_back(episode);
        self.finished += 1;
    }

    /// Episodes finished since the run's start.
    pub fn finished(&self) -> u64 {
        self.finished
    }

    /// Whether the window holds as many episodes as it can.
    pub fn is_full(&self) -> bool {
        self.episodes.len() == Self::CAPACITY
    }

    /// Mean return over the window; `None` before the first episode ends.
    pub fn return_mean(&self) -> Option<f64> {
        self.mean(|episode| episode.total_return)
    }

    /// Mean score over the window; `None` before the first episode ends.
    pub fn score_mean(&self) -> Option<f64> {
        self.mean(|episode| episode.score)
    }

    /// Mean length over the window, in environment steps; `None` before the first episode ends.
    pub fn length_mean(&self) -> Option<f64> {
        self.mean(|episode| episode.length as f64)
    }

    /// The `rollout/` metrics. Means are absent before the first episode ends.
    pub fn metrics(&self) -> Metrics {
        let mut metrics = Metrics::new();
        let means = [
            (names::ROLLOUT_RETURN_MEAN, self.return_mean()),
            (names::ROLLOUT_SCORE_MEAN, self.score_mean()),
            (names::ROLLOUT_LENGTH_MEAN, self.length_mean()),
        ];
        for (name, mean) in means {
            if let Some(mean) = mean {
                metrics.set(name, mean);
            }
        }
        metrics.set(names::ROLLOUT_EPISODES, self.finished as f64);
        metrics
    }

    /// Summed anew each time: a running sum would drift, and a resumed run would differ. Summed around
    /// the first value, so that equal returns have exactly that mean and can reach it as a target.
    fn mean(&self, value: impl Fn(&Episode) -> f64) -> Option<f64> {
        let first = value(self.episodes.front()?);
        let sum: f64 = self.episodes.iter().map(|episode| value(episode) - first).sum();
        Some(first + sum / self.episodes.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window_of(count: u64) -> EpisodeWindow {
        let mut window = EpisodeWindow::default();
        for index in 1..=count {
            let total_return = index as f64;
            window.push(Episode { total_return, score: -total_return, length: 2 * index });
        }
        window
    }

    #[test]
    fn means_are_over_the_last_hundred_episodes() {
        let cases = [
            // finished, mean of the indices in the window, full
            (1, 1.0, false),
            (99, 50.0, false),
            (100, 50.5, true),
            (250, 200.5, true),
        ];
        for (finished, mean, full) in cases {
            let window = window_of(finished);
            assert_eq!(window.finished(), finished);
            assert_eq!(window.return_mean(), Some(mean), "{finished} episodes");
            assert_eq!(window.score_mean(), Some(-mean), "{finished} episodes");
            assert_eq!(window.length_mean(), Some(2.0 * mean), "{finished} episodes");
            assert_eq!(window.is_full(), full, "{finished} episodes");
        }
    }

    #[test]
    fn before_the_first_episode_there_is_no_mean() {
        let window = EpisodeWindow::default();
        assert_eq!((window.return_mean(), window.score_mean(), window.length_mean()), (None, None, None));
        assert_eq!(window.metrics().iter().collect::<Vec<_>>(), [(names::ROLLOUT_EPISODES, 0.0)]);
    }

    #[test]
    fn the_metrics_are_the_means_and_the_count() {
        let metrics = window_of(250).metrics();
        let expected = [
            (names::ROLLOUT_RETURN_MEAN, 200.5),
            (names::ROLLOUT_SCORE_MEAN, -200.5),
            (names::ROLLOUT_LENGTH_MEAN, 401.0),
            (names::ROLLOUT_EPISODES, 250.0),
        ];
        assert_eq!(metrics.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_saved_window_goes_on_as_if_never_stopped() {
        let mut resumed: EpisodeWindow =
            rmp_serde::from_slice(&rmp_serde::to_vec_named(&window_of(130)).unwrap()).unwrap();
        for index in 131..=150 {
            let total_return = index as f64;
            resumed.push(Episode { total_return, score: -total_return, length: 2 * index });
        }
        assert_eq!(resumed, window_of(150));
    }
}
