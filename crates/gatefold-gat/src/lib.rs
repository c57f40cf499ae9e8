//! Graph attention: layers, encoder and readout.
//!
//! [`GraphEncoder`] turns a static graph and the current activations of its nodes into one vector.
//! See [`GatConfig`] for its settings.

mod config;
mod distinct;
mod draws;
mod dropped_attention;
mod edge_table;
mod encoder;
mod layer;
mod norm_clip;
mod statistics;
mod topology;

pub use config::{Attention, AttentionTemperature, GatConfig, Heads};
pub use draws::GraphDraws;
pub use encoder::{GraphEncoder, GraphEncoding, Readout};
pub use layer::{Attended, GatLayer};
pub use statistics::LayerStatistics;
