//! What an iteration reports about itself beside the learner's metrics: use of experts, attention, time.

use std::time::{Duration, Instant};

use burn::tensor::Tensor;
use gatefold_env::EnvSpec;
use gatefold_monitor::{Metrics, names};
use gatefold_ops::OpsBackend;
use gatefold_policy::{ActorCritic, Observation};
use gatefold_ppo::Rollout;
use gatefold_router::GateStatistics;

use crate::events::Evaluation;

/// Observations whose attention is looked at in each iteration.
const ATTENTION_ROWS: usize = 32;

/// How the experts were used in a rollout; nothing without a router.
pub(crate) fn gate_metrics(experts: &[String], rollout: &Rollout) -> Metrics {
    let mut metrics = Metrics::new();
    if rollout.gates.is_empty() {
        return metrics;
    }
    let mut statistics = GateStatistics::new(experts.len());
    statistics.add(&rollout.gates);
    let usage = statistics.usage().expect("a rollout has rows");
    metrics.set(names::ROUTER_ENTROPY, usage.entropy);
    metrics.set(names::ROUTER_USAGE_ENTROPY, usage.usage_entropy);
    metrics.set(names::ROUTER_SPECIALISATION, usage.specialisation);
    metrics.set(names::ROUTER_SUPPORT, usage.support);
    for (expert, share) in experts.iter().zip(usage.expert) {
        metrics.set(names::usage(expert), share);
    }
    metrics
}

/// A tensor's numbers on the host, row-major.
pub(crate) fn to_host<B: OpsBackend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().into_vec().expect("converted to f32")
}

/// Whether steps were rewarded at all.
pub(crate) fn reward_metrics(rollout: &Rollout) -> Metrics {
    let sum: f64 = rollout.rewards.iter().map(|&reward| f64::from(reward).abs()).sum();
    let mut metrics = Metrics::new();
    metrics.set(names::ROLLOUT_REWARD_ABS_MEAN, sum / rollout.rewards.len() as f64);
    metrics
}

/// Each expert's mean routing probability before an update, and how far the update moved the router.
///
/// `before` and `after` are `softmax(z / tau)` `[rows, K]` of the same observations.
pub(crate) fn router_metrics(experts: &[String], before: &[f32], after: &[f32]) -> Metrics {
    let mut metrics = Metrics::new();
    let rows = (before.len() / experts.len()) as f64;
    for (k, expert) in experts.iter().enumerate() {
        let sum: f64 = before.iter().skip(k).step_by(experts.len()).map(|&p| f64::from(p)).sum();
        metrics.set(names::probability(expert), sum / rows);
    }
    let moved: f64 = before.iter().zip(after).map(|(&p, &q)| (f64::from(p) - f64::from(q)).abs()).sum();
    metrics.set(names::ROUTER_DRIFT, moved / before.len() as f64);
    metrics
}

/// How attention was spread at the rollout's start, and how far apart nodes are; nothing without a graph.
pub(crate) fn attention_metrics<B: OpsBackend>(
    policy: &ActorCritic<B>,
    spec: &EnvSpec,
    rollout: &Rollout,
    device: &B::Device,
) -> Metrics {
    let mut metrics = Metrics::new();
    let Some(encoder) = policy.graph_encoder() else {
        return metrics;
    };
    let rows = rollout.num_envs().min(ATTENTION_ROWS);
    let observation = Observation::new(spec, rollout.observations.pick(0..rows), device);
    let encoding = policy.encode(&observation).expect("there is an encoder");
    let layers = encoder.statistics(&encoding);
    let entropies: Vec<f64> = layers.iter().filter_map(|layer| layer.attention_entropy).collect();
    if !entropies.is_empty() {
        metrics.set(names::GAT_ATTENTION_ENTROPY, entropies.iter().sum::<f64>() / entropies.len() as f64);
    }
    for (i, layer) in layers.iter().enumerate() {
        let mut set = |what, value: Option<f64>| {
            if let Some(value) = value {
                metrics.set(names::gat_layer(i, what), value);
            }
        };
        set("attention_entropy", layer.attention_entropy);
        set("attention_variance", Some(layer.attention_variance));
        set("smoothness", layer.smoothness);
    }
    metrics
}

/// An evaluation as metrics.
pub(crate) fn evaluation_metrics(evaluation: &Evaluation) -> Metrics {
    let mut metrics = Metrics::new();
    metrics.set(names::EVAL_RETURN_MEAN, evaluation.policy.return_mean);
    metrics.set(names::EVAL_SCORE_MEAN, evaluation.policy.score_mean);
    metrics.set(names::EVAL_LENGTH_MEAN, evaluation.policy.length_mean);
    metrics.set(names::EVAL_EPISODES, evaluation.episodes as f64);
    metrics
}

/// Training time over all sittings of a run, and when the target was reached.
pub(crate) struct Clock {
    before: f64,
    since: Instant,
    seconds_to_target: Option<f64>,
}

impl Clock {
    /// A clock at 0.
    pub(crate) fn start() -> Self {
        Self { before: 0.0, since: Instant::now(), seconds_to_target: None }
    }

    /// Goes on from what a checkpoint says.
    pub(crate) fn go_on(&mut self, wall_s: f64, seconds_to_target: Option<f64>) {
        *self = Self { before: wall_s, since: Instant::now(), seconds_to_target };
    }

    /// Seconds of training so far.
    pub(crate) fn wall_s(&self) -> f64 {
        self.before + self.since.elapsed().as_secs_f64()
    }

    /// The target is reached, now or earlier.
    pub(crate) fn note_target(&mut self) {
        self.seconds_to_target = self.seconds_to_target.or_else(|| Some(self.wall_s()));
    }

    /// Seconds of training until the target was reached.
    pub(crate) fn seconds_to_target(&self) -> Option<f64> {
        self.seconds_to_target
    }
}

/// Environment steps per second, smoothed over about ten iterations.
pub(crate) struct Pace {
    step: u64,
    at: Instant,
    rate: Option<f64>,
}

impl Pace {
    /// From `step` on.
    pub(crate) fn new(step: u64) -> Self {
        Self { step, at: Instant::now(), rate: None }
    }

    /// The rate after a further iteration, which ended at `step`.
    pub(crate) fn at(&mut self, step: u64) -> f64 {
        let seconds = self.at.elapsed().max(Duration::from_micros(1)).as_secs_f64();
        let now = (step - self.step) as f64 / seconds;
        let rate = self.rate.map_or(now, |rate| rate + 0.1 * (now - rate));
        (self.step, self.at, self.rate) = (step, Instant::now(), Some(rate));
        rate
    }
}
