//! What an iteration says about itself.

use std::time::Instant;

use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use gatefold_curriculum::{Plan, Routing};
use gatefold_monitor::{Episode, Metrics, names};
use gatefold_ops::OpsAutodiffBackend;
use gatefold_optim as optim;
use gatefold_policy::Observation;
use gatefold_ppo::Rollout;

use super::Experiment;
use crate::Summary;
use crate::events::{Evaluation, Progress};
use crate::report::{Pace, attention_metrics, gate_metrics, reward_metrics, to_host};

/// Rows of a rollout on which the router's movement is measured.
const PROBE_ROWS: usize = 64;

impl<B: OpsAutodiffBackend> Experiment<'_, B> {
    /// Counts the rollout's steps and episodes, in time order.
    pub(super) fn take_in(&mut self, rollout: &Rollout) -> Metrics {
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

    /// How experts were used, attention was spread and steps were rewarded.
    pub(super) fn look_at(&mut self, rollout: &Rollout) -> Metrics {
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
    pub(super) fn routing_probabilities(
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
    pub(super) fn selection_load(&self, rollout: &Rollout, plan: &Plan) -> Option<Vec<f64>> {
        let num_experts = self.parts.selection_bias.len();
        if num_experts == 0 || !matches!(plan.routing, Routing::TopK { .. }) {
            return None;
        }
        let mut load = vec![0.0; num_experts];
        for row in rollout.drawn.chunks_exact(num_experts) {
            load.iter_mut().zip(row).for_each(|(sum, &selected)| *sum += f64::from(selected));
        }
        Some(load)
    }

    pub(super) fn time(&self, metrics: &mut Metrics, begun: Instant, collected: std::time::Duration) {
        metrics.set(names::TIME_ITERATION, self.counters.iteration as f64);
        metrics.set(names::TIME_ENV_STEPS, self.counters.env_steps as f64);
        metrics.set(names::TIME_ROLLOUT, collected.as_secs_f64());
        metrics.set(names::TIME_UPDATE, (begun.elapsed() - collected).as_secs_f64());
    }

    pub(super) fn progress(&self, plan: &Plan, metrics: &Metrics, pace: &mut Pace) -> Progress {
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

    pub(super) fn summary(&self, wall_s: f64, evaluation: Option<&Evaluation>) -> Summary {
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
            params: optim::count(self.parts.policy()),
            device: self.options.device.name().to_string(),
            threads: self.options.threads,
        }
    }
}
