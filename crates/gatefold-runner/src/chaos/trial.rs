//! One run with a probe in it, and what became of it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use gatefold_env::EnvEntry;
use gatefold_monitor::{Happening, Metrics, RunEvent, Severity, names};
use gatefold_ops::probe::{self, Probe};

use super::fault::DIVERGING;
use crate::checkpoint::{self, FOLDER, Snapshot};
use crate::events::{Event, Reporter};
use crate::learned::LearnedState;
use crate::state::RunState;
use crate::{ExperimentConfig, RunError, RunOptions, Summary, train};

/// What became of a run.
#[derive(Debug)]
pub(super) struct Trial {
    /// What happened in it, in order.
    pub(super) events: Vec<RunEvent>,
    /// What it reached, or why it stopped before its end.
    pub(super) end: Result<Summary, String>,
    /// Checkpoints that it left; all of them were read.
    pub(super) checkpoints: usize,
    /// The first number in them that is none, if there is one.
    pub(super) non_finite: Option<String>,
}

/// Keeps the events that `events.jsonl` records.
#[derive(Default)]
struct Watch {
    events: Vec<RunEvent>,
    interrupted: bool,
}

impl Reporter for Watch {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Happened(event) => self.events.push(event.clone()),
            Event::Finished { interrupted, .. } => self.interrupted = *interrupted,
            _ => {}
        }
    }
}

/// One probe at a time: there is one place for it in the process.
static TAKEN: Mutex<()> = Mutex::new(());

/// Removes the probe also where a run panics.
struct Installed;

impl Drop for Installed {
    fn drop(&mut self) {
        probe::install(None);
    }
}

/// Runs an experiment in a temporary folder with a probe in it.
///
/// Every checkpoint that it saves is kept and read. An error is one of the machine or of the configuration;
/// a run that stops because it cannot go on is a result.
pub(super) fn run(
    config: &ExperimentConfig,
    probe: Option<Arc<dyn Probe>>,
    options: &RunOptions,
    entries: &[EnvEntry],
) -> Result<Trial, RunError> {
    let _turn = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().map_err(|e| RunError::io(std::env::temp_dir(), "write", e))?;
    let run_dir = folder.path().join("run");
    let options = RunOptions { run_dir: Some(run_dir.clone()), ..options.clone() };
    let mut config = config.clone();
    config.run.keep_checkpoints = 1000;
    let mut watch = Watch::default();
    let end = {
        probe::install(probe);
        let _installed = Installed;
        train(&config, &options, entries, &mut watch)
    };
    if watch.interrupted {
        return Err(RunError::Stopped("interrupted; nothing was reported".to_string()));
    }
    let end = match end {
        Ok(summary) => Ok(summary),
        Err(RunError::Stopped(reason)) => Err(reason),
        Err(error) => return Err(error),
    };
    let (checkpoints, non_finite) = look_into_checkpoints(&run_dir)?;
    Ok(Trial { events: watch.events, end, checkpoints, non_finite })
}

/// Number of checkpoints of a run, and the first number in them that is none.
fn look_into_checkpoints(run_dir: &Path) -> Result<(usize, Option<String>), RunError> {
    let found = checkpoint::list(&run_dir.join(FOLDER))?;
    let mut first = None;
    for (step, path) in &found {
        let snapshot = checkpoint::load(path)?;
        let wrong = first_non_finite(&snapshot);
        if let Some(what) = wrong {
            first.get_or_insert(format!("{what} at step {step}"));
        }
    }
    Ok((found.len(), first))
}

/// The first number of the learned state that is not finite, in tensors and statistics.
fn first_non_finite(snapshot: &Snapshot) -> Option<String> {
    let tensors = snapshot.policy.iter().chain(&snapshot.optimizer);
    let tensor = tensors.filter(|tensor| tensor.data.iter().any(|x| !x.is_finite())).map(|t| t.path.clone());
    let state: RunState = snapshot.state().expect("this build wrote it");
    let finite = |learned: &LearnedState| {
        learned.rewards.is_finite()
            && learned.scaling.as_ref().is_none_or(|scaling| scaling.is_finite())
            && learned.selection_bias.iter().all(|x| x.is_finite())
    };
    let statistics = [Some(&state.learned), state.healthy.as_ref()].into_iter().flatten();
    let statistic = statistics.filter(|learned| !finite(learned)).map(|_| "a statistic".to_string());
    tensor.chain(statistic).next()
}

impl Trial {
    /// The first time after `iteration` that one of these monitors raised a warning or an alarm: the
    /// iteration and the monitor.
    pub(super) fn raised(&self, monitors: &[&str], after: u64) -> Option<(u64, &str)> {
        self.after(after).find_map(|event| match &event.what {
            Happening::VerdictRaised { verdict }
                if verdict.severity > Severity::Info && monitors.contains(&verdict.monitor.as_str()) =>
            {
                Some((event.iteration, verdict.monitor.as_str()))
            }
            _ => None,
        })
    }

    /// The first update after `iteration` that the guard refused: the iteration and the evidence.
    pub(super) fn discarded(&self, after: u64) -> Option<(u64, &str)> {
        self.after(after).find_map(|event| match &event.what {
            Happening::UpdateDiscarded { evidence, .. } => Some((event.iteration, evidence.as_str())),
            _ => None,
        })
    }

    /// What the run did after `iteration`, in a few words.
    pub(super) fn action(&self, after: u64) -> String {
        let mut actions: Vec<String> = Vec::new();
        let mut rungs: Vec<&str> = Vec::new();
        for event in self.after(after) {
            let action = match &event.what {
                Happening::UpdateDiscarded { .. } => "update discarded".to_string(),
                Happening::LadderStep { from, to, .. } => {
                    if rungs.is_empty() {
                        rungs.push(from);
                    }
                    rungs.push(to);
                    continue;
                }
                Happening::PhaseHeld { phase, .. } => format!("phase {phase} held"),
                Happening::VerdictRaised { verdict } if verdict.severity > Severity::Info => {
                    "reported".to_string()
                }
                _ => continue,
            };
            if !actions.contains(&action) {
                actions.push(action);
            }
        }
        if !rungs.is_empty() {
            actions.push(format!("ladder {}", rungs.join(" -> ")));
        }
        if self.end.is_err() {
            actions.push("saved and stopped".to_string());
        }
        if actions.len() > 1 {
            actions.retain(|action| action != "reported");
        }
        if actions.is_empty() { "none".to_string() } else { actions.join(", ") }
    }

    /// The monitors that raised a warning or an alarm, each once, and what the run did: `none` if nothing.
    pub(super) fn account(&self) -> String {
        let mut monitors: Vec<&str> = Vec::new();
        for event in &self.events {
            if let Happening::VerdictRaised { verdict } = &event.what
                && verdict.severity > Severity::Info
                && !monitors.contains(&verdict.monitor.as_str())
            {
                monitors.push(&verdict.monitor);
            }
        }
        match monitors.is_empty() {
            true => self.action(0),
            false => format!("{} by {}", self.action(0), monitors.join(", ")),
        }
    }

    fn after(&self, iteration: u64) -> impl Iterator<Item = &RunEvent> {
        self.events.iter().filter(move |event| event.iteration > iteration)
    }

    /// Mean return of the final evaluation.
    pub(super) fn evaluated(&self) -> Option<f64> {
        self.end.as_ref().ok().and_then(|summary| summary.eval_return_mean)
    }
}

/// Adds the loss that the fault `divergence` reports to what the monitors are told.
pub(crate) fn add_planted_loss(metrics: &mut Metrics) {
    if probe::wants(DIVERGING) {
        let mut loss = [0.0];
        probe::slice(DIVERGING, &mut loss, 1);
        metrics.set(names::SUPERVISED_LOSS, f64::from(loss[0]));
    }
}
