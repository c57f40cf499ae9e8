//! The numerical guard's count: how often an update was discarded, and how often in a row.

use gatefold_monitor::{Metrics, names};
use serde::{Deserialize, Serialize};

/// Attempts at one healthy snapshot before the ladder steps down, or the run stops.
pub(crate) const MOST_ATTEMPTS: u64 = 3;

/// What the guard did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Guard {
    /// Discarded updates and dumps since the run's start.
    pub(crate) events: u64,
    /// Discarded updates since the run's start.
    pub(crate) discarded: u64,
    /// Discarded updates since the last one that went through.
    pub(crate) attempts: u64,
}

impl Guard {
    pub(crate) fn metrics(self) -> Metrics {
        let mut metrics = Metrics::new();
        metrics.set(names::GUARD_EVENTS, self.events as f64);
        metrics.set(names::GUARD_DISCARDED_UPDATES, self.discarded as f64);
        metrics.set(names::GUARD_ATTEMPTS, self.attempts as f64);
        metrics
    }
}
