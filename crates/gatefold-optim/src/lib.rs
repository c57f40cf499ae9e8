//! Optimizers, global-norm clipping and the parameters as named data.
//!
//! [`AdamW`] steps a whole module in one walk; [`export`] and [`import`] turn a module's parameters
//! into [`NamedTensor`]s and back, bit for bit.

mod adamw;
mod config;
mod flat;
mod gradients;
mod parameters;
#[cfg(feature = "chaos")]
pub mod probe;

pub use adamw::{AdamW, Step};
pub use config::OptimizerConfig;
pub use flat::FlatMoments;
pub use gradients::Gradients;
pub use parameters::{NamedTensor, ParameterError, count, export, first_non_finite, import};
