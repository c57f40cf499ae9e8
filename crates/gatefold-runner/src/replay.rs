//! Running a discarded update again, from its dump.

use std::fmt;
use std::path::{Path, PathBuf};

use gatefold_env::{EnvEntry, Purpose, stream};
use gatefold_ops::OpsAutodiffBackend;
use gatefold_optim::{self as optim, AdamW};
use gatefold_policy::ActorCritic;
use gatefold_ppo::{Learner, UpdateError};

use crate::assembly::{on_device, on_threads};
use crate::dump::{self, Loaded, Span};
use crate::{RunError, RunOptions};

/// What running a discarded update again showed.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    /// The dump.
    pub path: PathBuf,
    /// How the update failed in the run.
    pub recorded: UpdateError,
    /// How it failed now; `None` if it went through.
    pub seen: Option<UpdateError>,
    /// The first number that is not finite, looking after every step and not only at the update's end.
    pub first: Option<UpdateError>,
    /// Why it may not be reproduced here, in words; empty if nothing speaks against it.
    pub obstacles: Vec<String>,
    about: String,
    rows: String,
    spans: Vec<Span>,
}

impl Replay {
    /// Whether the update failed as it did in the run: at the same place, on the same rows, by the same
    /// number, bit for bit.
    pub fn reproduced(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| same_bits(seen, &self.recorded))
    }
}

impl Replay {
    fn write_minibatch(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UpdateError::NonFinite { rows, .. } = &self.recorded;
        if rows.is_empty() {
            return writeln!(f, "\nThe rollout itself held the number: no minibatch was evaluated.");
        }
        writeln!(f, "\nThe minibatch: {} rows, as step/environment of the rollout", rows.len())?;
        writeln!(f, "  {}", self.rows)?;
        for Span { name, range, not_finite } in &self.spans {
            match range {
                Some((least, most)) => write!(f, "  {name:21}  {least} to {most}")?,
                None => write!(f, "  {name:21}  no finite number")?,
            }
            let more = if *not_finite > 0 { format!(", {not_finite} not finite") } else { String::new() };
            writeln!(f, "{more}")?;
        }
        Ok(())
    }
}

fn same_bits(a: &UpdateError, b: &UpdateError) -> bool {
    let parts = |error: &UpdateError| {
        let UpdateError::NonFinite { epoch, minibatch, what, value, rows } = error.clone();
        (epoch, minibatch, what, value.to_bits(), rows)
    };
    parts(a) == parts(b)
}

/// Runs the update of a dump again: same parameters, moments, rollout, plan, streams and step count.
///
/// Neither the run nor the dump is changed. Environments are built for their sizes alone, and not
/// stepped.
pub fn replay_update(path: &Path, options: &RunOptions, entries: &[EnvEntry]) -> Result<Replay, RunError> {
    let dump = dump::load(path, entries)?;
    let (seen, first) = on_threads(options, || {
        on_device!(options.device, |device: B| {
            let damaged = |reason| RunError::Damaged { path: path.to_path_buf(), reason };
            let seen = update::<B>(&dump, false, &device).map_err(damaged)?;
            let first = update::<B>(&dump, true, &device).map_err(damaged)?;
            Ok((seen, first))
        })
    })?;
    let UpdateError::NonFinite { rows, .. } = &dump.state.failure;
    let header = &dump.header;
    Ok(Replay {
        path: path.to_path_buf(),
        obstacles: obstacles(&dump),
        about: format!(
            "the update of iteration {} on {}, seed {}: environment step {}, optimizer step {}",
            header.iterations_before + 1,
            dump.config.env.name,
            dump.config.run.seed,
            header.env_steps,
            header.optimizer_steps
        ),
        rows: dump::places(rows, dump.batch.rollout.num_envs()),
        spans: dump::spans(&dump.batch, rows).to_vec(),
        recorded: dump.state.failure,
        seen,
        first,
    })
}

/// How the update fails, if it does. The outer error says what in the dump does not fit the policy.
fn update<B: OpsAutodiffBackend>(
    dump: &Loaded,
    thorough: bool,
    device: &B::Device,
) -> Result<Option<UpdateError>, String> {
    let (config, seed) = (&dump.config, dump.config.run.seed);
    let settings = dump.state.shape.apply(&config.policy);
    let mut rng = stream(seed, Purpose::Initialisation, 0);
    let policy = ActorCritic::<B>::new(&settings, &dump.spec, &mut rng, device).map_err(|e| e.to_string())?;
    let policy = policy.with_graph_frozen(dump.state.shape.graph_frozen);
    let policy = optim::import::<B, _>(policy, &dump.policy).map_err(|e| format!("policy: {e}"))?;
    let mut optimizer = AdamW::new::<B, _>(config.optimizer.clone(), &policy);
    optimizer.import(&dump.optimizer).map_err(|e| format!("optimizer: {e}"))?;
    let learner = Learner {
        ppo: config.ppo.clone(),
        losses: config.losses.clone(),
        spec: dump.spec.clone(),
        experts: if settings.has_experts() { settings.experts } else { Vec::new() },
        thorough,
    };
    let mut rng = stream(seed, Purpose::Shuffle, dump.header.iterations_before);
    let mut steps = dump.header.optimizer_steps;
    let plan = &dump.state.plan;
    let updated = learner.update(policy, &mut optimizer, &dump.batch, plan, &mut steps, &mut rng, device);
    Ok(updated.err())
}

fn obstacles(dump: &Loaded) -> Vec<String> {
    let mut found = Vec::new();
    let level = gatefold_ops::simd_level();
    if dump.header.simd_level != level {
        found.push(format!(
            "the run computed with SIMD level {recorded}, this is {level}; bits differ between levels (set \
             GATEFOLD_SIMD={recorded} where this machine has it)",
            recorded = dump.header.simd_level
        ));
    }
    if let Some(fault) = &dump.state.fault {
        found.push(format!("a fault was put in on purpose, and a replay puts in none: {fault}"));
    }
    found
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.path.display(), self.about)?;
        writeln!(f, "  in the run  {}", self.recorded)?;
        match &self.seen {
            Some(seen) => writeln!(f, "  replayed    {seen}")?,
            None => writeln!(f, "  replayed    the update went through")?,
        }
        match &self.first {
            Some(first) => writeln!(f, "  first       {first}, looking after every step")?,
            None => writeln!(f, "  first       every number is finite, looking after every step")?,
        }
        self.write_minibatch(f)?;
        if self.reproduced() {
            return write!(f, "\nReproduced bit for bit.");
        }
        writeln!(f, "\nNOT reproduced.")?;
        match self.obstacles.is_empty() {
            true => write!(f, "Nothing in the dump tells why: was it written by another build?"),
            false => write!(f, "Because: {}.", self.obstacles.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests;
