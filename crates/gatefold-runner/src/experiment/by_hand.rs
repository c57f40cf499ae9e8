//! A step on the fallback ladder by hand, between two sittings of a run.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use gatefold_curriculum::Rung;
use gatefold_env::EnvEntry;
use gatefold_optim as optim;

use super::{Experiment, restore};
use crate::assembly::{Parts, on_device, on_threads};
use crate::checkpoint::{self, CheckpointStore, Found};
use crate::events::{Event, Reporter};
use crate::logs::Logs;
use crate::run_dir::{RunDir, read_config};
use crate::{ExperimentConfig, RunError, RunOptions};

/// The evidence of such a step.
const BY_HAND: &str = "asked for by hand";

/// The learned state that a step by hand begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StepFrom {
    /// As the newest checkpoint has it.
    #[default]
    Present,
    /// As it was after the last healthy iteration, like the ladder's own steps down.
    LastHealthy,
}

/// What a step by hand did to a run.
#[derive(Debug, Clone, PartialEq)]
pub struct RungChange {
    /// The run that is at the rung now.
    pub run: PathBuf,
    /// Environment steps of its newest checkpoint, the one that was changed.
    pub env_steps: u64,
    /// The rung before.
    pub from: Rung,
    /// The rung now; the same if there was nothing to do, and then nothing was written.
    pub to: Rung,
    /// Trainable parameters before and after.
    pub params: [usize; 2],
    /// Names of the experts in play before and after; none for a policy without experts.
    pub experts: [Vec<String>; 2],
}

/// Takes a run's newest checkpoint to a rung of the fallback ladder, up or down, and saves it again at
/// the same step, so that `resume` goes on from there. The step is noted among the run's events.
///
/// Weights, moments and statistics go on as `from` says; counters, streams and environments always from the
/// checkpoint. With `out` the run itself stays as it is, and a copy with this one checkpoint is changed instead.
/// Fails for a rung that changes nothing for the policy, and while another process writes into the run.
pub fn apply_rung(
    run: &Path,
    rung: Rung,
    from: StepFrom,
    out: Option<&Path>,
    options: &RunOptions,
    entries: &[EnvEntry],
    reporter: &mut dyn Reporter,
) -> Result<RungChange, RunError> {
    let config = read_config(run, &[], entries)?;
    let source = RunDir::open(run)?;
    let found = checkpoint::open(run)?;
    on_threads(options, || {
        on_device!(options.device, |device: B| {
            let mut parts = Parts::<B>::new(&config, entries, &device)?;
            let (state, _) = restore(&mut parts, &found, &device)?;
            let rung_before = parts.ladder.rung();
            let (params, experts) = (optim::count(parts.policy()), parts.learner.experts.clone());
            // Asked here, before anything is written.
            let step = parts.ladder.set(state.counters.moment(), rung, BY_HAND);
            let step = step.map_err(|e| RunError::Stopped(e.to_string()))?;
            let mut change = RungChange {
                run: run.to_path_buf(),
                env_steps: state.counters.env_steps,
                from: rung_before,
                to: rung,
                params: [params; 2],
                experts: [experts.clone(), experts],
            };
            if step.is_none() {
                return Ok(change);
            }
            let run_dir = match out {
                Some(out) => copy(&source, &found, &config, options, out)?,
                None => source,
            };
            change.run = run_dir.path().to_path_buf();
            let parts = Parts::<B>::new(&config, entries, &device)?;
            let mut experiment = Experiment::new(&config, options, entries, parts, run_dir, device)?;
            experiment.go_back(reporter)?;
            let step = experiment.parts.ladder.set(state.counters.moment(), rung, BY_HAND);
            if from == StepFrom::LastHealthy {
                experiment.go_back_to_healthy(BY_HAND);
            }
            experiment.take_step(step.expect("asked before").expect("it moves"))?;
            change.params[1] = optim::count(experiment.parts.policy());
            change.experts[1] = experiment.parts.learner.experts.clone();
            let mut log = Logs::open(&experiment.run_dir, experiment.counters.moment())?;
            experiment.tell(&mut log, reporter)?;
            if experiment.writer.store().forget_best(change.env_steps)? {
                let text = "the checkpoint that is changed was the best by evaluation: no evaluation has scored \
                            it as it is now, so there is no best one until the next";
                reporter.event(&Event::Warning(text.to_string()));
            }
            experiment.save(None, &log, reporter)?;
            experiment.flush(reporter)?;
            Ok(change)
        })
    })
}

/// A new run directory with one checkpoint of a run, and its metrics and events.
fn copy(
    source: &RunDir,
    found: &Found,
    config: &ExperimentConfig,
    options: &RunOptions,
    out: &Path,
) -> Result<RunDir, RunError> {
    let options = RunOptions { run_dir: Some(out.to_path_buf()), ..options.clone() };
    let target = RunDir::create(config, &options)?;
    CheckpointStore::open(&target.checkpoints(), 1)?.save(&found.snapshot)?;
    for (from, to) in [(source.metrics(), target.metrics()), (source.events(), target.events())] {
        if from.exists() {
            fs::copy(&from, &to).map_err(|e| RunError::io(&to, "write", e))?;
        }
    }
    Ok(target)
}

impl fmt::Display for RungChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = self.run.display();
        if self.from == self.to {
            return write!(f, "{run}: at rung {} already; nothing was written", self.to);
        }
        writeln!(f, "{run}: from rung {} to {} at step {}", self.from, self.to, self.env_steps)?;
        let [before, after] = self.params;
        writeln!(f, "  parameters  {before} before, {after} after")?;
        let [before, after] = &self.experts;
        if before != after {
            writeln!(f, "  experts     {} before, {} after", before.join(", "), after.join(", "))?;
        }
        write!(f, "go on with: gatefold resume {run}")
    }
}
