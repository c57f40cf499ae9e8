//! Measuring: the speed of the loop and of the environments on this machine. Nothing is written.

use std::time::Instant;

use burn::module::AutodiffModule;
use gatefold_curriculum::Progress;
use gatefold_env::{Action, EnvEntry, ObservationBatch, Params, Purpose, StepResults, stream};
use rand::RngExt;

use crate::assembly::{Parts, on_device, on_threads};
use crate::footprint::refuse_too_large;
use crate::{ExperimentConfig, RunError, RunOptions, layers};

/// How long to measure, after what warms up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Until {
    /// At least so many environment steps.
    Steps(u64),
    /// At least so many seconds.
    Seconds(f64),
}

impl Until {
    fn reached(self, steps: u64, seconds: f64) -> bool {
        match self {
            Self::Steps(least) => steps >= least,
            Self::Seconds(least) => seconds >= least,
        }
    }
}

/// How fast the loop ran.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BenchResult {
    /// Transitions per second, over rollouts and updates.
    pub tps: f64,
    /// Transitions measured.
    pub transitions: u64,
    /// Seconds measured.
    pub seconds: f64,
    /// Seconds of them in rollouts.
    pub rollout_s: f64,
}

/// A preset on cartpole, with overrides as on the command line.
pub fn preset_on_cartpole(
    preset: &str,
    overrides: &[String],
    entries: &[EnvEntry],
) -> Result<ExperimentConfig, RunError> {
    let text = format!("about = \"benchmark\"\npreset = {preset:?}\n[env]\nname = \"cartpole\"\n");
    layers::resolve("bench", &text, overrides, entries)
}

/// Runs rollouts and updates of an experiment: one iteration to warm up, then at least `until`.
///
/// What a run does beside them (judging, evaluating, saving) is left out.
pub fn bench_training(
    config: &ExperimentConfig,
    until: Until,
    options: &RunOptions,
    entries: &[EnvEntry],
) -> Result<BenchResult, RunError> {
    refuse_too_large(config, entries)?;
    on_threads(options, || {
        on_device!(options.device, |device: B| {
            let mut parts = Parts::<B>::new(config, entries, &device)?;
            let start = parts.shape_of_rung(&[]);
            parts.reshape(start, &device)?;
            let (seed, ppo, total_steps) = (config.run.seed, &config.ppo, config.run.total_steps);
            let (mut env_steps, mut optimizer_steps, mut rollout_s) = (0u64, 0, 0.0);
            let (mut begun, mut warm) = (Instant::now(), 0);
            for iteration in 0.. {
                let began = Instant::now();
                let progress = Progress { env_steps: env_steps.min(total_steps), total_steps, episodes: 0 };
                let plan = parts.plan(progress);
                let mut rng = stream(seed, Purpose::Actions, iteration);
                let policy = parts.policy().valid();
                let bias = &parts.selection_bias;
                let rollout = parts.collector.collect(&policy, &plan, bias, &mut rng, &device);
                let rollout = rollout.map_err(|e| RunError::Stopped(e.to_string()))?;
                drop(policy);
                env_steps += rollout.rewards.len() as u64;
                let rewards = parts.rewards.scale(rollout.rewards.view(), rollout.ends.view(), ppo.gamma);
                let batch = rollout.into_batch(&rewards, ppo.gamma, ppo.gae_lambda);
                rollout_s += began.elapsed().as_secs_f64();
                let mut rng = stream(seed, Purpose::Shuffle, iteration);
                let policy = parts.policy.take().expect("the policy is back after every update");
                let updated = parts.learner.update(
                    policy,
                    &mut parts.optimizer,
                    &batch,
                    &plan,
                    &mut optimizer_steps,
                    &mut rng,
                    &device,
                );
                parts.policy = Some(updated.map_err(|e| RunError::Stopped(e.to_string()))?.policy);
                if iteration == 0 {
                    (begun, warm, rollout_s) = (Instant::now(), env_steps, 0.0);
                } else if until.reached(env_steps - warm, begun.elapsed().as_secs_f64()) {
                    break;
                }
            }
            let (seconds, transitions) = (begun.elapsed().as_secs_f64(), env_steps - warm);
            Ok(BenchResult { tps: transitions as f64 / seconds, transitions, seconds, rollout_s })
        })
    })
}

/// Steps per second of copies of an environment on one thread, observations included, under random
/// actions.
pub fn bench_stepping(entry: &EnvEntry, copies: usize, seconds: f64) -> Result<f64, RunError> {
    let one = RunOptions { threads: 1, ..RunOptions::default() };
    on_threads(&one, || step_copies(entry, copies, seconds))
}

fn step_copies(entry: &EnvEntry, copies: usize, seconds: f64) -> Result<f64, RunError> {
    let failed = |e: gatefold_env::EnvError| RunError::Stopped(format!("environment `{}`: {e}", entry.name));
    let mut envs = (entry.build)(&Params::new(copies, 1)).map_err(failed)?;
    let spec = envs.spec().clone();
    let mut observations = ObservationBatch::new(&spec, copies);
    let mut results = StepResults::new(&spec, copies);
    envs.reset(observations.as_mut()).map_err(failed)?;
    let mut rng = stream(1, Purpose::Actions, 0);
    // Drawn ahead, so that stepping alone is timed.
    let drawn: Vec<usize> = (0..DRAWN.max(copies)).map(|_| rng.random_range(0..spec.num_actions())).collect();
    let mut actions = vec![Action::Discrete(0); copies];
    let (begun, mut steps) = (Instant::now(), 0u64);
    while steps == 0 || begun.elapsed().as_secs_f64() < seconds {
        for round in 0..ROUNDS {
            let shift = (steps as usize / copies + round) % (drawn.len() - copies + 1);
            for (copy, action) in actions.iter_mut().enumerate() {
                let mut chosen = drawn[shift + copy];
                while spec.masked && !observations.mask[copy * spec.num_actions() + chosen] {
                    chosen = (chosen + 1) % spec.num_actions();
                }
                *action = Action::Discrete(chosen);
            }
            envs.step(&actions, observations.as_mut(), &mut results).map_err(failed)?;
        }
        steps += (ROUNDS * copies) as u64;
    }
    Ok(steps as f64 / begun.elapsed().as_secs_f64())
}

/// Actions drawn ahead.
const DRAWN: usize = 4096;
/// Steps of all copies between two looks at the clock.
const ROUNDS: usize = 16;
