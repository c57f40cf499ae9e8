//! When a run reached the return that solves its environment.

use serde::{Deserialize, Serialize};

use crate::EpisodeWindow;

/// The first environment step at which the mean return of the last 100 episodes reached a target.
///
/// Fewer than 100 episodes decide nothing: a lucky first episode is no solution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TargetTracker {
    target_return: f64,
    reached_at: Option<u64>,
}

impl TargetTracker {
    /// A tracker of a target that is not reached yet.
    pub fn new(target_return: f64) -> Self {
        Self { target_return, reached_at: None }
    }

    /// Looks at the window after an episode that ended at `env_step`; call it once per episode, in
    /// order, so that the step is that episode's. The first success stands.
    pub fn observe(&mut self, window: &EpisodeWindow, env_step: u64) {
        let solved = window.is_full() && window.return_mean() >= Some(self.target_return);
        if solved && self.reached_at.is_none() {
            self.reached_at = Some(env_step);
        }
    }

    /// The return to reach.
    pub fn target_return(&self) -> f64 {
        self.target_return
    }

    /// The environment step at which the target was first reached.
    pub fn reached_at(&self) -> Option<u64> {
        self.reached_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Episode;

    /// Runs episodes with these returns, ten steps each, and says when the target was reached.
    fn reached(target_return: f64, returns: impl IntoIterator<Item = f64>) -> Option<u64> {
        let mut window = EpisodeWindow::default();
        let mut tracker = TargetTracker::new(target_return);
        for (index, total_return) in returns.into_iter().enumerate() {
            window.push(Episode { total_return, score: 0.0, length: 10 });
            tracker.observe(&window, 10 * (index as u64 + 1));
        }
        tracker.reached_at()
    }

    #[test]
    fn the_target_needs_a_full_window_and_then_the_mean() {
        let constant = |value: f64, count: usize| std::iter::repeat_n(value, count);
        assert_eq!(reached(475.0, constant(500.0, 99)), None);
        assert_eq!(reached(475.0, constant(500.0, 100)), Some(1000));
        assert_eq!(reached(475.0, constant(475.0, 100)), Some(1000));
        // A hundred times 0.9 added up plainly is 89.99999999999994.
        assert_eq!(reached(0.9, constant(0.9, 100)), Some(1000));
        // 95 of 100 episodes at 500 and 5 at 0: exactly 475.
        assert_eq!(reached(475.0, constant(0.0, 100).chain(constant(500.0, 94))), None);
        assert_eq!(reached(475.0, constant(0.0, 100).chain(constant(500.0, 95))), Some(1950));
    }

    #[test]
    fn the_first_success_stands_when_returns_fall_and_rise_again() {
        let phases = [(1.0, 100), (0.0, 100), (1.0, 100)];
        let returns = phases.into_iter().flat_map(|(value, count)| std::iter::repeat_n(value, count));
        assert_eq!(reached(0.9, returns), Some(1000));
    }

    #[test]
    fn a_nan_return_reaches_no_target() {
        assert_eq!(reached(f64::NEG_INFINITY, std::iter::repeat_n(f64::NAN, 200)), None);
    }

    #[test]
    fn a_saved_tracker_remembers_target_and_step() {
        let tracker = TargetTracker { target_return: 475.0, reached_at: Some(81_920) };
        let saved = serde_json::to_string(&tracker).unwrap();
        let read: TargetTracker = serde_json::from_str(&saved).unwrap();
        assert_eq!((read.target_return(), read.reached_at()), (475.0, Some(81_920)));
    }
}
