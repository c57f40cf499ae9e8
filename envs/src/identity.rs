//! Identity: the observation says which action is right. The smallest thing a learner must learn.

use gatefold_env::{
    Action, EnvEntry, EnvError, EnvSpec, Environment, ObservationView, StreamRng, Transition,
};
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The row of the table.
pub const ENTRY: EnvEntry =
    EnvEntry::new::<Identity>("identity", "Name the action that is shown; best return = length");

/// Options of [`Identity`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IdentityConfig {
    /// Number of actions, and of features (at least 2).
    pub num_actions: usize,
    /// Steps of an episode (at least 1).
    pub length: u32,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self { num_actions: 4, length: 16 }
    }
}

/// The observation says which action is right.
///
/// - Observation: one-hot of the right action, `num_actions` features; drawn anew every step.
/// - Actions: `num_actions` of them, all allowed. Reward: 1 for the right one, else 0.
/// - Ends: truncated after `length` steps; nothing terminates. Score: the return so far.
/// - Best return: `length`; a random policy expects `length / num_actions`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Identity {
    config: IdentityConfig,
    right: usize,
    score: f64,
}

impl Environment for Identity {
    type Config = IdentityConfig;

    fn new(config: &IdentityConfig) -> Result<Self, EnvError> {
        at_least("num_actions", config.num_actions as u64, 2)?;
        at_least("length", config.length.into(), 1)?;
        Ok(Self { config: config.clone(), right: 0, score: 0.0 })
    }

    fn spec(&self) -> EnvSpec {
        EnvSpec {
            max_episode_steps: Some(self.config.length),
            ..EnvSpec::new(self.config.num_actions, self.config.num_actions)
        }
    }

    fn reset(&mut self, rng: &mut StreamRng) {
        self.right = rng.random_range(0..self.config.num_actions);
        self.score = 0.0;
    }

    fn step(&mut self, action: Action, rng: &mut StreamRng) -> Transition {
        let reward = f32::from(u8::from(action.index() == self.right));
        self.score += f64::from(reward);
        self.right = rng.random_range(0..self.config.num_actions);
        Transition { reward, score: self.score, end: None }
    }

    fn observe(&self, view: &mut ObservationView<'_>) {
        view.features.fill(0.0);
        view.features[self.right] = 1.0;
    }

    fn scripted(&self, _rng: &mut StreamRng) -> Option<Action> {
        Some(Action::Discrete(self.right))
    }
}

/// Fails if the option `key` is below `minimum`.
pub(crate) fn at_least(key: &str, value: u64, minimum: u64) -> Result<(), EnvError> {
    if value < minimum {
        return Err(EnvError::Option {
            key: key.to_string(),
            value: value.to_string(),
            expected: format!("need at least {minimum}"),
        });
    }
    Ok(())
}
