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
    /// Size of the action space and of the observation, a number of actions.
    #[schemars(range(min = 2, max = 4096))]
    pub num_actions: usize,
    /// Length of an episode, in steps.
    #[schemars(range(min = 1))]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mean_return::mean_return;
    use gatefold_env::Params;
    use gatefold_env::conformance::{Settings, check};

    #[test]
    fn it_keeps_the_contract_with_other_options_too() {
        check(&ENTRY, &Settings::default()).unwrap();
        let options = Params::new(1, 1).with("num_actions", 3).with("length", 1).options;
        check(&ENTRY, &Settings { options, ..Settings::default() }).unwrap();
    }

    #[test]
    fn naming_the_shown_action_earns_the_length_and_guessing_its_share() {
        let params = Params::new(16, 1).with("length", 10).with("num_actions", 5);
        let shown = |seen: &[f32], _: &[f32]| seen.iter().position(|&x| x == 1.0).expect("one is shown");
        assert_eq!(mean_return(&ENTRY, &params, 1000, shown), 10.0);
        let constant = mean_return(&ENTRY, &params, 1000, |_, _| 2);
        assert!((constant - 2.0).abs() < 0.1, "{constant}");
    }

    #[test]
    fn options_that_leave_nothing_to_learn_are_refused() {
        for (key, value) in [("num_actions", 1), ("length", 0)] {
            let error = (ENTRY.build)(&Params::new(1, 1).with(key, value)).err().unwrap().to_string();
            assert!(error.starts_with(&format!("[env] {key} = {value}: need at least")), "{error}");
        }
    }

    #[test]
    fn a_state_saved_with_other_options_is_refused() {
        let small = (ENTRY.build)(&Params::new(2, 1)).unwrap().save().unwrap();
        let mut large = (ENTRY.build)(&Params::new(2, 1).with("num_actions", 8)).unwrap();
        let error = large.load(&small).unwrap_err().to_string();
        assert_eq!(error, "saved state of `identity`: was saved with options that give other sizes");
    }
}
