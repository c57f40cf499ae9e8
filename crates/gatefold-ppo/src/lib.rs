//! Proximal policy optimisation: rollout, buffer, GAE, losses, update.
//!
//! One iteration: [`Collector::collect`] fills a [`Rollout`]; [`RewardScaler::scale`] brings its
//! rewards to unit scale; [`Rollout::into_batch`] adds advantages, in time order; and
//! [`Learner::update`] improves the policy on the [`Batch`].

mod collect;
mod config;
mod evaluate;
mod gae;
pub mod losses;
mod minibatch;
mod objective;
mod reward;
mod rollout;
mod student;
mod update;

pub use collect::{Collector, RolloutError};
pub use config::{
    LoadBalance, LossConfig, PetTarget, PpoConfig, PpoError, RewardConfig, RewardScaling, ValueLoss,
};
pub use gae::advantages;
pub use reward::{RewardScaler, Welford};
pub use rollout::{Batch, Rollout};
pub use update::{Learner, UpdateError, Updated};
