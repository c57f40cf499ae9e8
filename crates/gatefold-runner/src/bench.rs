//! Measuring: the loop's speed on this machine, by itself.

use std::time::Instant;

use burn::module::AutodiffModule;
use gatefold_env::{EnvEntry, Purpose, stream};

use crate::assembly::{Parts, on_device, on_threads};
use crate::{RunError, RunOptions, layers};

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

/// Runs PPO on cartpole with a preset: one iteration to warm up, then at least `transitions`
/// measured ones. Nothing is written.
pub fn bench_ppo(
    preset: &str,
    transitions: u64,
    options: &RunOptions,
    entries: &[EnvEntry],
) -> Result<BenchResult, RunError> {
    let text = format!("about = \"benchmark\"\npreset = {preset:?}\n[env]\nname = \"cartpole\"\n");
    let config = layers::resolve("bench", &text, &[], entries)?;
    on_threads(options, || {
        on_device!(options.device, |device: B| {
            let mut parts = Parts::<B>::new(&config, entries, &device)?;
            let (seed, ppo) = (config.run.seed, &config.ppo);
            let (mut env_steps, mut optimizer_steps, mut rollout_s) = (0, 0, 0.0);
            let (mut begun, mut warm) = (Instant::now(), 0);
            for iteration in 0.. {
                let began = Instant::now();
                let progress =
                    gatefold_curriculum::Progress { env_steps, total_steps: u64::MAX, episodes: 0 };
                let plan = parts.curriculum.plan(progress);
                let mut rng = stream(seed, Purpose::Actions, iteration);
                let policy = parts.policy().valid();
                let rollout = parts.collector.collect(&policy, &plan, &[], &mut rng, &device);
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
                } else if env_steps - warm >= transitions {
                    break;
                }
            }
            let (seconds, transitions) = (begun.elapsed().as_secs_f64(), env_steps - warm);
            Ok(BenchResult { tps: transitions as f64 / seconds, transitions, seconds, rollout_s })
        })
    })
}
