//! Graph attention: layers, encoder and readout.

mod config;

pub use config::{GatConfig, Heads};
