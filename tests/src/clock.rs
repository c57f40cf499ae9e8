//! Clock: the observation says what time it is, so that everything can be worked out by hand.

use gatefold_env::{
    Action, EnvEntry, EnvError, EnvSpec, Environment, EpisodeEnd, ObservationView, StreamRng, Transition,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a table would name it.
pub const ENTRY: EnvEntry = EnvEntry::new::<Clock>("clock", "Tells the time, for tests");

/// Options of [`Clock`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClockConfig {
    /// Steps of an episode (at least 1).
    pub length: u32,
    /// Whether the episode ends by itself; otherwise the clock cuts it.
    pub terminates: bool,
    /// The step of each episode whose reward is not a number; 0 for none.
    pub nan_reward_at: u32,
    /// The time at which the observation is not a number; 0 for none.
    pub nan_feature_at: u32,
}

impl Default for ClockConfig {
    fn default() -> Self {
        Self { length: 4, terminates: false, nan_reward_at: 0, nan_feature_at: 0 }
    }
}

/// A clock that runs for `length` steps.
///
/// - Observation: one feature, the steps taken. Actions: 2, without effect. Reward: the steps taken.
/// - Score: ten times the steps taken; a reset zeroes it.
/// - Ends: after `length` steps, terminated or truncated as the options say.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Clock {
    config: ClockConfig,
    time: u32,
}

impl Clock {
    /// The score at present, 0 right after a reset.
    pub fn score(&self) -> f64 {
        10.0 * f64::from(self.time)
    }
}

impl Environment for Clock {
    type Config = ClockConfig;

    fn new(config: &ClockConfig) -> Result<Self, EnvError> {
        Ok(Self { config: config.clone(), time: 0 })
    }

    fn spec(&self) -> EnvSpec {
        let limit = (!self.config.terminates).then_some(self.config.length);
        EnvSpec { max_episode_steps: limit, ..EnvSpec::new(1, 2) }
    }

    fn reset(&mut self, _rng: &mut StreamRng) {
        self.time = 0;
    }

    fn step(&mut self, _action: Action, _rng: &mut StreamRng) -> Transition {
        self.time += 1;
        let over = self.config.terminates && self.time == self.config.length;
        let reward = if self.time == self.config.nan_reward_at { f32::NAN } else { self.time as f32 };
        Transition { reward, score: self.score(), end: over.then_some(EpisodeEnd::Terminated) }
    }

    fn observe(&self, view: &mut ObservationView<'_>) {
        let broken = self.time > 0 && self.time == self.config.nan_feature_at;
        view.features[0] = if broken { f32::NAN } else { self.time as f32 };
    }
}

#[cfg(test)]
mod tests {
    use gatefold_env::conformance::{Settings, check};

    #[test]
    fn it_keeps_the_contract() {
        check(&super::ENTRY, &Settings::deterministic()).unwrap();
    }
}
