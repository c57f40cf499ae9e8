//! What can go wrong between a user's parameters and a running environment.

use gatefold_graph::GraphError;
use thiserror::Error;

/// A fault in an environment's parameters, files or saved state.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EnvError {
    /// A parameter that the environment does not accept.
    #[error("[env] {key} = {value}: {expected}")]
    Option {
        /// The parameter.
        key: String,
        /// The value given.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// The options do not fit the environment's configuration.
    #[error("[env] options of `{env}`: {reason}")]
    Options {
        /// The environment.
        env: String,
        /// What the reader of the options said.
        reason: String,
    },
    /// The environment's graph does not validate.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Saved environment state that cannot be continued.
    #[error("saved state of `{env}`: {reason}")]
    State {
        /// The environment.
        env: String,
        /// Why it cannot be used.
        reason: String,
    },
}
