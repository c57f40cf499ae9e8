//! Routings as the user names them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plan::Routing;

/// A routing that does not move within its phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FixedRouting {
    /// Every expert has a positive gate.
    Softmax,
    /// Most gates are exactly 0.
    Sparsemax,
    /// Sparse like sparsemax, smoother at its edge.
    Entmax15,
    /// The `curriculum.top_k` experts with the largest scores.
    TopK,
    /// One expert by scores plus Gumbel noise, learned straight-through.
    Gumbel,
    /// Every gate 1/K, whatever the router says.
    Uniform,
    /// One expert drawn at random for each decision, whatever the router says.
    Random,
    /// One expert, no router.
    Dense,
}

impl FixedRouting {
    /// The routing of that name; `top_k` is the number of experts that `top-k` keeps.
    pub fn routing(self, top_k: usize) -> Routing {
        match self {
            Self::Softmax => Routing::Softmax,
            Self::Sparsemax => Routing::Sparsemax,
            Self::Entmax15 => Routing::Entmax15,
            Self::TopK => Routing::TopK { k: top_k },
            Self::Gumbel => Routing::Gumbel,
            Self::Uniform => Routing::Uniform,
            Self::Random => Routing::Random,
            Self::Dense => Routing::Dense,
        }
    }
}

/// Whether the schedule moves the routing or a study holds it fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RoutingChoice {
    /// As the phase's table says.
    Curriculum,
    /// Softmax throughout.
    Softmax,
    /// Sparsemax throughout.
    Sparsemax,
    /// Entmax with alpha 1.5 throughout.
    Entmax15,
    /// The `top_k` experts with the largest scores throughout.
    TopK,
    /// One expert by scores plus Gumbel noise throughout.
    Gumbel,
    /// Every gate 1/K throughout.
    Uniform,
    /// One expert drawn at random for each decision throughout.
    Random,
    /// One expert, no router.
    Dense,
}

impl RoutingChoice {
    /// The routing held for the whole run, if any.
    pub(crate) fn held(self, top_k: usize) -> Option<Routing> {
        let fixed = match self {
            Self::Curriculum => return None,
            Self::Softmax => FixedRouting::Softmax,
            Self::Sparsemax => FixedRouting::Sparsemax,
            Self::Entmax15 => FixedRouting::Entmax15,
            Self::TopK => FixedRouting::TopK,
            Self::Gumbel => FixedRouting::Gumbel,
            Self::Uniform => FixedRouting::Uniform,
            Self::Random => FixedRouting::Random,
            Self::Dense => FixedRouting::Dense,
        };
        Some(fixed.routing(top_k))
    }
}
