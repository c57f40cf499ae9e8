//! Environment steps per second, from times that the caller measured.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Environment steps and wall time of a run, summed over its iterations and resumptions.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Throughput {
    env_steps: u64,
    elapsed: Duration,
}

impl Throughput {
    /// Adds an iteration.
    pub fn add(&mut self, env_steps: u64, elapsed: Duration) {
        self.env_steps += env_steps;
        self.elapsed += elapsed;
    }

    /// Environment steps per second over all that was added; `None` before any time has passed.
    pub fn steps_per_second(&self) -> Option<f64> {
        (!self.elapsed.is_zero()).then(|| self.env_steps as f64 / self.elapsed.as_secs_f64())
    }

    /// Wall time of all that was added.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_weighs_iterations_by_their_time() {
        let mut throughput = Throughput::default();
        assert_eq!(throughput.steps_per_second(), None);
        throughput.add(1000, Duration::from_millis(500));
        throughput.add(1000, Duration::from_millis(1500));
        assert_eq!(throughput.steps_per_second(), Some(1000.0));
        assert_eq!(throughput.elapsed(), Duration::from_secs(2));
    }

    #[test]
    fn a_saved_rate_goes_on_after_a_resumption() {
        let mut throughput = Throughput::default();
        throughput.add(600, Duration::from_secs(1));
        let saved = serde_json::to_string(&throughput).unwrap();
        let mut resumed: Throughput = serde_json::from_str(&saved).unwrap();
        resumed.add(200, Duration::from_secs(1));
        assert_eq!(resumed.steps_per_second(), Some(400.0));
    }
}
