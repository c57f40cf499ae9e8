//! What an environment is: the trait, its spec, batched stepping and the conformance check.
//!
//! Implement [`Environment`] in one file, name it with an [`EnvEntry`], run `conformance::check`
//! in its test. [`Batch`] steps many copies at once and writes observations straight into the
//! caller's buffers. There are no tensors here.

mod batch;
mod clones;
pub mod conformance;
mod entry;
mod environment;
mod error;
mod observation;
mod run;
mod single;
mod slot;
mod spec;
mod stream;

pub use batch::{BatchEnv, BatchPart, Episode, StepResults};
pub use clones::Batch;
pub use entry::{EnvEntry, NoOptions, Params};
pub use environment::{Action, Environment, EpisodeEnd, Transition};
pub use error::EnvError;
pub use observation::{ObservationBatch, ObservationBatchMut, ObservationView};
pub use single::Single;
pub use spec::{ActionSpace, EnvSpec};
pub use stream::{Purpose, StreamRng, sibling, stream};
