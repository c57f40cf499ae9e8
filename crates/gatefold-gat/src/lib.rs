//! Graph attention: layers, encoder and readout.
//!
//! [`GraphEncoder`] turns a static graph and the current activations of its nodes into one vector.
//! See [`GatConfig`] for its settings.

mod config;
mod encoder;
mod layer;
mod statistics;
mod topology;

pub use config::{GatConfig, Heads};
pub use encoder::{GraphEncoder, GraphEncoding};
pub use layer::GatLayer;
pub use statistics::LayerStatistics;
