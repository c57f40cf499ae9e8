//! Everything of a run that is not a tensor: saved with it, restored with it.

use gatefold_curriculum::{CurriculumState, LadderState, Moment, Progress};
use gatefold_monitor::{EpisodeWindow, MonitorState, TargetTracker};
use gatefold_policy::Shape;
use serde::{Deserialize, Serialize};

use crate::guard::Guard;
use crate::learned::LearnedState;

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
    pub(crate) ladder: LadderState,
    pub(crate) monitors: MonitorState,
    pub(crate) guard: Guard,
    pub(crate) learned: LearnedState,
    /// The last healthy learned state, where the present one is not; its tensors are saved beside.
    pub(crate) healthy: Option<LearnedState>,
    /// Shapes that the parked tensors were taken from, in order.
    pub(crate) parked: Vec<Shape>,
    /// Mean gate of each configured expert in the last rollout that had them all.
    pub(crate) usage: Vec<f64>,
    pub(crate) window: EpisodeWindow,
    pub(crate) reached: Option<u64>,
    pub(crate) envs: Option<Vec<u8>>,
}

impl Counters {
    pub(crate) fn moment(self) -> Moment {
        Moment { iteration: self.iteration, env_step: self.env_steps }
    }

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
