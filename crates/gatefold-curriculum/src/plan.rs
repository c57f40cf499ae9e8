//! What one iteration is told: the plan and the plain data in it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::LearningRate;

/// Where in the curriculum a run is. Ordered: a run never goes back to an earlier phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Softmax routing: every expert acts and learns.
    Warmup,
    /// Routing and temperature move linearly from the first phase to the last.
    Transition,
    /// Sparse routing until the end. A constant schedule is one fine-tune phase from the first step.
    FineTune,
}

impl Phase {
    /// All phases in the order in which a run enters them.
    pub const ALL: [Self; 3] = [Self::Warmup, Self::Transition, Self::FineTune];

    /// 0, 1 or 2: the value of the metric `curriculum/phase`.
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Warmup => "warmup",
            Self::Transition => "transition",
            Self::FineTune => "fine-tune",
        })
    }
}

/// How router logits `z` become gates; `tau` is the plan's temperature.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Routing {
    /// `softmax(z / tau)`: every expert has a positive gate.
    Softmax,
    /// `sparsemax(z / tau)`: the projection on the simplex, most gates exactly 0.
    Sparsemax,
    /// `(1 - weight) * softmax(z / tau) + weight * sparsemax(z / tau)`.
    Blend {
        /// Weight of sparsemax, 0 to 1.
        weight: f32,
    },
    /// Every gate `1 / K`, whatever the logits. A control for studies.
    Uniform,
    /// One expert, no router. The dense baseline.
    Dense,
}

impl Routing {
    /// Weight of sparsemax: 0 for softmax, 1 for sparsemax, `None` where logits do not decide.
    pub fn blend(self) -> Option<f32> {
        match self {
            Self::Softmax => Some(0.0),
            Self::Sparsemax => Some(1.0),
            Self::Blend { weight } => Some(weight),
            Self::Uniform | Self::Dense => None,
        }
    }
}

/// Weights of the loss terms beside the policy and value loss. All zero by default.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Coefficients {
    /// Action entropy: `loss -= entropy * mean_b H(pi_b)`. At least 0.
    pub entropy: f32,
    /// Load balance over experts: `loss += load_balance * L_balance`. At least 0.
    pub load_balance: f32,
    /// Diversity of the experts' logits: `loss += diversity * L_diversity`. At least 0.
    pub diversity: f32,
    /// Gate entropy, **signed**: `loss += -gate_entropy * mean_b H(alpha_b)`. Positive maximises the
    /// entropy of the gates (spread), negative minimises it (specialise).
    pub gate_entropy: f32,
}

/// The numbers of one iteration. All but the learning rate's warmup are constant within it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The phase the run is in.
    pub phase: Phase,
    /// How logits become gates, in the rollout and in the update alike.
    pub routing: Routing,
    /// Divisor of the router's logits, > 0, dimensionless.
    pub temperature: f32,
    /// Weights of the loss terms.
    pub coefficients: Coefficients,
    /// The learning rate's segment, evaluated per optimizer step.
    pub learning_rate: LearningRate,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_print_their_names_and_are_ordered() {
        let names: Vec<_> = Phase::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["warmup", "transition", "fine-tune"]);
        assert!(Phase::ALL.is_sorted());
        assert_eq!(Phase::ALL.map(Phase::index), [0, 1, 2]);
        for phase in Phase::ALL {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.to_string(), "serde differs");
        }
    }

    #[test]
    fn the_blend_weight_is_that_of_sparsemax() {
        let cases = [
            (Routing::Softmax, Some(0.0)),
            (Routing::Blend { weight: 0.25 }, Some(0.25)),
            (Routing::Sparsemax, Some(1.0)),
            (Routing::Uniform, None),
            (Routing::Dense, None),
        ];
        for (routing, expected) in cases {
            assert_eq!(routing.blend(), expected, "{routing:?}");
        }
    }
}
