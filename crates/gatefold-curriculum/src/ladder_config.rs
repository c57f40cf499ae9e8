//! `[ladder]` as the user writes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rung::Rung;
use crate::validation::CurriculumError;

/// When a run steps down the fallback ladder, and how far.
///
/// Rungs, from the top: `full`, `freeze-gat`, `softmax-only`, `fewer-experts`, `v2-routing`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LadderConfig {
    /// The rung at which the run starts, a name; it never climbs above it by itself. Default "full".
    pub start: Rung,
    /// Whether the ladder acts on verdicts and on updates that fail for good, a switch; otherwise only
    /// a rung set by hand moves it. Default true.
    pub automatic: bool,
    /// Unhealthy iterations in a row before a step down, a number of iterations. Range 1 and up.
    /// Default 10.
    #[schemars(range(min = 1))]
    pub patience: u64,
    /// Whether lasting health leads back up, a switch; then the experts taken away are kept aside.
    /// Default false, the ladder only goes down.
    pub reversible: bool,
    /// Healthy iterations in a row before a step back up, a number of iterations; unused unless
    /// reversible. Range 1 and up. Default 50.
    #[schemars(range(min = 1))]
    pub recovery: u64,
    /// Time after a step in which verdicts do not count, so that the step can show its effect, in
    /// iterations. Range 0 and up; 0 counts from the first. Default 10.
    #[schemars(range(min = 0))]
    pub cooldown: u64,
    /// The rung below which the ladder does not go by itself, a name. Range start to "v2-routing".
    /// Default "v2-routing".
    pub lowest: Rung,
}

impl Default for LadderConfig {
    fn default() -> Self {
        Self {
            start: Rung::Full,
            automatic: true,
            patience: 10,
            reversible: false,
            recovery: 50,
            cooldown: 10,
            lowest: Rung::V2Routing,
        }
    }
}

impl LadderConfig {
    /// Rejects counts of 0 and a start below the lowest rung.
    pub fn validate(&self) -> Result<(), CurriculumError> {
        for (key, value) in [("patience", self.patience), ("recovery", self.recovery)] {
            if value == 0 {
                return Err(CurriculumError::NoIterations { key });
            }
        }
        if self.start > self.lowest {
            return Err(CurriculumError::StartBelowLowest { start: self.start, lowest: self.lowest });
        }
        Ok(())
    }
}
