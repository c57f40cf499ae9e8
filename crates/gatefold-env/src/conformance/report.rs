//! What the conformance check is asked and what it answers.

use std::fmt;

use crate::EnvError;
use crate::conformance::Lab;

/// How an environment is checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The environment's own options, as under `[env]`.
    pub options: toml::Table,
    /// Steps that each check takes at least; enough for some episodes to end.
    pub steps: usize,
    /// Seed of the environments and of the random actions.
    pub seed: u64,
    /// Whether the environment declares that it draws nothing: then different seeds must agree,
    /// otherwise they must not.
    pub deterministic: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { options: toml::Table::new(), steps: 300, seed: 1, deterministic: false }
    }
}

impl Settings {
    /// The default settings for an environment that draws nothing.
    pub fn deterministic() -> Self {
        Self { deterministic: true, ..Self::default() }
    }
}

/// One clause of the contract.
#[derive(Clone, Copy)]
pub struct Check {
    /// Its name, as reports give it.
    pub name: &'static str,
    /// What it demands, in one sentence.
    pub about: &'static str,
    pub(crate) run: fn(&Lab<'_>) -> Result<Outcome, Fault>,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// How a check that found no fault came out.
pub(crate) enum Outcome {
    Held,
    Skipped(String),
}

/// What a check found wrong.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) step: Option<usize>,
    pub(crate) detail: String,
}

impl Fault {
    pub(crate) fn new(detail: impl Into<String>) -> Self {
        Self { step: None, detail: detail.into() }
    }

    pub(crate) fn at(step: usize, detail: impl Into<String>) -> Self {
        Self { step: Some(step), detail: detail.into() }
    }
}

impl From<EnvError> for Fault {
    fn from(error: EnvError) -> Self {
        Self::new(format!("unexpected error: {error}"))
    }
}

/// An environment that keeps the contract.
#[derive(Debug, Clone)]
pub struct Report {
    /// The environment's name.
    pub env: String,
    /// The checks that held.
    pub passed: Vec<Check>,
    /// The checks that do not apply to it.
    pub skipped: Vec<Skipped>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.passed {
            writeln!(f, "held     {:<32} {}", check.name, check.about)?;
        }
        for Skipped { check, reason } in &self.skipped {
            writeln!(f, "skipped  {:<32} {reason}", check.name)?;
        }
        write!(f, "`{}`: {} checks held, {} skipped", self.env, self.passed.len(), self.skipped.len())
    }
}

/// A check that does not apply to an environment.
#[derive(Debug, Clone)]
pub struct Skipped {
    /// The check.
    pub check: Check,
    /// Why it does not apply.
    pub reason: String,
}

/// One broken clause of the contract.
#[derive(Debug, Clone, PartialEq)]
pub struct Violation {
    /// The check's name.
    pub check: &'static str,
    /// The environment's name.
    pub env: String,
    /// Steps taken since the first reset, if the fault shows at one.
    pub step: Option<usize>,
    /// What was found, with values.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` breaks {}", self.env, self.check)?;
        if let Some(step) = self.step {
            write!(f, " at step {step}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// Everything that is wrong with one environment; never empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Violations(pub Vec<Violation>);

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(Violation::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Violations {}
