//! Settings of the optimizer. Learning rates belong to the curriculum.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// AdamW (Loshchilov & Hutter 2019); Adam when `weight_decay` is 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Decay of the mean of gradients, dimensionless.
    #[schemars(range(min = 0.0, max = 0.9999))]
    pub beta1: f32,
    /// Decay of the mean of squared gradients, dimensionless.
    #[schemars(range(min = 0.0, max = 0.999999))]
    pub beta2: f32,
    /// Added to the root of the second moment, in units of the gradient.
    #[schemars(range(min = 1e-12, max = 1.0))]
    pub eps: f32,
    /// Decoupled weight decay per unit of learning rate, dimensionless.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub weight_decay: f32,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-5, weight_decay: 0.0 }
    }
}
