//! The learning rate as a closed form: nothing is stored that a scheduler could read back.

use std::f64::consts::PI;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the learning rate falls over the whole run, as a factor of progress `p` in 0..=1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// `(1 + cos(pi p)) / 2`.
    Cosine,
    /// `1 - p`, as CleanRL anneals.
    Linear,
    /// 1 throughout.
    None,
}

impl Decay {
    /// The factor at `progress` (environment steps taken / environment steps in all, 0 to 1).
    pub fn factor(self, progress: f64) -> f64 {
        match self {
            Self::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
            Self::Linear => 1.0 - progress,
            Self::None => 1.0,
        }
    }
}

/// The learning rate of one iteration: `phase_rate * warmup * decay`.
///
/// `warmup = min(1, (step + 1) / warmup_steps)` counts optimizer steps over the whole run. `decay` was
/// evaluated once, from the environment-step progress at the start of the iteration, which equals
/// CleanRL's annealing. Both factors are functions of the step, never of an earlier rate: a scheduler
/// that reads back a warmed-up rate keeps a fraction of it for good.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LearningRate {
    /// The phase's rate with `lr_scale` and large-batch scaling applied.
    pub phase_rate: f64,
    /// The decay's factor in this iteration, 0 to 1.
    pub decay: f64,
    /// Optimizer steps of linear warmup; 0 for none.
    pub warmup_steps: u64,
}

impl LearningRate {
    /// The same rate at every step.
    pub fn constant(rate: f64) -> Self {
        Self { phase_rate: rate, decay: 1.0, warmup_steps: 0 }
    }

    /// The rate at an optimizer step, counted from 0 over the whole run.
    pub fn at(&self, optimizer_step: u64) -> f64 {
        let warmup = if optimizer_step < self.warmup_steps {
            (optimizer_step + 1) as f64 / self.warmup_steps as f64
        } else {
            1.0
        };
        self.phase_rate * warmup * self.decay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decay_has_its_closed_form() {
        let cases = [
            (Decay::Cosine, 0.0, 1.0),
            (Decay::Cosine, 1.0 / 3.0, 0.75),
            (Decay::Cosine, 0.5, 0.5),
            (Decay::Cosine, 1.0, 0.0),
            (Decay::Linear, 0.0, 1.0),
            (Decay::Linear, 0.25, 0.75),
            (Decay::Linear, 1.0, 0.0),
            (Decay::None, 0.5, 1.0),
        ];
        for (decay, progress, expected) in cases {
            let factor = decay.factor(progress);
            assert!((factor - expected).abs() < 1e-15, "{decay:?} at {progress}: {factor}");
        }
    }

    #[test]
    fn warmup_rises_linearly_to_the_full_rate() {
        let rate = LearningRate { phase_rate: 1e-3, decay: 1.0, warmup_steps: 4 };
        let rates: Vec<_> = [0, 1, 2, 3, 4, 1_000_000].iter().map(|&step| rate.at(step)).collect();
        assert_eq!(rates, [0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3, 1e-3]);
    }

    #[test]
    fn the_longest_warmup_does_not_overflow() {
        let rate = LearningRate { phase_rate: 1.0, decay: 1.0, warmup_steps: u64::MAX };
        assert_eq!(rate.at(u64::MAX), 1.0);
        assert!(rate.at(0) > 0.0);
    }
}
