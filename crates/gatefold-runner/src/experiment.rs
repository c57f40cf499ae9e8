//! THE loop: one experiment from its first step, or from a checkpoint, to its last.

mod account;
mod by_hand;
mod health;
mod saving;

use std::path::Path;
use std::time::Instant;

use burn::module::AutodiffModule;
use gatefold_curriculum::Plan;
use gatefold_env::{EnvEntry, Purpose, stream};
use gatefold_monitor::{EpisodeWindow, Metrics, RunEvent, names, plan_metrics};
use gatefold_ops::{OpsAutodiffBackend, probe};
use gatefold_optim::{self as optim};
use gatefold_policy::{Acting, ActorCritic};
use gatefold_ppo::losses::{SELECTION_BIAS_STEP, update_selection_bias};
use gatefold_ppo::{Batch, Rollout, RolloutError, UpdateError, Updated};

use crate::agreement::warnings;
use crate::assembly::{Parts, on_device, on_threads};
use crate::checkpoint::{CheckpointStore, CheckpointWriter};
use crate::dump::{Dump, write_dump};
use crate::evaluate::{Player, evaluate_policy, pick};
use crate::events::{Evaluation, Event, Reporter};
use crate::footprint::refuse_too_large;
use crate::guard::{Guard, MOST_ATTEMPTS};
use crate::learned::Learned;
use crate::logs::Logs;
use crate::report::{Clock, Pace, evaluation_metrics, router_metrics, to_host};
use crate::run_dir::{RunDir, read_config};
use crate::state::{Counters, Target};
use crate::{ExperimentConfig, RunError, RunOptions, Stop, Summary};

pub use by_hand::{RungChange, StepFrom, apply_rung};
pub(crate) use saving::restore;

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

    /// Runs to the last step, to the target if the run stops there, or to a signal.
    fn run(mut self, reporter: &mut dyn Reporter) -> Result<Summary, RunError> {
        let stop = Stop::on_signals();
        let total_steps = self.config.run.total_steps;
        let mut log = Logs::open(&self.run_dir, self.counters.moment())?;
        if self.counters.iteration == 0 {
            let start = self.parts.shape_of_rung(&[]);
            self.parts.reshape(start, &self.device)?;
            self.healthy = self.parts.learned(self.counters.moment());
        }
        reporter.event(&Event::Started {
            run_dir: self.run_dir.path().to_path_buf(),
            env: self.config.env.name.clone(),
            step: self.counters.env_steps,
            total_steps,
            params: optim::count(self.parts.policy()),
            device: self.options.device.name(),
            threads: self.options.threads,
        });
        for text in warnings(self.config, &self.parts.learner.spec) {
            reporter.event(&Event::Warning(text));
        }
        if self.counters.iteration == 0 {
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
            let due = every > 0 && self.counters.iteration.is_multiple_of(every);
            let evaluation = match due.then(|| self.evaluate(false, &stop)).transpose() {
                Ok(evaluation) => evaluation.flatten(),
                Err(error) => {
                    log.metrics.write(self.counters.env_steps, &metrics)?;
                    self.save(None, &log, reporter)?;
                    self.flush(reporter)?;
                    return Err(error);
                }
            };
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
        let summary = self.summary(wall_s, evaluation.as_ref());
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
        let (rolled, in_envs) = (begun.elapsed(), self.parts.collector.time_in_envs());
        metrics.set(names::TIME_ROLLOUT_ENV, in_envs.as_secs_f64());
        metrics.set(names::TIME_ROLLOUT_POLICY, rolled.saturating_sub(in_envs).as_secs_f64());
        metrics.merge(self.take_in(&rollout));
        let before = self.routing_probabilities(&rollout, &plan);
        metrics.merge(self.look_at(&rollout));
        let load = self.selection_load(&rollout, &plan);
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
                    iterations_before: self.counters.iteration,
                    env_steps: self.counters.env_steps,
                    optimizer_steps,
                    plan: &plan,
                    policy: optim::export::<B, _>(&start.policy),
                    optimizer: start.optimizer.export(),
                    batch: &batch,
                    failure: &failure,
                    fault: probe::about(),
                };
                let path = write_dump(self.run_dir.path(), &dump);
                self.parts.put_back(&start); // the update had taken it out
                let path = path?;
                metrics.merge(self.discard(failure.to_string(), Some(path))?);
                return Ok((plan, metrics));
            }
        };
        self.parts.policy = Some(updated.policy);
        self.counters.iteration += 1;
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

    fn done_at_target(&self) -> bool {
        self.config.run.stop_at_target && self.target.reached().is_some()
    }

    /// Evaluates under the next iteration's plan; planning on a copy, so that looking changes nothing.
    fn evaluate(&self, beside: bool, stop: &Stop) -> Result<Option<Evaluation>, RunError> {
        let mut curriculum = self.parts.curriculum.clone();
        let progress = self.counters.progress(self.config.run.total_steps, &self.window);
        let plan = self.parts.limit(curriculum.plan(progress));
        let policy = self.parts.policy().valid();
        let player = Player::Policy {
            policy: &Acting::new(&policy),
            plan: &plan,
            scaling: self.parts.collector.scaling(),
            pick: pick(self.config),
            experts: &self.parts.learner.experts,
            selection_bias: &self.parts.selection_bias,
            device: &self.device,
        };
        evaluate_policy(&player, self.config, self.entries, beside, stop)
    }
}
