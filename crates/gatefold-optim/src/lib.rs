//! Optimizers and global-norm clipping.

mod config;

pub use config::OptimizerConfig;
