//! THE loop: one experiment from its first step, or from a checkpoint, to its last.

mod by_hand;

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use gatefold_curriculum::{Health, LadderStep, Plan, StepBy};
use gatefold_env::{EnvEntry, Purpose, stream};
use gatefold_monitor::{
    Episode, EpisodeWindow, Happening, Metrics, RunEvent, Situation, names, plan_metrics,
};
use gatefold_ops::{OpsAutodiffBackend, probe};
use gatefold_optim::{self as optim, NamedTensor};
use gatefold_policy::{ActorCritic, Observation};
use gatefold_ppo::losses::{SELECTION_BIAS_STEP, update_selection_bias};
use gatefold_ppo::{Batch, Rollout, RolloutError, UpdateError, Updated};

use crate::agreement::warnings;
use crate::assembly::{Parts, on_device, on_threads};
use crate::checkpoint::{self, CheckpointStore, CheckpointWriter, Found, Header, Saved, Snapshot};
use crate::dump::{Dump, write_dump};
use crate::evaluate::{Player, evaluate_policy, pick};
use crate::events::{Evaluation, Event, Progress, Reporter};
use crate::footprint::refuse_too_large;
use crate::guard::{Guard, MOST_ATTEMPTS};
use crate::learned::{Learned, Parked};
use crate::logs::Logs;
use crate::report::{
    Clock, Pace, attention_metrics, evaluation_metrics, gate_metrics, reward_metrics, router_metrics, to_host,
};
use crate::run_dir::{RunDir, read_config};
use crate::state::{Counters, RunState, Target};
use crate::{ExperimentConfig, RunError, RunOptions, Stop, Summary, check_resumable, config_hash, layers};

pub use by_hand::{RungChange, apply_rung};

/// Trains one experiment in a new run directory.
///
/// Refuses what cannot fit into this machine's memory before anything is built or written.
pub fn train(
    config: &ExperimentConfig,
    options: &RunOptions,
    entries: &[EnvEntry],
    reporter: &mut dyn Reporter,
) -> Result<Summary, RunError> {
    refuse_too_large(config, entries)?;
    on_threads(options, || {
        on_device!(options.device, |device: B| {
            let parts = Parts::<B>::new(config, entries, &device)?;
            let run_dir = RunDir::create(config, options)?;
            Experiment::new(config, options, entries, parts, run_dir, device)?.run(reporter)
        })
    })
}

/// Goes on with a run from its newest whole checkpoint, as if it had never stopped.
pub fn resume(
    run: &Path,
    overrides: &[String],
    options: &RunOptions,
    entries: &[EnvEntry],
    reporter: &mut dyn Reporter,
) -> Result<Summary, RunError> {
    let config = read_config(run, overrides, entries)?;
    let run_dir = RunDir::open(run)?;
    refuse_too_large(&config, entries)?;
    on_threads(options, || {
        on_device!(options.device, |device: B| {
            let parts = Parts::<B>::new(&config, entries, &device)?;
            let mut experiment = Experiment::new(&config, options, entries, parts, run_dir, device)?;
            experiment.go_back(reporter)?;
            experiment.run(reporter)
        })
    })
}

/// Prefix of the tensors of the last healthy state in a checkpoint whose own state is not.
const HEALTHY: &str = "healthy:";

/// Prefix of the `i`th tensors that the ladder took from the policy.
fn parked(i: usize) -> String {
    format!("parked{i}:")
}

/// Rows of a rollout on which the router's movement is measured.
const PROBE_ROWS: usize = 64;

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

struct Experiment<'a, B: OpsAutodiffBackend> {
    config: &'a ExperimentConfig,
    options: &'a RunOptions,
    entries: &'a [EnvEntry],
    device: B::Device,
    parts: Parts<B>,
    run_dir: RunDir,
    writer: CheckpointWriter,
    counters: Counters,
    window: EpisodeWindow,
    target: Target,
    clock: Clock,
    guard: Guard,
    /// Where the guard and the ladder return to.
    healthy: Learned<B>,
    /// Mean gate of each configured expert in the last rollout that had them all.
    usage: Vec<f64>,
    /// What happened and is not written yet.
    happened: Vec<RunEvent>,
}

impl<'a, B: OpsAutodiffBackend> Experiment<'a, B> {
    fn new(
        config: &'a ExperimentConfig,
        options: &'a RunOptions,
        entries: &'a [EnvEntry],
        parts: Parts<B>,
        run_dir: RunDir,
        device: B::Device,
    ) -> Result<Self, RunError> {
        let store = CheckpointStore::open(&run_dir.checkpoints(), config.run.keep_checkpoints)?;
        let counters = Counters::default();
        Ok(Self {
            healthy: parts.learned(counters.moment()),
            guard: Guard::default(),
            usage: Vec::new(),
            happened: Vec::new(),
            target: Target::new(config.run.target_return, None),
            config,
            options,
            entries,
            device,
            parts,
            run_dir,
            writer: CheckpointWriter::new(store),
            counters,
            window: EpisodeWindow::default(),
            clock: Clock::start(),
        })
    }

    /// Returns to the newest whole checkpoint of the run directory.
    fn go_back(&mut self, reporter: &mut dyn Reporter) -> Result<(), RunError> {
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

    /// Runs to the last step, to the target if the run stops there, or to a signal.
    fn run(mut self, reporter: &mut dyn Reporter) -> Result<Summary, RunError> {
        let stop = Stop::on_signals();
        let total_steps = self.config.run.total_steps;
        let params = optim::count(self.parts.policy());
        let mut log = Logs::open(&self.run_dir, self.counters.env_steps)?;
        reporter.event(&Event::Started {
            run_dir: self.run_dir.path().to_path_buf(),
            env: self.config.env.name.clone(),
            step: self.counters.env_steps,
            total_steps,
            params,
            device: self.options.device.name(),
            threads: self.options.threads,
        });
        for text in warnings(self.config, &self.parts.learner.spec) {
            reporter.event(&Event::Warning(text));
        }
        if self.counters.iteration == 0 {
            let start = self.parts.shape_of_rung(&[]);
            self.parts.reshape(start, &self.device)?;
            self.healthy = self.parts.learned(self.counters.moment());
            self.save(None, &log, reporter)?;
            // A folder that cannot be written is told before any time is spent on training.
            self.flush(reporter)?;
        }
        let mut saved_at = self.counters.iteration;
        let mut pace = Pace::new(self.counters.env_steps);
        while self.counters.env_steps < total_steps && !stop.requested() && !self.done_at_target() {
            let (plan, mut metrics) = match self.iterate() {
                Ok(done) => done,
                Err(error) => {
                    self.tell(&mut log, reporter)?;
                    if self.guard.attempts >= MOST_ATTEMPTS {
                        // Learned state is the last healthy one again: it is kept.
                        self.save(None, &log, reporter)?;
                        self.flush(reporter)?;
                    }
                    return Err(error);
                }
            };
            self.tell(&mut log, reporter)?;
            let wall_s = self.clock.wall_s();
            metrics.set(names::TIME_TOTAL, wall_s);
            metrics.set(names::TIME_STEPS_PER_SECOND, self.counters.env_steps as f64 / wall_s);

            let every = self.config.eval.every;
            let evaluation = (every > 0 && self.counters.iteration.is_multiple_of(every))
                .then(|| self.evaluate(false, &stop))
                .transpose()?
                .flatten();
            if let Some(evaluation) = evaluation.clone() {
                metrics.merge(evaluation_metrics(&evaluation));
                reporter.event(&Event::Evaluated { step: self.counters.env_steps, evaluation });
            }
            log.metrics.write(self.counters.env_steps, &metrics)?;
            if evaluation.is_some()
                || self.counters.iteration.is_multiple_of(self.config.run.checkpoint_every)
            {
                self.save(evaluation.as_ref(), &log, reporter)?;
                saved_at = self.counters.iteration;
            }
            if let Some(evaluation) = evaluation {
                self.keep_best(evaluation.policy.return_mean, reporter)?;
            }
            reporter.event(&Event::Iteration(self.progress(&plan, &metrics, &mut pace)));
        }
        if saved_at != self.counters.iteration {
            self.save(None, &log, reporter)?;
        }
        self.flush(reporter)?;
        let wall_s = self.clock.wall_s();
        let evaluation = self.evaluate(true, &stop)?;
        let interrupted = evaluation.is_none();
        if let Some(evaluation) = evaluation.clone() {
            self.keep_best(evaluation.policy.return_mean, reporter)?;
            if let Some(experts) = &evaluation.experts {
                self.run_dir.write_experts(experts)?;
            }
            reporter.event(&Event::Evaluated { step: self.counters.env_steps, evaluation });
        }
        let summary = self.summary(wall_s, params, evaluation.as_ref());
        self.run_dir.write_summary(&summary)?;
        reporter.event(&Event::Finished {
            run_dir: self.run_dir.path().to_path_buf(),
            interrupted,
            summary: summary.clone(),
        });
        Ok(summary)
    }

    /// One iteration: plan, collect, scale, advantages, update, count, judge.
    ///
    /// An iteration that met a number that is not finite ends where it met it: learned state returns to
    /// the last healthy one, counters and random streams go on.
    fn iterate(&mut self) -> Result<(Plan, Metrics), RunError> {
        probe::begin(self.counters.iteration);
        let begun = Instant::now();
        let progress = self.counters.progress(self.config.run.total_steps, &self.window);
        let plan = self.parts.plan(progress);
        let mut metrics = plan_metrics(&plan);
        let rollout = match self.collect(&plan) {
            Ok(rollout) => rollout,
            Err(error) => {
                let Some(steps) = error.non_finite_at() else {
                    return Err(self.misfortune(error.to_string()));
                };
                self.counters.env_steps += (steps * self.config.run.num_envs) as u64;
                metrics.merge(self.discard(error.to_string(), None)?);
                return Ok((plan, metrics));
            }
        };
        metrics.merge(self.take_in(&rollout));
        let before = self.routing_probabilities(&rollout, &plan);
        metrics.merge(self.look_at(&rollout));
        let load = self.selection_load(&rollout);
        let ppo = &self.config.ppo;
        let rewards = self.parts.rewards.scale(rollout.rewards.view(), rollout.ends.view(), ppo.gamma);
        metrics.set(names::REWARD_SCALE, self.parts.rewards.divisor());
        if let Some(what) = self.bad_normaliser() {
            metrics.merge(self.discard(format!("{what} is not finite"), None)?);
            return Ok((plan, metrics));
        }
        let batch = rollout.into_batch(&rewards, ppo.gamma, ppo.gae_lambda);
        let collected = begun.elapsed();
        // Shares its tensors with the policy, as the last healthy state usually does already.
        let (start, optimizer_steps) =
            (self.parts.learned(self.counters.moment()), self.counters.optimizer_steps);
        let updated = match self.update(&batch, &plan) {
            Ok(updated) => updated,
            Err(failure) => {
                let dump = Dump {
                    config: self.config,
                    shape: &start.rest.shape,
                    iteration: self.counters.iteration,
                    env_steps: self.counters.env_steps,
                    optimizer_steps,
                    plan: &plan,
                    policy: optim::export::<B, _>(&start.policy),
                    optimizer: start.optimizer.export(),
                    batch: &batch,
                    failure: &failure,
                    fault: probe::about(),
                };
                let path = write_dump(self.run_dir.path(), &dump)?;
                metrics.merge(self.discard(failure.to_string(), Some(path))?);
                return Ok((plan, metrics));
            }
        };
        self.parts.policy = Some(updated.policy);
        self.counters.iteration += 1;
        self.guard.attempts = 0;
        if let Some(load) = load {
            update_selection_bias(&mut self.parts.selection_bias, &load, SELECTION_BIAS_STEP);
        }
        metrics.merge(updated.metrics);
        if let Some((read, before)) = before {
            let policy = self.parts.policy().valid();
            let after = policy.routing_probabilities(read, plan.temperature);
            let after = to_host(after.expect("the policy still has its router"));
            metrics.merge(router_metrics(&self.parts.learner.experts, &before, &after));
        }
        self.time(&mut metrics, begun, collected);
        #[cfg(feature = "chaos")]
        crate::chaos::add_planted_loss(&mut metrics);
        self.judge(&plan, &mut metrics, updated.largest_tensor.as_deref())?;
        Ok((plan, metrics))
    }

    /// Steps the environments under the policy as it is.
    fn collect(&mut self, plan: &Plan) -> Result<Rollout, RolloutError> {
        let mut rng = stream(self.config.run.seed, Purpose::Actions, self.counters.iteration);
        let policy = self.parts.policy().valid();
        let bias = &self.parts.selection_bias;
        self.parts.collector.collect(&policy, plan, bias, &mut rng, &self.device)
    }

    /// Improves the policy, which is taken out meanwhile: its tensors are changed in place.
    fn update(&mut self, batch: &Batch, plan: &Plan) -> Result<Updated<ActorCritic<B>>, UpdateError> {
        let mut rng = stream(self.config.run.seed, Purpose::Shuffle, self.counters.iteration);
        self.parts.learner.update(
            self.parts.policy.take().expect("the policy is back after every update"),
            &mut self.parts.optimizer,
            batch,
            plan,
            &mut self.counters.optimizer_steps,
            &mut rng,
            &self.device,
        )
    }

    /// How experts were used, attention was spread and steps were rewarded.
    fn look_at(&mut self, rollout: &Rollout) -> Metrics {
        let policy = self.parts.policy().valid();
        let mut metrics = gate_metrics(&self.parts.learner.experts, rollout);
        if self.parts.shape.kept.is_none() {
            let experts = self.parts.learner.experts.iter();
            self.usage = experts.filter_map(|expert| metrics.get(&names::usage(expert))).collect();
        }
        metrics.merge(attention_metrics(&policy, &self.parts.learner.spec, rollout, &self.device));
        metrics.merge(reward_metrics(rollout));
        metrics
    }

    /// What the router reads at the rollout's start and how it routes that, where routing is learned.
    fn routing_probabilities(
        &self,
        rollout: &Rollout,
        plan: &Plan,
    ) -> Option<(Tensor<B::InnerBackend, 2>, Vec<f32>)> {
        if !plan.routing.learns() || !self.parts.policy().has_router() {
            return None;
        }
        let rows = rollout.num_envs().min(PROBE_ROWS);
        let observation =
            Observation::new(&self.parts.learner.spec, rollout.observations.pick(0..rows), &self.device);
        let policy = self.parts.policy().valid();
        let read = policy.read_by_router(&observation)?;
        let probabilities = policy.routing_probabilities(read.clone(), plan.temperature)?;
        Some((read, to_host(probabilities)))
    }

    /// How often each expert was selected, where selection is balanced by bias.
    fn selection_load(&self, rollout: &Rollout) -> Option<Vec<f64>> {
        let num_experts = self.parts.selection_bias.len();
        if num_experts == 0 || rollout.drawn.is_empty() {
            return None;
        }
        let mut load = vec![0.0; num_experts];
        for row in rollout.drawn.chunks_exact(num_experts) {
            load.iter_mut().zip(row).for_each(|(sum, &selected)| *sum += f64::from(selected));
        }
        Some(load)
    }

    /// A statistic that is not finite, before anything is scaled by it.
    fn bad_normaliser(&self) -> Option<&'static str> {
        if !self.parts.rewards.is_finite() {
            return Some("the standard deviation of rewards");
        }
        let scaling = self.parts.collector.scaling();
        scaling.is_some_and(|scaling| !scaling.is_finite()).then_some("a statistic of the observations")
    }

    /// Judges the iteration; a healthy one is where the guard and the ladder return to.
    fn judge(
        &mut self,
        plan: &Plan,
        metrics: &mut Metrics,
        largest_tensor: Option<&str>,
    ) -> Result<(), RunError> {
        let situation = Situation {
            iteration: self.counters.iteration,
            env_step: self.counters.env_steps,
            phase: plan.phase,
            routing: plan.routing,
            temperature: plan.temperature,
            experts: &self.parts.learner.experts,
            target_return: self.config.run.target_return,
            largest_tensor,
        };
        let judgement = self.parts.monitors.judge(&situation, metrics);
        let health =
            if judgement.is_healthy() { Health::healthy() } else { Health::unhealthy(judgement.evidence()) };
        metrics.merge(judgement.metrics);
        self.happened.extend(judgement.events);
        let held = |parts: &Parts<B>| parts.curriculum.held().cloned();
        let before = held(&self.parts);
        self.parts.curriculum.observe(&health);
        if let Some(now) = held(&self.parts).filter(|_| before.is_none()) {
            self.note(Happening::PhaseHeld { phase: now.phase, evidence: now.evidence });
        }
        if health.healthy {
            self.healthy = self.parts.learned(self.counters.moment());
        }
        if let Some(step) = self.parts.ladder.observe(self.counters.moment(), &health) {
            self.take_step(step)?;
        }
        metrics.set(names::LADDER_RUNG, self.parts.ladder.rung().index() as f64);
        metrics.merge(self.guard.metrics());
        Ok(())
    }

    /// Performs a step of the ladder: down from the last healthy state, up from the present one.
    fn take_step(&mut self, step: LadderStep) -> Result<(), RunError> {
        if matches!(step.by, StepBy::Monitors | StepBy::Guard) {
            self.parts.put_back(&self.healthy);
            let (to_env_step, evidence) = (self.healthy.rest.env_step, step.evidence.clone());
            self.note(Happening::RolledBack { to_env_step, evidence });
        }
        let shape = self.parts.shape_of_rung(&self.usage);
        self.parts.reshape(shape, &self.device)?;
        self.parts.monitors.start_windows_anew();
        self.healthy = self.parts.learned(self.counters.moment());
        self.note(Happening::LadderStep {
            from: step.from.to_string(),
            to: step.to.to_string(),
            by: step.by.to_string(),
            evidence: step.evidence,
        });
        Ok(())
    }

    /// Throws away what this iteration learned and returns to the last healthy state.
    fn discard(&mut self, evidence: String, dump: Option<PathBuf>) -> Result<Metrics, RunError> {
        self.counters.iteration += 1;
        self.guard.events += 1 + u64::from(dump.is_some());
        self.guard.discarded += 1;
        self.guard.attempts += 1;
        self.parts.put_back(&self.healthy);
        self.parts.monitors.start_windows_anew();
        let attempt = self.guard.attempts;
        self.note(Happening::UpdateDiscarded { evidence: evidence.clone(), attempt });
        if let Some(dump) = dump {
            let path = dump.strip_prefix(self.run_dir.path()).unwrap_or(&dump).display().to_string();
            self.note(Happening::DumpWritten { path });
        }
        if attempt >= MOST_ATTEMPTS {
            let grounds = format!("{attempt} discarded updates in a row, the last: {evidence}");
            match self.parts.ladder.step_down(self.counters.moment(), &grounds) {
                Some(step) => {
                    self.guard.attempts = 0;
                    self.take_step(step)?;
                }
                None => return Err(self.misfortune(grounds)),
            }
        }
        let mut metrics = self.guard.metrics();
        metrics.set(names::LADDER_RUNG, self.parts.ladder.rung().index() as f64);
        metrics.set(names::TIME_ITERATION, self.counters.iteration as f64);
        metrics.set(names::TIME_ENV_STEPS, self.counters.env_steps as f64);
        Ok(metrics)
    }

    fn note(&mut self, what: Happening) {
        let (iteration, env_step) = (self.counters.iteration, self.counters.env_steps);
        self.happened.push(RunEvent { iteration, env_step, what });
    }

    /// Passes on what happened.
    fn tell(&mut self, log: &mut Logs, reporter: &mut dyn Reporter) -> Result<(), RunError> {
        for event in self.happened.drain(..) {
            log.events.write(&event)?;
            reporter.event(&Event::Happened(event));
        }
        Ok(())
    }

    fn time(&self, metrics: &mut Metrics, begun: Instant, collected: std::time::Duration) {
        metrics.set(names::TIME_ITERATION, self.counters.iteration as f64);
        metrics.set(names::TIME_ENV_STEPS, self.counters.env_steps as f64);
        metrics.set(names::TIME_ROLLOUT, collected.as_secs_f64());
        metrics.set(names::TIME_UPDATE, (begun.elapsed() - collected).as_secs_f64());
    }

    /// Counts the rollout's steps and episodes, in time order.
    fn take_in(&mut self, rollout: &Rollout) -> Metrics {
        let envs = rollout.num_envs() as u64;
        let mut episodes = rollout.episodes.iter();
        for ends in rollout.ends.rows() {
            self.counters.env_steps += envs;
            for _ in ends.iter().flatten() {
                let episode = episodes.next().expect("every end finishes an episode");
                self.window.push(Episode {
                    total_return: episode.episode_return,
                    score: episode.score,
                    length: u64::from(episode.length),
                });
                self.target.observe(&self.window, self.counters.env_steps);
            }
        }
        if self.target.reached().is_some() {
            self.clock.note_target();
        }
        let mut metrics = self.window.metrics();
        let value_mean = rollout.values.mean().expect("a rollout has steps");
        metrics.set(names::ROLLOUT_VALUE_MEAN, f64::from(value_mean));
        metrics
    }

    fn done_at_target(&self) -> bool {
        self.config.run.stop_at_target && self.target.reached().is_some()
    }

    /// A run that cannot go on, and what to do about it.
    fn misfortune(&self, what: String) -> RunError {
        RunError::Stopped(format!(
            "environment `{}`, iteration {}: {what}. The last healthy state is saved in {}; `gatefold explain` tells \
             what led here. Go on with `resume --rung <rung>`, or start a new run with a lower curriculum.lr_scale, \
             smaller coefficients or another seed",
            self.config.env.name,
            self.counters.iteration,
            self.run_dir.checkpoints().display()
        ))
    }

    /// Begins to save the state; `evaluation` is the one of this very state, if there was one.
    fn save(
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
    fn flush(&mut self, reporter: &mut dyn Reporter) -> Result<(), RunError> {
        report_saved(self.writer.flush()?, reporter);
        Ok(())
    }

    /// Evaluates under the next iteration's plan; planning on a copy, so that looking changes nothing.
    fn evaluate(&self, beside: bool, stop: &Stop) -> Result<Option<Evaluation>, RunError> {
        let mut curriculum = self.parts.curriculum.clone();
        let progress = self.counters.progress(self.config.run.total_steps, &self.window);
        let plan = self.parts.limit(curriculum.plan(progress));
        let player = Player::Policy {
            policy: &self.parts.policy().valid(),
            plan: &plan,
            scaling: self.parts.collector.scaling(),
            pick: pick(self.config),
            experts: &self.parts.learner.experts,
            device: &self.device,
        };
        evaluate_policy(&player, self.config, self.entries, beside, stop)
    }

    /// Names the checkpoint just saved the best one if its evaluation is.
    fn keep_best(&mut self, return_mean: f64, reporter: &mut dyn Reporter) -> Result<(), RunError> {
        self.flush(reporter)?;
        let better = self.writer.store().best()?.is_none_or(|best| return_mean > best.return_mean);
        if better && return_mean.is_finite() {
            let step = self.counters.env_steps;
            let path = self.writer.store().mark_best(step, return_mean)?;
            reporter.event(&Event::CheckpointSaved { path, step, best: true });
        }
        Ok(())
    }

    fn progress(&self, plan: &Plan, metrics: &Metrics, pace: &mut Pace) -> Progress {
        let (step, total_steps) = (self.counters.env_steps, self.config.run.total_steps);
        let steps_per_second = pace.at(step);
        Progress {
            iteration: self.counters.iteration,
            step,
            total_steps,
            steps_per_second,
            phase: plan.phase.to_string(),
            rung: self.parts.ladder.rung(),
            alarms: metrics.get(names::MONITOR_ALARMS).unwrap_or_default() as usize,
            temperature: plan.temperature,
            return_mean: self.window.return_mean(),
            score_mean: self.window.score_mean(),
            gate_entropy: metrics.get(names::ROUTER_ENTROPY),
            eta_s: total_steps.saturating_sub(step) as f64 / steps_per_second,
        }
    }

    fn summary(&self, wall_s: f64, params: usize, evaluation: Option<&Evaluation>) -> Summary {
        Summary {
            env: self.config.env.name.clone(),
            seed: self.config.run.seed,
            total_steps: self.counters.env_steps,
            wall_s,
            steps_per_second: self.counters.env_steps as f64 / wall_s,
            train_return_mean: self.window.return_mean(),
            eval_return_mean: evaluation.map(|e| e.policy.return_mean),
            eval_score_mean: evaluation.map(|e| e.policy.score_mean),
            eval_episodes: evaluation.map_or(0, |e| e.episodes),
            steps_to_target: self.target.reached(),
            seconds_to_target: self.clock.seconds_to_target(),
            params,
            device: self.options.device.name().to_string(),
            threads: self.options.threads,
        }
    }
}
