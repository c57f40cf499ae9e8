//! Everything of a run that is not a tensor: saved with it, restored with it.

use gatefold_curriculum::{CurriculumState, Progress};
use gatefold_monitor::{EpisodeWindow, TargetTracker};
use gatefold_policy::ObservationScaling;
use gatefold_ppo::RewardScaler;
use serde::{Deserialize, Serialize};

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// Iterations done.
    pub(crate) iteration: u64,
    /// Environment steps over all environments.
    pub(crate) env_steps: u64,
    /// Optimizer steps.
    pub(crate) optimizer_steps: u64,
}

/// The running state in a checkpoint, beside parameters and moments.
///
/// Random streams need no state: they are keyed by the seed and the iteration. The environments'
/// own streams are in `envs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunState {
    pub(crate) counters: Counters,
    pub(crate) curriculum: CurriculumState,
    pub(crate) rewards: RewardScaler,
    pub(crate) scaling: Option<ObservationScaling>,
    pub(crate) window: EpisodeWindow,
    pub(crate) reached: Option<u64>,
    pub(crate) envs: Option<Vec<u8>>,
}

impl Counters {
    pub(crate) fn progress(self, total_steps: u64, window: &EpisodeWindow) -> Progress {
        Progress { env_steps: self.env_steps, total_steps, episodes: window.finished() }
    }
}

/// The first environment step at which the target return was reached.
#[derive(Debug, Clone, Default)]
pub(crate) struct Target {
    tracker: Option<TargetTracker>,
    reached: Option<u64>,
}

impl Target {
    pub(crate) fn new(target_return: Option<f64>, reached: Option<u64>) -> Self {
        Self { tracker: target_return.map(TargetTracker::new), reached }
    }

    pub(crate) fn observe(&mut self, window: &EpisodeWindow, env_step: u64) {
        if let (None, Some(tracker)) = (self.reached, &mut self.tracker) {
            tracker.observe(window, env_step);
            self.reached = tracker.reached_at();
        }
    }

    pub(crate) fn reached(&self) -> Option<u64> {
        self.reached
    }
}
