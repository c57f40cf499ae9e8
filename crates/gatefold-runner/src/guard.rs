//! The numerical guard's count: how often an update was discarded, how often in a row, and how often of late.

use gatefold_monitor::{Metrics, names};
use serde::{Deserialize, Serialize};

/// Attempts at one healthy snapshot before the ladder steps down, or the run stops.
pub(crate) const MOST_ATTEMPTS: u64 = 3;

/// Iterations over which the discard rate is taken.
const RECENT: u32 = 20;

/// What the guard did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Guard {
    /// Discarded updates and dumps since the run's start.
    pub(crate) events: u64,
    /// Discarded updates since the run's start.
    pub(crate) discarded: u64,
    /// Discarded updates since the last one that went through.
    pub(crate) attempts: u64,
    /// Which of the last iterations were discarded: a bit each, the newest is the lowest.
    recent: u32,
}

impl Guard {
    /// An iteration that went through.
    pub(crate) fn pass(&mut self) {
        self.recent <<= 1;
    }

    /// An iteration that was discarded, with a dump or without; gives the attempt at the present snapshot.
    pub(crate) fn discard(&mut self, dumped: bool) -> u64 {
        self.recent = self.recent << 1 | 1;
        self.events += 1 + u64::from(dumped);
        self.discarded += 1;
        self.attempts += 1;
        self.attempts
    }

    /// The ladder changed the policy: what failed before says nothing about it.
    pub(crate) fn start_anew(&mut self) {
        (self.attempts, self.recent) = (0, 0);
    }

    pub(crate) fn metrics(self) -> Metrics {
        let mut metrics = Metrics::new();
        metrics.set(names::GUARD_EVENTS, self.events as f64);
        metrics.set(names::GUARD_DISCARDED_UPDATES, self.discarded as f64);
        metrics.set(names::GUARD_ATTEMPTS, self.attempts as f64);
        let discarded = (self.recent & ((1 << RECENT) - 1)).count_ones();
        metrics.set(names::GUARD_DISCARD_RATE, f64::from(discarded) / f64::from(RECENT));
        metrics
    }
}
