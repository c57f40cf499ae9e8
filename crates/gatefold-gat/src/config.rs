//! Settings of the graph encoder.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the heads of one attention layer are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Heads {
    /// Heads of width hidden / heads, side by side.
    Concatenate,
    /// Heads of full width, averaged.
    Average,
}

/// Settings of the graph encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GatConfig {
    /// Width of the node vectors, in units. Must be a multiple of `heads` when heads are concatenated.
    #[schemars(range(min = 1, max = 4096))]
    pub hidden: usize,
    /// Depth of the encoder, in attention layers.
    #[schemars(range(min = 1, max = 16))]
    pub layers: usize,
    /// Width of attention in each layer, in heads.
    #[schemars(range(min = 1, max = 64))]
    pub heads: usize,
    /// How the heads are put together.
    pub combine: Heads,
}

impl Default for GatConfig {
    fn default() -> Self {
        Self { hidden: 64, layers: 2, heads: 4, combine: Heads::Concatenate }
    }
}

impl GatConfig {
    /// What is wrong with these settings, as `key = value: what would be accepted`.
    pub fn validate(&self) -> Result<(), String> {
        if self.combine == Heads::Concatenate && !self.hidden.is_multiple_of(self.heads) {
            return Err(format!(
                "hidden = {}: must be a multiple of heads = {} when heads are concatenated",
                self.hidden, self.heads
            ));
        }
        Ok(())
    }

    /// Width of one head.
    pub(crate) fn head_width(&self) -> usize {
        match self.combine {
            Heads::Concatenate => self.hidden / self.heads,
            Heads::Average => self.hidden,
        }
    }
}
