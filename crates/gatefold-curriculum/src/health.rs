//! A verdict on a run, as the curriculum and the ladder take it.

use serde::{Deserialize, Serialize};

use crate::{Phase, Progress};

/// What the monitors said of an iteration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether no monitor raised an alarm.
    pub healthy: bool,
    /// Why, for the user: metric, value and what was expected.
    pub evidence: String,
}

impl Health {
    /// An iteration without an alarm.
    pub fn healthy() -> Self {
        Self { healthy: true, evidence: String::new() }
    }

    /// An iteration with an alarm, and what raised it.
    pub fn unhealthy(evidence: impl Into<String>) -> Self {
        Self { healthy: false, evidence: evidence.into() }
    }
}

/// A phase that is due and waits for health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The phase that waits.
    pub phase: Phase,
    /// Progress at the first iteration at which it was due.
    pub since: Progress,
    /// What the last verdict said.
    pub evidence: String,
}
