//! Proximal policy optimisation: rollout, buffer, GAE, losses, update.

mod config;

pub use config::{LoadBalance, LossConfig, PpoConfig, PpoError, RewardConfig, RewardScaling, ValueLoss};
