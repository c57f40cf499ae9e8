//! The numbers of the middle phase, some of which move.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::phase_tables::{EntropySign, Settings};
use crate::plan::{Coefficients, Routing};
use crate::validation::{COEFFICIENT, CurriculumError, RATE, TEMPERATURE, UNIT_INTERVAL, in_range};

/// The middle phase: what differs between its ends moves linearly in the phase's own progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TransitionConfig {
    /// Learning rate of the phase, per optimizer step, before lr_scale, warmup and decay.
    /// Range 0 to 1. Default 5e-5.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub lr: f64,
    /// Coefficient of the action entropy bonus, dimensionless; 0 is off. Range 0 to 10. Default 0.02.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub entropy: f64,
    /// Coefficient of the entropy of the gates at the phase's start, dimensionless; 0 is off. Range 0
    /// to 10. Default 0.1.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub gate_entropy_start: f64,
    /// Coefficient of the entropy of the gates at the phase's end, dimensionless; 0 is off. Range 0 to
    /// 10. Default 0.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub gate_entropy_end: f64,
    /// Whether the loss maximises or minimises the entropy of the gates, a name. Default "maximise".
    pub gate_entropy_sign: EntropySign,
    /// Coefficient of the load-balance loss, dimensionless; 0 is off. Range 0 to 10. Default 0.01.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub load_balance: f64,
    /// Coefficient of the diversity loss, dimensionless; 0 is off. Range 0 to 10. Default 0.01.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub diversity: f64,
    /// Coefficient of the alignment of the router with the operators' scores, dimensionless; 0 is off,
    /// and so is a policy without a knowledge graph. Range 0 to 10. Default 0.1.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub alignment: f64,
    /// Coefficient of the semantic orthogonality of the experts, dimensionless; 0 is off. Range 0 to 10.
    /// Default 0.05.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub semantic: f64,
    /// Coefficient of the overlap of experts that act together, dimensionless; 0 is off. Range 0 to 10.
    /// Default 0.03.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub overlap: f64,
    /// Coefficient of the change of the gates from step to step, dimensionless; 0 is off, above it
    /// minibatches are made of segments of 16 consecutive steps. Range 0 to 10. Default 0.01.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub temporal: f64,
    /// Divisor of the router's logits at the phase's start, dimensionless. Range 0.01 to 100. Default 1.
    #[schemars(range(min = 0.01, max = 100.0))]
    pub temperature_start: f64,
    /// Divisor of the router's logits at the phase's end, dimensionless. Range 0.01 to 100. Default 0.5.
    #[schemars(range(min = 0.01, max = 100.0))]
    pub temperature_end: f64,
    /// Weight of sparsemax against softmax at the phase's start, dimensionless; unused where
    /// `curriculum.routing` holds a routing for the whole run. Range 0 to 1. Default 0.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub blend_start: f64,
    /// Weight of sparsemax against softmax at the phase's end, dimensionless; unused where
    /// `curriculum.routing` holds a routing for the whole run. Range 0 to 1. Default 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub blend_end: f64,
}

impl Default for TransitionConfig {
    fn default() -> Self {
        Self {
            lr: 5e-5,
            entropy: 0.02,
            gate_entropy_start: 0.1,
            gate_entropy_end: 0.0,
            gate_entropy_sign: EntropySign::Maximise,
            load_balance: 0.01,
            diversity: 0.01,
            alignment: 0.1,
            semantic: 0.05,
            overlap: 0.03,
            temporal: 0.01,
            temperature_start: 1.0,
            temperature_end: 0.5,
            blend_start: 0.0,
            blend_end: 1.0,
        }
    }
}

impl TransitionConfig {
    /// The numbers at `fraction` (0 to 1) of the phase.
    pub(crate) fn settings(&self, fraction: f64) -> Settings {
        let between = |start: f64, end: f64| (1.0 - fraction) * start + fraction * end;
        let gate_entropy = between(self.gate_entropy_start, self.gate_entropy_end);
        Settings {
            lr: self.lr,
            coefficients: Coefficients {
                entropy: self.entropy as f32,
                load_balance: self.load_balance as f32,
                diversity: self.diversity as f32,
                gate_entropy: self.gate_entropy_sign.apply(gate_entropy) as f32,
                alignment: self.alignment as f32,
                semantic: self.semantic as f32,
                overlap: self.overlap as f32,
                temporal: self.temporal as f32,
                ..Coefficients::default()
            },
            temperature: between(self.temperature_start, self.temperature_end),
            routing: Routing::Blend { weight: between(self.blend_start, self.blend_end) as f32 },
        }
    }

    pub(crate) fn validate(&self) -> Result<(), CurriculumError> {
        let table = "curriculum.transition";
        in_range(table, "lr", self.lr, RATE)?;
        in_range(table, "entropy", self.entropy, COEFFICIENT)?;
        in_range(table, "gate_entropy_start", self.gate_entropy_start, COEFFICIENT)?;
        in_range(table, "gate_entropy_end", self.gate_entropy_end, COEFFICIENT)?;
        in_range(table, "load_balance", self.load_balance, COEFFICIENT)?;
        in_range(table, "diversity", self.diversity, COEFFICIENT)?;
        in_range(table, "alignment", self.alignment, COEFFICIENT)?;
        in_range(table, "semantic", self.semantic, COEFFICIENT)?;
        in_range(table, "overlap", self.overlap, COEFFICIENT)?;
        in_range(table, "temporal", self.temporal, COEFFICIENT)?;
        in_range(table, "temperature_start", self.temperature_start, TEMPERATURE)?;
        in_range(table, "temperature_end", self.temperature_end, TEMPERATURE)?;
        in_range(table, "blend_start", self.blend_start, UNIT_INTERVAL)?;
        in_range(table, "blend_end", self.blend_end, UNIT_INTERVAL)
    }
}
