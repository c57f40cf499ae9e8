//! What can end a rollout early.

use gatefold_env::EnvError;
use gatefold_policy::ChoiceError;
use thiserror::Error;

/// What can end a rollout early.
#[derive(Debug, Error)]
pub enum RolloutError {
    /// The environment failed.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// No action could be chosen.
    #[error("step {step} of the rollout: {source}")]
    Choice {
        /// Step within the rollout.
        step: usize,
        /// What was wrong.
        source: ChoiceError,
    },
    /// A number was NaN or infinite before anything was learned from it.
    #[error("step {step} of the rollout: {what} of environment {env} is {value}")]
    NonFinite {
        /// Step within the rollout.
        step: usize,
        /// Environment.
        env: usize,
        /// Which number.
        what: &'static str,
        /// Its value.
        value: f32,
    },
}

pub(super) const OBSERVATION: &str = "an observation";
pub(super) const REWARD: &str = "the reward";
pub(super) const VALUE: &str = "the critic's value";

impl RolloutError {
    /// Steps that every environment had taken when it ended, if numbers were the cause and not an
    /// environment.
    pub fn non_finite_at(&self) -> Option<usize> {
        match *self {
            Self::NonFinite { step, what: REWARD, .. } => Some(step + 1),
            Self::Choice { step, source: ChoiceError::NonFinite { .. } } | Self::NonFinite { step, .. } => {
                Some(step)
            }
            _ => None,
        }
    }
}

/// Fails on the first value that is not finite, naming the environment of `value` number `at` by `env(at)`.
pub(super) fn finite(
    what: &'static str,
    step: usize,
    values: &[f32],
    env: impl Fn(usize) -> usize,
) -> Result<(), RolloutError> {
    match values.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(at) => Err(RolloutError::NonFinite { step, env: env(at), what, value: values[at] }),
    }
}
