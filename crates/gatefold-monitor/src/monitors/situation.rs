//! What the judge is told about an iteration beside its metrics.

use gatefold_curriculum::{Phase, Routing};

/// Where a run is and what it routes with: what makes one healthy range differ from another.
#[derive(Debug, Clone, PartialEq)]
pub struct Situation<'a> {
    /// Iterations since the run's start, this one included.
    pub iteration: u64,
    /// Environment steps since the run's start, over all environments.
    pub env_step: u64,
    /// Phase of this iteration's plan.
    pub phase: Phase,
    /// Routing of this iteration's plan.
    pub routing: Routing,
    /// Divisor of the router's logits in this iteration.
    pub temperature: f32,
    /// Names of the experts in play, in order; empty or one without a router. After `fewer-experts` these
    /// are the two that were kept.
    pub experts: &'a [String],
    /// The return that solves the environment, if the run knows it: at or above it nothing stagnates.
    pub target_return: Option<f64>,
    /// The tensor whose gradient norm `train/grad_norm_max_tensor` is.
    pub largest_tensor: Option<&'a str>,
}

impl Situation<'_> {
    /// Number of experts in play, K.
    pub fn num_experts(&self) -> usize {
        self.experts.len()
    }

    /// Whether routing is learned: with one expert, or for dense, uniform and random routing, there is no
    /// verdict about it.
    pub fn routes(&self) -> bool {
        self.num_experts() > 1 && self.routing.learns()
    }

    /// Whether this iteration's routing is sparse by intention: fine-tune with gates that can be 0.
    pub(crate) fn sparse_fine_tune(&self) -> bool {
        self.routes() && self.phase == Phase::FineTune && self.routing.skips_in_updates()
    }

    /// `sparsemax, temperature 0.50, fine-tune phase, K = 4`, for evidence.
    pub(crate) fn describe_routing(&self) -> String {
        let routing = match self.routing {
            Routing::Softmax => "softmax".to_string(),
            Routing::Sparsemax => "sparsemax".to_string(),
            Routing::Blend { weight } => format!("blend with sparsemax {weight:.2}"),
            other => format!("{other:?}").to_lowercase(),
        };
        format!(
            "{routing}, temperature {:.2}, {} phase, K = {}",
            self.temperature,
            self.phase,
            self.num_experts()
        )
    }
}
