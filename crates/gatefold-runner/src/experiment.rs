//! THE loop: one experiment from its first step, or from a checkpoint, to its last.

use std::path::Path;
use std::time::Instant;

use burn::module::AutodiffModule;
use gatefold_curriculum::Plan;
use gatefold_env::{EnvEntry, Purpose, stream};
use gatefold_monitor::{Episode, EpisodeWindow, Metrics, names, plan_metrics};
use gatefold_ops::OpsAutodiffBackend;
use gatefold_optim as optim;
use gatefold_ppo::Rollout;

use crate::assembly::{Parts, on_device, on_threads};
use crate::checkpoint::{self, CheckpointStore, CheckpointWriter, Found, Header, Saved, Snapshot};
use crate::evaluate::{Player, evaluate_policy, pick};
use crate::events::{Evaluation, Event, Progress, Reporter};
use crate::footprint::refuse_too_large;
use crate::report::{Clock, Pace, attention_metrics, evaluation_metrics, gate_metrics};
use crate::run_dir::{RunDir, read_config};
use crate::state::{Counters, RunState, Target};
use crate::{
    ExperimentConfig, MetricsLog, RunError, RunOptions, Stop, Summary, check_resumable, config_hash, layers,
};

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

/// Puts a checkpoint's parameters, moments and running state into freshly built parts.
pub(crate) fn restore<B: OpsAutodiffBackend>(
    parts: &mut Parts<B>,
    found: &Found,
) -> Result<RunState, RunError> {
    let damaged = |reason: String| RunError::Damaged { path: found.path.clone(), reason };
    let snapshot = &found.snapshot;
    let policy = optim::import::<B, _>(parts.policy().clone(), &snapshot.policy);
    parts.policy = Some(policy.map_err(|e| damaged(format!("policy: {e}")))?);
    parts.optimizer.import(&snapshot.optimizer).map_err(|e| damaged(format!("optimizer: {e}")))?;
    let state: RunState = snapshot.state().map_err(damaged)?;
    parts.curriculum.restore(state.curriculum.clone());
    parts.rewards = state.rewards.clone();
    parts.collector.load(state.envs.as_deref(), state.scaling.clone())?;
    Ok(state)
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
        Ok(Self {
            target: Target::new(config.run.target_return, None),
            config,
            options,
            entries,
            device,
            parts,
            run_dir,
            writer: CheckpointWriter::new(store),
            counters: Counters::default(),
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
        let state = restore(&mut self.parts, &found)?;
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
        let mut log = MetricsLog::open(&self.run_dir.metrics(), self.counters.env_steps)?;
        reporter.event(&Event::Started {
            run_dir: self.run_dir.path().to_path_buf(),
            env: self.config.env.name.clone(),
            step: self.counters.env_steps,
            total_steps,
            params,
            device: self.options.device.name(),
            threads: self.options.threads,
        });
        if self.parts.policy().num_experts() > 1 && self.parts.learner.spec.num_actions() <= 2 {
            let text =
                "losses/diversity is off: with two actions any two experts' centred logits are collinear";
            reporter.event(&Event::Warning(text.to_string()));
        }
        if self.counters.iteration == 0 {
            self.save(None, &log, reporter)?;
            // A folder that cannot be written is told before any time is spent on training.
            self.flush(reporter)?;
        }
        let mut saved_at = self.counters.iteration;
        let mut pace = Pace::new(self.counters.env_steps);
        while self.counters.env_steps < total_steps && !stop.requested() && !self.done_at_target() {
            let (plan, mut metrics) = self.iterate()?;
            let wall_s = self.clock.wall_s();
            metrics.set(names::TIME_TOTAL, wall_s);
            metrics.set(names::TIME_STEPS_PER_SECOND, self.counters.env_steps as f64 / wall_s);

            let every = self.config.eval.every;
            let evaluation = (every > 0 && self.counters.iteration.is_multiple_of(every))
                .then(|| self.evaluate(false, &stop))
                .transpose()?
                .flatten();
            if let Some(evaluation) = evaluation {
                metrics.merge(evaluation_metrics(&evaluation));
                reporter.event(&Event::Evaluated { step: self.counters.env_steps, evaluation });
            }
            log.write(self.counters.env_steps, &metrics)?;
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
        if let Some(evaluation) = evaluation {
            self.keep_best(evaluation.policy.return_mean, reporter)?;
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

    /// One iteration: plan, collect, scale, advantages, update, count.
    fn iterate(&mut self) -> Result<(Plan, Metrics), RunError> {
        let (seed, iteration) = (self.config.run.seed, self.counters.iteration);
        let ppo = &self.config.ppo;
        let begun = Instant::now();
        let plan =
            self.parts.curriculum.plan(self.counters.progress(self.config.run.total_steps, &self.window));

        let mut rng = stream(seed, Purpose::Actions, iteration);
        let policy = self.parts.policy().valid();
        let rollout = self.parts.collector.collect(&policy, &plan, &[], &mut rng, &self.device);
        let rollout = rollout.map_err(|e| self.misfortune(e.to_string()))?;
        let mut metrics = self.take_in(&rollout);
        metrics.merge(gate_metrics(&self.config.policy.experts, &rollout));
        metrics.merge(attention_metrics(&policy, &self.parts.learner.spec, &rollout, &self.device));
        metrics.merge(plan_metrics(&plan));
        drop(policy); // its tensors are the parameters, which the update changes in place
        let rewards = self.parts.rewards.scale(rollout.rewards.view(), rollout.ends.view(), ppo.gamma);
        metrics.set(names::REWARD_SCALE, self.parts.rewards.divisor());
        let batch = rollout.into_batch(&rewards, ppo.gamma, ppo.gae_lambda);
        let collected = begun.elapsed();

        let mut rng = stream(seed, Purpose::Shuffle, iteration);
        let updated = self.parts.learner.update(
            self.parts.policy.take().expect("the policy is back after every update"),
            &mut self.parts.optimizer,
            &batch,
            &plan,
            &mut self.counters.optimizer_steps,
            &mut rng,
            &self.device,
        );
        let updated = updated.map_err(|e| self.misfortune(e.to_string()))?;
        self.parts.policy = Some(updated.policy);
        self.counters.iteration += 1;
        metrics.merge(updated.metrics);
        metrics.set(names::TIME_ITERATION, self.counters.iteration as f64);
        metrics.set(names::TIME_ENV_STEPS, self.counters.env_steps as f64);
        metrics.set(names::TIME_ROLLOUT, collected.as_secs_f64());
        metrics.set(names::TIME_UPDATE, (begun.elapsed() - collected).as_secs_f64());
        Ok((plan, metrics))
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
            "environment `{}`, iteration {}: {what}. The checkpoints in {} are from before and whole, but resuming repeats the same \
             steps; start a new run with a lower curriculum.lr_scale, smaller coefficients or another seed",
            self.config.env.name,
            self.counters.iteration,
            self.run_dir.checkpoints().display()
        ))
    }

    /// Begins to save the state; `evaluation` is the one of this very state, if there was one.
    fn save(
        &mut self,
        evaluation: Option<&Evaluation>,
        log: &MetricsLog,
        reporter: &mut dyn Reporter,
    ) -> Result<(), RunError> {
        let state = RunState {
            counters: self.counters,
            curriculum: self.parts.curriculum.state().clone(),
            rewards: self.parts.rewards.clone(),
            scaling: self.parts.collector.scaling().cloned(),
            window: self.window.clone(),
            reached: self.target.reached(),
            envs: self.parts.collector.save()?,
        };
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
        let snapshot = Snapshot::new(
            header,
            layers::to_toml(self.config),
            optim::export::<B, _>(self.parts.policy()),
            self.parts.optimizer.export(),
            &state,
        );
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
        let plan = curriculum.plan(self.counters.progress(self.config.run.total_steps, &self.window));
        let player = Player::Policy {
            policy: &self.parts.policy().valid(),
            plan: &plan,
            scaling: self.parts.collector.scaling(),
            pick: pick(self.config),
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
