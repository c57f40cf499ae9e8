//! Settings of the PPO update, its auxiliary losses and the reward scaling.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How far predicted values are from returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ValueLoss {
    /// Mean squared error.
    Mse,
    /// Huber loss with threshold 1: quadratic near 0, linear beyond.
    Huber,
}

/// Settings of the rollout and the PPO update.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PpoConfig {
    /// Length of a rollout, in steps of each environment.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub num_steps: usize,
    /// Length of an update, in passes over the rollout.
    #[schemars(range(min = 1, max = 1000))]
    pub epochs: usize,
    /// Size of a minibatch, in rows of the rollout, of which there are num_steps x num_envs; sizes in one
    /// epoch differ by at most one.
    #[schemars(range(min = 2))]
    pub minibatch: usize,
    /// Discount per step, dimensionless.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gamma: f32,
    /// Lambda of the generalised advantage estimate, dimensionless.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gae_lambda: f32,
    /// Half-width of the trusted ratio band, dimensionless. PPO paper, section 6.1.
    #[schemars(range(min = 0.001, max = 1.0))]
    pub clip: f32,
    /// Half-width of the band around the old value that a value may move to, in units of scaled
    /// reward; 0 is off. Mse only.
    #[schemars(range(min = 0.0))]
    pub value_clip: f32,
    /// Largest magnitude of the predicted values that advantages and value targets are made of, in units
    /// of scaled rewards; 0 is off.
    #[schemars(range(min = 0.0))]
    pub value_clamp: f32,
    /// How far predicted values are from returns.
    pub value_loss: ValueLoss,
    /// Weight of the mean squared value error in the loss, dimensionless.
    #[schemars(range(min = 0.0))]
    pub value_coef: f32,
    /// Scale advantages to mean 0 and standard deviation 1 within each minibatch.
    pub normalize_advantages: bool,
    /// Global gradient norm above which gradients are scaled down, dimensionless; 0 is off.
    #[schemars(range(min = 0.0))]
    pub max_grad_norm: f32,
    /// Stop the epochs of an iteration once approx_kl exceeds this, in nats; 0 is off.
    #[schemars(range(min = 0.0))]
    pub target_kl: f32,
}

impl Default for PpoConfig {
    fn default() -> Self {
        Self {
            num_steps: 128,
            epochs: 4,
            minibatch: 256,
            gamma: 0.995,
            gae_lambda: 0.97,
            clip: 0.15,
            value_clip: 0.0,
            value_clamp: 0.0,
            value_loss: ValueLoss::Mse,
            value_coef: 0.5,
            normalize_advantages: true,
            max_grad_norm: 1.0,
            target_kl: 0.0,
        }
    }
}

/// How rewards are brought to unit scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RewardScaling {
    /// Divide by the running standard deviation of discounted returns.
    Returns,
    /// Subtract the running mean of rewards and divide by their standard deviation.
    Standardize,
    /// Leave rewards as they are.
    Off,
}

/// Settings of the reward scaling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RewardConfig {
    /// How rewards are brought to unit scale.
    pub scaling: RewardScaling,
    /// Scaled rewards are clipped to this magnitude, dimensionless; 0 is off. Ignored when scaling is off.
    #[schemars(range(min = 0.0))]
    pub clip: f32,
}

impl Default for RewardConfig {
    fn default() -> Self {
        Self { scaling: RewardScaling::Returns, clip: 10.0 }
    }
}

/// Which quantity the load-balance loss holds even.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LoadBalance {
    /// Squared distance of the mean routing probability from 1/K.
    Mse,
    /// Switch Transformer: selected fraction times mean routing probability.
    Switch,
    /// No loss: a bias for each expert, added where top-k selects, moves by 0.001 once per iteration
    /// against the rollout's load (DeepSeek-V3). Needs top-k routing.
    Bias,
}

/// What PET, the penalty on second differences in time, acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PetTarget {
    /// The actor's encoding of the observation.
    HObs,
    /// The router's gates.
    Gates,
}

/// Settings of the auxiliary losses. Their coefficients belong to the curriculum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LossConfig {
    /// Which quantity the load-balance loss holds even.
    pub load_balance: LoadBalance,
    /// How much of each minibatch all experts are compared on, and the spread of graph attention is
    /// taken on, in rows.
    #[schemars(range(min = 1))]
    pub compared_rows: usize,
    /// Temperature of the operator scores that the alignment loss makes its target of, dimensionless.
    #[schemars(range(min = 0.01, max = 100.0))]
    pub alignment_temperature: f32,
    /// What PET, the penalty on second differences in time, acts on.
    pub pet_on: PetTarget,
    /// Size beyond which a second difference counts linearly (Huber), in units of what PET acts on; 0
    /// squares them all.
    #[schemars(range(min = 0.0))]
    pub pet_huber: f32,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            load_balance: LoadBalance::Mse,
            compared_rows: 32,
            alignment_temperature: 1.0,
            pet_on: PetTarget::HObs,
            pet_huber: 0.0,
        }
    }
}

/// Rows of the largest rollout that is held in memory.
const MOST_ROWS: usize = 1 << 24;

/// Settings that contradict each other.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("[ppo] {0}")]
pub struct PpoError(pub String);

impl PpoConfig {
    /// Fails with the key, the value and what would be accepted.
    pub fn validate(&self, num_envs: usize) -> Result<(), PpoError> {
        let rows = self.num_steps.saturating_mul(num_envs);
        if rows > MOST_ROWS {
            return Err(PpoError(format!(
                "num_steps = {}: with num_envs = {num_envs} a rollout has {rows} rows; at most {MOST_ROWS} fit",
                self.num_steps
            )));
        }
        if self.minibatch < 2 || self.minibatch > rows {
            return Err(PpoError(format!(
                "minibatch = {}: need 2..={rows} (num_steps = {} x num_envs = {num_envs})",
                self.minibatch, self.num_steps
            )));
        }
        if self.value_clip > 0.0 && self.value_loss == ValueLoss::Huber {
            return Err(PpoError(format!(
                "value_clip = {}: clipping goes with value_loss = \"mse\"; set value_clip = 0",
                self.value_clip
            )));
        }
        Ok(())
    }
}
