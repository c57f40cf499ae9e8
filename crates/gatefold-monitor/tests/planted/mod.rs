//! Runs made of numbers: a healthy one, and faults that are planted in it.

use gatefold_curriculum::{Phase, Routing};
use gatefold_monitor::{Judgement, Metrics, MonitorConfig, Monitors, Severity, Situation, names};

/// A run of made-up metrics. `fault` changes an iteration's healthy metrics.
pub(crate) struct Run {
    pub(crate) config: MonitorConfig,
    pub(crate) experts: usize,
    /// First iterations of transition and of fine-tune.
    pub(crate) phases: [u64; 2],
    /// Holds this routing instead of the curriculum's.
    pub(crate) routing: Option<Routing>,
    pub(crate) target_return: Option<f64>,
}

impl Default for Run {
    fn default() -> Self {
        let config = MonitorConfig::default();
        Self { config, experts: 4, phases: [40, 70], routing: None, target_return: None }
    }
}

/// Uniform in -1..1, the same for the same arguments.
pub(crate) fn wobble(iteration: u64, salt: u64) -> f64 {
    let mut x = (iteration << 8 | salt).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (x >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

impl Run {
    pub(crate) fn names(&self) -> Vec<String> {
        (0..self.experts).map(|expert| format!("expert{expert}")).collect()
    }

    pub(crate) fn plan(&self, iteration: u64) -> (Phase, Routing, f32) {
        let [transition, fine_tune] = self.phases;
        let (phase, routing, temperature) = if iteration < transition {
            (Phase::Warmup, Routing::Softmax, 1.0)
        } else if iteration < fine_tune {
            let weight = (iteration - transition) as f32 / (fine_tune - transition) as f32;
            (Phase::Transition, Routing::Blend { weight }, 1.0 - 0.5 * weight)
        } else {
            (Phase::FineTune, Routing::Sparsemax, 0.5)
        };
        (phase, self.routing.unwrap_or(routing), temperature)
    }

    /// What a run that learns reports, after delve's quickstart.
    pub(crate) fn healthy(&self, iteration: u64) -> Metrics {
        let noise = |salt| wobble(iteration, salt);
        let mut metrics = Metrics::new();
        let mut set = |name: &str, value: f64| metrics.set(name.to_string(), value);
        let progress = 1.0 - (-(iteration as f64) / 40.0).exp();
        set(names::ROLLOUT_RETURN_MEAN, 2.0 + 70.0 * progress + noise(1));
        set(names::ROLLOUT_REWARD_ABS_MEAN, 0.05 + 0.01 * noise(2));
        set(names::ROLLOUT_EPISODES, 12.0 * iteration as f64);
        set(names::ROLLOUT_VALUE_MEAN, 2.0 * progress);
        set(names::TRAIN_GRAD_NORM, 0.8 + 0.3 * noise(3));
        set(names::TRAIN_GRAD_NORM_MAX_TENSOR, 0.5 + 0.2 * noise(4));
        set(names::TRAIN_GRAD_CLIPPED_FRACTION, 0.3 + 0.1 * noise(5));
        set(names::TRAIN_APPROX_KL, 0.01 + 0.005 * noise(6));
        set(names::TRAIN_CLIP_FRACTION, 0.2 + 0.05 * noise(7));
        set(names::TRAIN_EXPLAINED_VARIANCE, 0.5 * progress + 0.1 * noise(8));
        set(names::TRAIN_VALUE_LOSS, 0.07 + 0.03 * noise(9));
        set(names::TRAIN_VALUE_SD_RATIO, 0.2 + 0.4 * progress);
        set(names::TRAIN_VALUE_SKILL, 0.5 * progress + 0.1 * noise(10));
        set(names::TRAIN_ADVANTAGE_STD, 0.4 + 0.05 * noise(11));
        set(names::TRAIN_ENTROPY, 2.1 - progress + 0.02 * noise(12));
        set(names::TRAIN_ACTION_MAX_SHARE, 0.3 + 0.05 * noise(13));
        set(names::TRAIN_LOSS, -0.01 + 0.005 * noise(14));
        set(names::TRAIN_LEARNING_RATE, 1e-3);
        set(names::REWARD_SCALE, 4.0);
        for layer in 0..2 {
            let apart = [0.6, 0.3][layer] + 0.02 * noise(15 + layer as u64);
            set(&names::gat_layer(layer, "smoothness"), apart);
            set(&names::gat_layer(layer, "attention_variance"), 0.03);
            set(&names::gat_layer(layer, "attention_entropy"), 0.9);
        }
        if self.experts > 1 {
            let (phase, ..) = self.plan(iteration);
            let ln = (self.experts as f64).ln();
            let sparse = if phase == Phase::FineTune {
                1.0 - (-((iteration - self.phases[1]) as f64) / 8.0).exp()
            } else {
                0.0
            };
            set(names::ROUTER_ENTROPY, ln * (0.99 - 0.5 * sparse));
            set(names::ROUTER_USAGE_ENTROPY, 0.99 - 0.15 * sparse + 0.005 * noise(20));
            set(names::ROUTER_SPECIALISATION, 1e-4 + 0.3 * ln * sparse);
            set(names::ROUTER_DRIFT, 1e-3 * (1.0 + 0.5 * noise(21)));
            for (expert, name) in self.names().iter().enumerate() {
                let share = (1.0 + 0.1 * noise(30 + expert as u64)) / self.experts as f64;
                set(&names::usage(name), share);
                set(&names::probability(name), share);
            }
        }
        metrics
    }

    /// Judges `iterations` of them.
    pub(crate) fn judge(&self, iterations: u64, fault: &dyn Fn(u64, &mut Metrics)) -> Vec<Judgement> {
        let mut monitors = Monitors::new(self.config.clone());
        (1..=iterations).map(|iteration| self.step(&mut monitors, iteration, fault)).collect()
    }

    /// One more iteration.
    pub(crate) fn step(
        &self,
        monitors: &mut Monitors,
        iteration: u64,
        fault: &dyn Fn(u64, &mut Metrics),
    ) -> Judgement {
        let mut metrics = self.healthy(iteration);
        fault(iteration, &mut metrics);
        let (phase, routing, temperature) = self.plan(iteration);
        let experts = self.names();
        let at = Situation {
            iteration,
            env_step: 4096 * iteration,
            phase,
            routing,
            temperature,
            experts: &experts,
            target_return: self.target_return,
            largest_tensor: Some("critic.linear0.weight"),
        };
        monitors.judge(&at, &metrics)
    }

    /// The first iteration in which this monitor speaks with at least this severity.
    pub(crate) fn first(
        &self,
        iterations: u64,
        monitor: &str,
        severity: Severity,
        fault: &dyn Fn(u64, &mut Metrics),
    ) -> Option<u64> {
        let judgements = self.judge(iterations, fault);
        let speaks = |judgement: &Judgement| {
            judgement.verdicts.iter().any(|v| v.monitor == monitor && v.severity >= severity)
        };
        judgements.iter().position(speaks).map(|index| index as u64 + 1)
    }
}
