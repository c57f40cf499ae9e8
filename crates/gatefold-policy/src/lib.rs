//! The composition: encoder, graph attention, router, experts and critic.

mod config;

pub use config::{Architecture, Nonlinearity, PolicyConfig, PolicyError};
