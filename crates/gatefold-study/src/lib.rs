//! Studies: arms times seeds as processes, and comparisons with bootstrap intervals.
//!
//! A [`StudyFile`] names a base experiment, seeds and arms. [`Study::plan`] resolves every run, and
//! [`Study::sit`] carries out what is left of them, a process each.
//!
//! [`find_arms`] and [`compare`] turn run directories into a [`Comparison`], whose `Display` is the
//! table that `gatefold compare` prints. [`statistics`] and [`bootstrap`] hold the numbers, equal to
//! those of the package rliable. Nothing here prints.

pub mod bootstrap;
mod comparison;
mod error;
mod plan;
mod runs;
mod sitting;
pub mod statistics;
mod study_file;
mod table;

pub use comparison::{ArmResult, Comparison, Estimate, Question, RunScore, compare};
pub use error::{ArmError, FileError, StudyError};
pub use plan::{Job, JobState, Study};
pub use runs::{Arm, DEFAULT_METRIC, Run, find_arms};
pub use sitting::{FailedRun, Outcome, Shares, StudyEvent};
pub use study_file::{ArmSettings, Common, StudyFile};
