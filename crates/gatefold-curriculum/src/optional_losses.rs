//! Losses that are off unless a study asks for them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plan::{Coefficients, Phase};
use crate::validation::{COEFFICIENT, CurriculumError, in_range};

/// How the coefficient of the second difference moves over a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PetSchedule {
    /// `pet` from the first step to the last.
    Constant,
    /// `pet * 0.01` in warmup, `pet * 0.1` in transition, `pet` in fine-tune.
    Stepped,
}

/// Coefficients of losses that are off by default, the same in every phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OptionalConfig {
    /// Coefficient of the squared coefficient of variation of the experts' importance, dimensionless.
    /// Range 0 to 10; usual 0.01. Default 0, off.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub importance: f64,
    /// Coefficient of the router z-loss, which keeps the router's logits small, dimensionless. Range 0
    /// to 10; usual 0.001. Default 0, off.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub router_z: f64,
    /// Coefficient of the distance of attention's Gini index from 0.3, dimensionless. Range 0 to 10;
    /// usual 0.01. Default 0, off.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub attention_gini: f64,
    /// Coefficient of the prediction of the next step's operators, dimensionless; above 0, minibatches
    /// are made of segments of 16 consecutive steps. Range 0 to 10; usual 0.1. Default 0, off.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub next_operator: f64,
    /// Coefficient of the second difference along an episode, dimensionless; above 0, minibatches are
    /// made of segments of 16 consecutive steps. Range 0 to 10; usual 0.01. Default 0, off.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub pet: f64,
    /// How pet moves over the run, a name. Differs: the published steps at 20 % and 60 % of the run
    /// are here the ends of the phases, which by default lie there and never go back. Default
    /// "constant".
    pub pet_schedule: PetSchedule,
}

impl Default for OptionalConfig {
    fn default() -> Self {
        Self {
            importance: 0.0,
            router_z: 0.0,
            attention_gini: 0.0,
            next_operator: 0.0,
            pet: 0.0,
            pet_schedule: PetSchedule::Constant,
        }
    }
}

impl OptionalConfig {
    /// A phase's coefficients with these beside them.
    pub(crate) fn beside(&self, coefficients: Coefficients, phase: Phase) -> Coefficients {
        let pet_factor = match (self.pet_schedule, phase) {
            (PetSchedule::Constant, _) | (_, Phase::FineTune) => 1.0,
            (PetSchedule::Stepped, Phase::Warmup) => 0.01,
            (PetSchedule::Stepped, Phase::Transition) => 0.1,
        };
        Coefficients {
            importance: self.importance as f32,
            router_z: self.router_z as f32,
            attention_gini: self.attention_gini as f32,
            next_operator: self.next_operator as f32,
            pet: (self.pet * pet_factor) as f32,
            ..coefficients
        }
    }

    pub(crate) fn validate(&self) -> Result<(), CurriculumError> {
        let table = "curriculum.optional";
        in_range(table, "importance", self.importance, COEFFICIENT)?;
        in_range(table, "router_z", self.router_z, COEFFICIENT)?;
        in_range(table, "attention_gini", self.attention_gini, COEFFICIENT)?;
        in_range(table, "next_operator", self.next_operator, COEFFICIENT)?;
        in_range(table, "pet", self.pet, COEFFICIENT)
    }
}
