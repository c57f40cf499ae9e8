//! From a running experiment to a checkpoint and back.

use gatefold_ops::OpsAutodiffBackend;
use gatefold_optim::{self as optim, NamedTensor};

use super::Experiment;
use crate::assembly::Parts;
use crate::checkpoint::{self, Found, Header, Saved, Snapshot};
use crate::events::{Evaluation, Event, Reporter};
use crate::guard::MOST_ATTEMPTS;
use crate::learned::{Learned, Parked};
use crate::logs::Logs;
use crate::state::{RunState, Target};
use crate::{RunError, check_resumable, config_hash, layers};

/// Prefix of the tensors of the last healthy state in a checkpoint whose own state is not.
const HEALTHY: &str = "healthy:";

/// Prefix of the `i`th tensors that the ladder took from the policy.
fn parked(i: usize) -> String {
    format!("parked{i}:")
}

fn with_prefix(prefix: &str, tensors: impl IntoIterator<Item = NamedTensor>) -> Vec<NamedTensor> {
    let named = |t: NamedTensor| NamedTensor { path: format!("{prefix}{}", t.path), ..t };
    tensors.into_iter().map(named).collect()
}

/// The tensors that have a prefix, without it; with an empty prefix those that have none.
fn without_prefix(prefix: &str, tensors: &[NamedTensor]) -> Vec<NamedTensor> {
    let own = |t: &&NamedTensor| !prefix.is_empty() || !t.path.contains(':');
    let stripped = |t: &NamedTensor| {
        t.path.strip_prefix(prefix).map(|path| NamedTensor { path: path.to_string(), ..t.clone() })
    };
    tensors.iter().filter(own).filter_map(stripped).collect()
}

/// Puts a checkpoint's parameters, moments and running state into freshly built parts.
///
/// Returns the running state and the last healthy learned state.
pub(crate) fn restore<B: OpsAutodiffBackend>(
    parts: &mut Parts<B>,
    found: &Found,
    device: &B::Device,
) -> Result<(RunState, Learned<B>), RunError> {
    let damaged = |reason: String| RunError::Damaged { path: found.path.clone(), reason };
    let snapshot = &found.snapshot;
    let state: RunState = snapshot.state().map_err(damaged)?;
    parts.ladder.restore(state.ladder.clone());
    let learned = |parts: &Parts<B>, prefix: &str, rest: &crate::learned::LearnedState| {
        let (policy, mut optimizer) = parts.build(&rest.shape, device)?;
        let policy = optim::import::<B, _>(policy, &without_prefix(prefix, &snapshot.policy));
        let policy = policy.map_err(|e| damaged(format!("policy: {e}")))?;
        let moments = without_prefix(prefix, &snapshot.optimizer);
        optimizer.import(&moments).map_err(|e| damaged(format!("optimizer: {e}")))?;
        Ok::<_, RunError>(Learned { policy, optimizer, rest: rest.clone() })
    };
    let present = learned(parts, "", &state.learned)?;
    let healthy = match &state.healthy {
        Some(rest) => learned(parts, HEALTHY, rest)?,
        None => present.clone(),
    };
    parts.collector.load(state.envs.as_deref(), None)?;
    parts.put_back(&present);
    let taken = state.parked.iter().enumerate().map(|(i, from)| Parked {
        from: from.clone(),
        tensors: without_prefix(&parked(i), &snapshot.policy),
    });
    parts.parked = taken.collect();
    parts.curriculum.restore(state.curriculum.clone());
    parts.monitors.restore(state.monitors.clone());
    Ok((state, healthy))
}

fn report_saved(saved: Option<Saved>, reporter: &mut dyn Reporter) {
    if let Some(Saved { path, step }) = saved {
        reporter.event(&Event::CheckpointSaved { path, step, best: false });
    }
}

impl<B: OpsAutodiffBackend> Experiment<'_, B> {
    /// Returns to the newest whole checkpoint of the run directory.
    pub(super) fn go_back(&mut self, reporter: &mut dyn Reporter) -> Result<(), RunError> {
        if checkpoint::list(&self.run_dir.checkpoints())?.is_empty() {
            let text = "this run was stopped before its first checkpoint: it starts from the beginning";
            reporter.event(&Event::Warning(text.to_string()));
            return Ok(());
        }
        let found = self.writer.store().latest()?;
        let header = &found.snapshot.header;
        let name = found.path.join("config.toml").display().to_string();
        let saved = layers::resolve(&name, &found.snapshot.config, &[], self.entries)?;
        check_resumable(&found.path, &saved, self.config)?;
        let (state, healthy) = restore(&mut self.parts, &found, &self.device)?;
        let mut warnings = found.warnings.clone();
        if self.config.run.total_steps < state.counters.env_steps {
            warnings.push(format!(
                "run.total_steps = {}: this run already stands at {} steps; give more to go on",
                self.config.run.total_steps, state.counters.env_steps
            ));
        }
        warnings.extend(self.writer.store().rewind(header.env_steps)?);
        if header.simd_level != gatefold_ops::simd_level() {
            warnings.push(format!(
                "this run was computed with SIMD level {}, this machine has {}: it goes on, but not bit for bit",
                header.simd_level,
                gatefold_ops::simd_level()
            ));
        }
        warnings.into_iter().for_each(|warning| reporter.event(&Event::Warning(warning)));
        self.counters = state.counters;
        self.healthy = healthy;
        self.guard = state.guard;
        if self.guard.attempts >= MOST_ATTEMPTS {
            self.guard.attempts = 0; // the run was stopped by them, and whoever resumes it means to try anew
        }
        self.usage = state.usage;
        self.window = state.window;
        // What was reached counts only for the target it was reached for.
        let same_target = saved.run.target_return == self.config.run.target_return;
        self.target = Target::new(self.config.run.target_return, state.reached.filter(|_| same_target));
        self.clock.go_on(header.wall_s, header.seconds_to_target.filter(|_| same_target));
        if let Some(return_mean) = header.eval_return_mean {
            self.keep_best(return_mean, reporter)?; // in case the run was stopped before it could
        }
        self.run_dir.write_config(self.config, self.options)
    }

    /// Begins to save the state; `evaluation` is the one of this very state, if there was one.
    pub(super) fn save(
        &mut self,
        evaluation: Option<&Evaluation>,
        log: &Logs,
        reporter: &mut dyn Reporter,
    ) -> Result<(), RunError> {
        let present = self.parts.learned(self.counters.moment()).rest;
        let healthy = (self.healthy.rest != present).then(|| self.healthy.clone());
        let state = RunState {
            counters: self.counters,
            curriculum: self.parts.curriculum.state().clone(),
            ladder: self.parts.ladder.state().clone(),
            monitors: self.parts.monitors.state().clone(),
            guard: self.guard,
            learned: present,
            healthy: healthy.as_ref().map(|healthy| healthy.rest.clone()),
            parked: self.parts.parked.iter().map(|parked| parked.from.clone()).collect(),
            usage: self.usage.clone(),
            window: self.window.clone(),
            reached: self.target.reached(),
            envs: self.parts.collector.save()?,
        };
        let mut policy = optim::export::<B, _>(self.parts.policy());
        let mut optimizer = self.parts.optimizer.export();
        if let Some(healthy) = &healthy {
            policy.extend(with_prefix(HEALTHY, optim::export::<B, _>(&healthy.policy)));
            optimizer.extend(with_prefix(HEALTHY, healthy.optimizer.export()));
        }
        for (i, taken) in self.parts.parked.iter().enumerate() {
            policy.extend(with_prefix(&parked(i), taken.tensors.iter().cloned()));
        }
        let header = Header {
            env_steps: self.counters.env_steps,
            iteration: self.counters.iteration,
            config_hash: config_hash(self.config),
            simd_level: gatefold_ops::simd_level().to_string(),
            revision: self.options.revision.clone(),
            wall_s: self.clock.wall_s(),
            seconds_to_target: self.clock.seconds_to_target(),
            eval_return_mean: evaluation.map(|evaluation| evaluation.policy.return_mean),
        };
        let snapshot = Snapshot::new(header, layers::to_toml(self.config), policy, optimizer, &state);
        let before = self.writer.save(snapshot, log.sync()?)?;
        report_saved(before, reporter);
        Ok(())
    }

    /// Waits until the last save is on disk.
    pub(super) fn flush(&mut self, reporter: &mut dyn Reporter) -> Result<(), RunError> {
        report_saved(self.writer.flush()?, reporter);
        Ok(())
    }

    /// Names the checkpoint just saved the best one if its evaluation is.
    pub(super) fn keep_best(
        &mut self,
        return_mean: f64,
        reporter: &mut dyn Reporter,
    ) -> Result<(), RunError> {
        self.flush(reporter)?;
        let better = self.writer.store().best()?.is_none_or(|best| return_mean > best.return_mean);
        if better && return_mean.is_finite() {
            let step = self.counters.env_steps;
            let path = self.writer.store().mark_best(step, return_mean)?;
            reporter.event(&Event::CheckpointSaved { path, step, best: true });
        }
        Ok(())
    }
}
