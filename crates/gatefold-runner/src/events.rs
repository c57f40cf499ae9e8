//! What a run tells while it goes on. The loop pushes, a [`Reporter`] shows; nothing here prints.

use std::path::PathBuf;

pub use gatefold_curriculum::Rung;
pub use gatefold_monitor::{Happening, RunEvent};

pub use crate::expert_use::ExpertUse;
use crate::summary::Summary;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The run is about to take its first step.
    Started {
        /// The folder with configuration, metrics, checkpoints and summary.
        run_dir: PathBuf,
        /// The environment.
        env: String,
        /// Environment steps already taken: 0 unless resumed.
        step: u64,
        /// Environment steps in all.
        total_steps: u64,
        /// Trainable parameters.
        params: usize,
        /// `cpu` or `cuda`.
        device: &'static str,
        /// Worker threads.
        threads: usize,
    },
    /// An iteration has ended.
    Iteration(Progress),
    /// A checkpoint is on disk. Checkpoints are written beside the loop, so the run may be further by now.
    CheckpointSaved {
        /// Where.
        path: PathBuf,
        /// Environment steps it holds.
        step: u64,
        /// Whether its evaluation is the best so far.
        best: bool,
    },
    /// The policy has been evaluated on held-out seeds.
    Evaluated {
        /// Environment steps taken in training.
        step: u64,
        /// What it reached.
        evaluation: Evaluation,
    },
    /// Something that the user should know and that does not end the run.
    Warning(String),
    /// A monitor's verdict, a discarded update, a step of the ladder: what `events.jsonl` records.
    Happened(RunEvent),
    /// The run has ended.
    Finished {
        /// The folder with configuration, metrics, checkpoints and summary.
        run_dir: PathBuf,
        /// Whether a signal ended it before its last step; `resume` goes on from there.
        interrupted: bool,
        /// What was reached.
        summary: Summary,
    },
}

/// Where a run stands after an iteration.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Iterations done.
    pub iteration: u64,
    /// Environment steps taken.
    pub step: u64,
    /// Environment steps in all.
    pub total_steps: u64,
    /// Environment steps per second, lately.
    pub steps_per_second: f64,
    /// Phase of the curriculum.
    pub phase: String,
    /// Temperature of the router.
    pub temperature: f32,
    /// Rung of the fallback ladder.
    pub rung: Rung,
    /// Alarms that stand.
    pub alarms: usize,
    /// Mean raw return of the last 100 episodes, once one has ended.
    pub return_mean: Option<f64>,
    /// Mean score of the last 100 episodes, once one has ended.
    pub score_mean: Option<f64>,
    /// Mean entropy of the gates in nats; `None` without a router.
    pub gate_entropy: Option<f64>,
    /// Seconds to the end at this speed.
    pub eta_s: f64,
}

/// Means over finished episodes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EpisodeMeans {
    /// Mean raw return.
    pub return_mean: f64,
    /// Mean score: the last in-game score of each episode.
    pub score_mean: f64,
    /// Mean length in steps.
    pub length_mean: f64,
}

/// An evaluation on held-out seeds, beside what needs no learning.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// The policy.
    pub policy: EpisodeMeans,
    /// Episodes played by each.
    pub episodes: usize,
    /// A random policy on the same seeds, if it was played.
    pub random: Option<EpisodeMeans>,
    /// The environment's scripted policy on the same seeds, if it has one and it was played.
    pub scripted: Option<EpisodeMeans>,
    /// How the policy used its experts, by kind of situation, if it has a router and the environment
    /// tells kinds apart.
    pub experts: Option<ExpertUse>,
}

/// Shows what a run tells.
pub trait Reporter: Send {
    /// Takes notice of one event. Must not fail: a run does not end because nobody could watch it.
    fn event(&mut self, event: &Event);
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Reporter for Silent {
    fn event(&mut self, _event: &Event) {}
}
