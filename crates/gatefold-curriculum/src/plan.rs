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
    /// `entmax(z / tau)` with alpha 1.5 (Peters et al. 2019): between softmax and sparsemax, sparse
    /// where scores lie far apart.
    Entmax15,
    /// `softmax(z / tau)` over the `k` largest scores, renormalised; exactly 0 elsewhere.
    TopK {
        /// Experts per decision, at least 1.
        k: usize,
    },
    /// One expert: the largest of `z / tau` plus Gumbel noise, with the gradient of the softmax of
    /// the same sum (straight-through; Jang et al. 2017). The noise is drawn in the rollout, stored
    /// and used again in the update.
    Gumbel,
    /// Every gate `1 / K`, whatever the logits. A control for studies.
    Uniform,
    /// One expert, drawn uniformly for each decision whatever the logits. A control for studies; what
    /// was drawn in the rollout is stored and used again in the update.
    Random,
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
            Self::Entmax15
            | Self::TopK { .. }
            | Self::Gumbel
            | Self::Uniform
            | Self::Random
            | Self::Dense => None,
        }
    }

    /// Whether gates can be exactly 0, so that a rollout need not compute those experts.
    ///
    /// False for a blend, whose share of softmax is positive until its weight is 1.
    pub fn skips_in_rollouts(self) -> bool {
        match self {
            Self::Sparsemax | Self::Entmax15 | Self::TopK { .. } | Self::Gumbel | Self::Random => true,
            Self::Softmax | Self::Blend { .. } | Self::Uniform | Self::Dense => false,
        }
    }

    /// Whether an update, too, may leave out experts whose gate is exactly 0.
    ///
    /// That needs gradients that vanish with the gate: those of sparsemax, entmax and top-k do. Gumbel's
    /// straight-through gradient asks every expert what it would have done, and a random choice is a
    /// control that is kept simple.
    pub fn skips_in_updates(self) -> bool {
        matches!(self, Self::Sparsemax | Self::Entmax15 | Self::TopK { .. })
    }

    /// Whether the router's logits decide. Where they do not (`uniform`, `random`, `dense`), there is
    /// no verdict on routing.
    pub fn learns(self) -> bool {
        !matches!(self, Self::Uniform | Self::Random | Self::Dense)
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
    /// Alignment of the router with the operators' scores:
    /// `loss += alignment * KL(target || softmax(z / tau))`. At least 0.
    pub alignment: f32,
    /// Semantic orthogonality of the experts' logits: `loss += semantic * mean |cos_ij|`. At least 0.
    pub semantic: f32,
    /// Overlap of experts that act together: `loss += overlap * mean_b sum alpha_i alpha_j cos_ij`. At
    /// least 0.
    pub overlap: f32,
    /// Change of the gates between adjacent steps: `loss += temporal * mean (alpha_{t+1} - alpha_t)^2`.
    /// At least 0.
    pub temporal: f32,
    /// Importance: `loss += importance * CV(sum_b gates)^2` (Shazeer et al. 2017). At least 0.
    pub importance: f32,
    /// Size of the router's logits: `loss += router_z * mean logsumexp(z)^2` (ST-MoE). At least 0.
    pub router_z: f32,
    /// How unevenly attention is spread: `loss += attention_gini * (gini - 0.3)^2`. At least 0.
    pub attention_gini: f32,
    /// Prediction of the next step's operator activations from `h_graph`: `loss += next_operator * BCE`.
    /// At least 0.
    pub next_operator: f32,
    /// Second difference along an episode:
    /// `loss += pet * mean (h_{t+2} - 2 h_{t+1} + h_t)^2`. At least 0.
    pub pet: f32,
}

impl Coefficients {
    /// Whether a loss compares consecutive steps, so that minibatches must be made of whole segments
    /// of 16 consecutive steps of one environment instead of single rows.
    pub fn needs_segments(&self) -> bool {
        self.temporal > 0.0 || self.pet > 0.0 || self.next_operator > 0.0
    }
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
            (Routing::Entmax15, None),
            (Routing::TopK { k: 2 }, None),
            (Routing::Gumbel, None),
            (Routing::Uniform, None),
            (Routing::Random, None),
            (Routing::Dense, None),
        ];
        for (routing, expected) in cases {
            assert_eq!(routing.blend(), expected, "{routing:?}");
        }
    }

    #[test]
    fn only_losses_over_time_need_segments() {
        let all = Coefficients {
            entropy: 1.0,
            load_balance: 1.0,
            diversity: 1.0,
            gate_entropy: -1.0,
            alignment: 1.0,
            semantic: 1.0,
            overlap: 1.0,
            temporal: 1.0,
            importance: 1.0,
            router_z: 1.0,
            attention_gini: 1.0,
            next_operator: 1.0,
            pet: 1.0,
        };
        let none = Coefficients { temporal: 0.0, next_operator: 0.0, pet: 0.0, ..all };
        assert!(!none.needs_segments());
        for over_time in [
            Coefficients { temporal: 0.1, ..none },
            Coefficients { next_operator: 0.1, ..none },
            Coefficients { pet: 0.1, ..none },
        ] {
            assert!(over_time.needs_segments(), "{over_time:?}");
        }
    }

    #[test]
    fn only_gates_that_can_be_zero_are_skipped_and_only_logits_that_decide_are_judged() {
        let cases = [
            // routing, skips in rollouts, skips in updates, learns
            (Routing::Softmax, false, false, true),
            (Routing::Blend { weight: 0.5 }, false, false, true),
            (Routing::Sparsemax, true, true, true),
            (Routing::Entmax15, true, true, true),
            (Routing::TopK { k: 2 }, true, true, true),
            (Routing::Gumbel, true, false, true),
            (Routing::Uniform, false, false, false),
            (Routing::Random, true, false, false),
            (Routing::Dense, false, false, false),
        ];
        for (routing, in_rollouts, in_updates, learns) in cases {
            let told = (routing.skips_in_rollouts(), routing.skips_in_updates(), routing.learns());
            assert_eq!(told, (in_rollouts, in_updates, learns), "{routing:?}");
        }
    }
}
