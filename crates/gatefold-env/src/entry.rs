//! The row an environment has in a table: its name, what it is for, and how to build it.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::clones::type_name;
use crate::{Batch, BatchEnv, EnvError, Environment};

/// What a batch of environments is built from.
#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    /// Number of copies stepped together (at least 1).
    pub num_envs: usize,
    /// Seed of the environments' streams.
    pub seed: u64,
    /// The environment's own options, as written under `[env]`.
    pub options: toml::Table,
}

impl Params {
    /// `num_envs` copies with default options.
    pub fn new(num_envs: usize, seed: u64) -> Self {
        Self { num_envs, seed, options: toml::Table::new() }
    }

    /// Sets one option.
    pub fn with(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        self.options.insert(key.to_string(), value.into());
        self
    }
}

/// Options of an environment that has none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoOptions {}

/// One environment that a run can name.
#[derive(Debug, Clone, Copy)]
pub struct EnvEntry {
    /// The name used in `[env] name`.
    pub name: &'static str,
    /// One line: what it is and what it is good for.
    pub about: &'static str,
    /// Builds a batch, before its first reset.
    pub build: fn(&Params) -> Result<Box<dyn BatchEnv>, EnvError>,
    /// JSON schema of the options: documentation, types, ranges and defaults.
    pub options: fn() -> Schema,
}

impl EnvEntry {
    /// The entry of an [`Environment`], stepped by the generic [`Batch`].
    pub const fn new<E: Environment>(name: &'static str, about: &'static str) -> Self {
        Self { name, about, build: build::<E>, options: schema::<E> }
    }
}

fn build<E: Environment>(params: &Params) -> Result<Box<dyn BatchEnv>, EnvError> {
    let config: E::Config =
        toml::Value::Table(params.options.clone()).try_into().map_err(|e: toml::de::Error| {
            EnvError::Options { env: type_name::<E>(), reason: e.message().to_string() }
        })?;
    Ok(Box::new(Batch::<E>::new(&config, params.num_envs, params.seed)?))
}

fn schema<E: Environment>() -> Schema {
    schemars::schema_for!(E::Config)
}
