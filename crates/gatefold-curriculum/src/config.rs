//! `[curriculum]` as the user writes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::learning_rate::Decay;
use crate::optional_losses::OptionalConfig;
use crate::phase_tables::{ConstantConfig, EntropySign, FineTuneConfig, WarmupConfig};
use crate::routing_choice::{FixedRouting, RoutingChoice};
use crate::transition_table::TransitionConfig;

/// Whether a run goes through phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Warmup, transition, fine-tune, by the tables of those names. With transition_until =
    /// warmup_until the middle phase is empty: a hard switch.
    Phases,
    /// The numbers of `[curriculum.constant]` from the first step to the last.
    Constant,
}

/// What the boundaries between phases count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Finished episodes over all environments.
    Episodes,
    /// Environment steps taken divided by total_steps.
    Fraction,
}

/// Phases, learning rate and coefficients over a run.
///
/// The learning rate at an optimizer step is `lr_scale * lr of the phase * warmup * decay`, with an
/// optional factor for large batches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CurriculumConfig {
    /// Whether the run goes through three phases or keeps constant numbers, a name. Default "phases".
    pub schedule: Schedule,
    /// What warmup_until, transition_until and max_hold count, a name: finished episodes, or the
    /// fraction of total_steps. Default "fraction".
    pub unit: Unit,
    /// Where warmup ends and transition starts, in `unit`. Range 0 to transition_until. Default 0.2.
    ///
    /// Differs: the method's first version enters its phases after 1000 and 3000 of 10,000 episodes.
    /// How many episodes fit into total_steps depends on environment and policy, so that a count can
    /// lie beyond a run's end; a fraction never does. 0.2 and 0.6 leave warmup and transition a larger
    /// share than its 0.1 and 0.3, because most runs here are shorter than 10,000 episodes.
    #[schemars(range(min = 0.0))]
    pub warmup_until: f64,
    /// Where transition ends and fine-tune starts, in `unit`; equal to warmup_until for a hard switch.
    /// Range warmup_until to 1 with unit = "fraction", without upper limit with "episodes". Default 0.6.
    #[schemars(range(min = 0.0))]
    pub transition_until: f64,
    /// Whether the next phase waits while the monitors' last verdict is unhealthy, a switch. What
    /// follows a late entry keeps its length and ends as much later. Default false, phases start where
    /// the boundaries say.
    pub advance_when_healthy: bool,
    /// How long one entry may be held back at most, in `unit`; then the phase starts although the run
    /// is unhealthy. Unused unless advance_when_healthy. Range 0 to 1 with unit = "fraction", whole
    /// numbers without upper limit with "episodes". Default 0.1.
    #[schemars(range(min = 0.0))]
    pub max_hold: f64,
    /// Routing of the whole run, a name: by the curriculum, or one held fixed while all else follows
    /// the tables. Default "curriculum".
    pub routing: RoutingChoice,
    /// Experts per decision where a routing is "top-k", a number of experts; unused elsewhere. Range 1
    /// to the number of experts. Default 2.
    #[schemars(range(min = 1))]
    pub top_k: usize,
    /// Factor on the learning rate of every phase, dimensionless; 1 leaves the tables' rates as they
    /// are. Range 0 to 1000. Default 1.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub lr_scale: f64,
    /// Length of the learning rate's linear warmup, in optimizer steps from the run's first; 0 for
    /// none. Range 0 and up. Default 1000.
    #[schemars(range(min = 0))]
    pub lr_warmup_steps: u64,
    /// The same as a fraction of the run's optimizer steps, dimensionless; above 0 it takes the place
    /// of lr_warmup_steps. Range 0 to 1. Default 0, unused.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub lr_warmup_fraction: f64,
    /// How the learning rate falls with environment steps over the whole run, across phases, a name.
    /// Default "cosine".
    pub lr_decay: Decay,
    /// Whether minibatches of B > 256 samples multiply the learning rate by sqrt(B / 256), a switch.
    /// Default false, the same rate for every B.
    pub large_batch_scaling: bool,
    /// Numbers of the first phase.
    pub warmup: WarmupConfig,
    /// Numbers of the middle phase.
    pub transition: TransitionConfig,
    /// Numbers of the last phase.
    pub fine_tune: FineTuneConfig,
    /// Numbers of the whole run with schedule = "constant".
    pub constant: ConstantConfig,
    /// Losses that are off by default, the same in every phase.
    pub optional: OptionalConfig,
}

impl Default for CurriculumConfig {
    fn default() -> Self {
        Self {
            schedule: Schedule::Phases,
            unit: Unit::Fraction,
            warmup_until: 0.2,
            transition_until: 0.6,
            advance_when_healthy: false,
            max_hold: 0.1,
            routing: RoutingChoice::Curriculum,
            top_k: 2,
            lr_scale: 1.0,
            lr_warmup_steps: 1000,
            lr_warmup_fraction: 0.0,
            lr_decay: Decay::Cosine,
            large_batch_scaling: false,
            warmup: WarmupConfig::default(),
            transition: TransitionConfig::default(),
            fine_tune: FineTuneConfig::default(),
            constant: ConstantConfig::default(),
            optional: OptionalConfig::default(),
        }
    }
}

impl CurriculumConfig {
    /// The constants of the method's first version: the same coefficients in every phase and a hard
    /// switch from softmax to sparsemax after 1000 episodes. Rates and temperatures are the tables';
    /// losses that came later are off.
    pub fn seed() -> Self {
        let (entropy, load_balance, diversity) = (0.01, 0.01, 0.01);
        let (gate_entropy, gate_entropy_sign) = (0.05, EntropySign::Maximise);
        Self {
            unit: Unit::Episodes,
            warmup_until: 1000.0,
            transition_until: 1000.0,
            warmup: WarmupConfig {
                entropy,
                gate_entropy,
                gate_entropy_sign,
                load_balance,
                diversity,
                alignment: 0.0,
                semantic: 0.0,
                ..WarmupConfig::default()
            },
            fine_tune: FineTuneConfig {
                entropy,
                gate_entropy,
                gate_entropy_sign,
                load_balance,
                diversity,
                alignment: 0.0,
                semantic: 0.0,
                overlap: 0.0,
                temporal: 0.0,
                ..FineTuneConfig::default()
            },
            ..Self::default()
        }
    }

    /// A dense baseline: one rate with its decay, no warmup, no router, no loss of the experts.
    ///
    /// CleanRL's PPO is `dense(2.5e-4, 0.01, Decay::Linear)`.
    pub fn dense(lr: f64, entropy: f64, lr_decay: Decay) -> Self {
        Self {
            schedule: Schedule::Constant,
            lr_warmup_steps: 0,
            lr_decay,
            constant: ConstantConfig {
                lr,
                entropy,
                routing: FixedRouting::Dense,
                ..ConstantConfig::default()
            },
            ..Self::default()
        }
    }
}
