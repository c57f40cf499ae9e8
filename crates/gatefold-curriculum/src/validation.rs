//! What a curriculum's configuration may say. The JSON schema states the same ranges; a test holds
//! the two together.

use std::ops::RangeInclusive;

use crate::config::{CurriculumConfig, Schedule, Unit};
use crate::rung::Rung;

/// A mistake in `[curriculum]` or `[ladder]`: the key, its value, and what would be accepted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CurriculumError {
    /// A number outside its range.
    #[error("[{table}] {key} = {value}: need {min} to {max}")]
    OutOfRange {
        /// The TOML table, such as `curriculum.warmup`.
        table: &'static str,
        /// The key in it.
        key: &'static str,
        /// What was given.
        value: f64,
        /// The smallest accepted value.
        min: f64,
        /// The largest accepted value.
        max: f64,
    },
    /// A boundary that is no fraction of the run although `unit` says so.
    #[error(
        "[curriculum] {key} = {value}: need 0 to 1, a fraction of total_steps; to count episodes set \
         unit = \"episodes\""
    )]
    NotAFraction {
        /// `warmup_until`, `transition_until` or `max_hold`.
        key: &'static str,
        /// What was given.
        value: f64,
    },
    /// A boundary that is no number of episodes although `unit` says so.
    #[error(
        "[curriculum] {key} = {value}: need a whole number of finished episodes, such as {example}, \
         with unit = \"episodes\""
    )]
    NotEpisodes {
        /// `warmup_until`, `transition_until` or `max_hold`.
        key: &'static str,
        /// What was given.
        value: f64,
        /// A number that would be accepted.
        example: u64,
    },
    /// No expert per decision.
    #[error("[curriculum] top_k = 0: need 1 to the number of experts")]
    NoExpert,
    /// The phases would overlap.
    #[error(
        "[curriculum] warmup_until = {warmup_until}: must not exceed transition_until = {transition_until}"
    )]
    Order {
        /// End of the first phase.
        warmup_until: f64,
        /// End of the second.
        transition_until: f64,
    },
    /// A number of iterations that would never come.
    #[error("[ladder] {key} = 0: need at least 1 iteration")]
    NoIterations {
        /// `patience` or `recovery`.
        key: &'static str,
    },
    /// A ladder that would start below its end.
    #[error("[ladder] start = \"{start}\": must not lie below lowest = \"{lowest}\"")]
    StartBelowLowest {
        /// The first rung.
        start: Rung,
        /// The last rung.
        lowest: Rung,
    },
    /// A rung that takes nothing away from the policy at hand.
    #[error("[ladder] rung \"{rung}\": changes nothing for this policy; it has {accepted}")]
    RungChangesNothing {
        /// What was given.
        rung: Rung,
        /// The rungs that would be accepted.
        accepted: String,
    },
}

pub(crate) const RATE: RangeInclusive<f64> = 0.0..=1.0;
pub(crate) const COEFFICIENT: RangeInclusive<f64> = 0.0..=10.0;
pub(crate) const TEMPERATURE: RangeInclusive<f64> = 0.01..=100.0;
pub(crate) const UNIT_INTERVAL: RangeInclusive<f64> = 0.0..=1.0;
const SCALE: RangeInclusive<f64> = 0.0..=1000.0;

/// NaN is in no range.
pub(crate) fn in_range(
    table: &'static str,
    key: &'static str,
    value: f64,
    range: RangeInclusive<f64>,
) -> Result<(), CurriculumError> {
    if range.contains(&value) {
        return Ok(());
    }
    let (min, max) = range.into_inner();
    Err(CurriculumError::OutOfRange { table, key, value, min, max })
}

impl CurriculumConfig {
    /// Rejects values outside their range and phases out of order.
    ///
    /// The boundaries are looked at only where the schedule has phases, max_hold in episodes only
    /// where phases wait for health.
    pub fn validate(&self) -> Result<(), CurriculumError> {
        if self.schedule == Schedule::Phases {
            self.validate_boundaries()?;
        }
        if self.top_k == 0 {
            return Err(CurriculumError::NoExpert);
        }
        in_range("curriculum", "lr_scale", self.lr_scale, SCALE)?;
        in_range("curriculum", "lr_warmup_fraction", self.lr_warmup_fraction, 0.0..=1.0)?;
        self.warmup.validate()?;
        self.transition.validate()?;
        self.fine_tune.validate()?;
        self.constant.validate()?;
        self.optional.validate()
    }

    fn validate_boundaries(&self) -> Result<(), CurriculumError> {
        let gated = self.advance_when_healthy;
        let keys = [
            ("warmup_until", self.warmup_until, 1000, true),
            ("transition_until", self.transition_until, 3000, true),
            ("max_hold", self.max_hold, 500, gated),
        ];
        for (key, value, example, used) in keys {
            match self.unit {
                Unit::Fraction if !UNIT_INTERVAL.contains(&value) => {
                    return Err(CurriculumError::NotAFraction { key, value });
                }
                Unit::Episodes if used && !(value >= 0.0 && value.fract() == 0.0) => {
                    return Err(CurriculumError::NotEpisodes { key, value, example });
                }
                Unit::Fraction | Unit::Episodes => {}
            }
        }
        if self.warmup_until > self.transition_until {
            return Err(CurriculumError::Order {
                warmup_until: self.warmup_until,
                transition_until: self.transition_until,
            });
        }
        Ok(())
    }
}
