//! The curriculum's decisions as metrics.

use gatefold_curriculum::Plan;

use crate::{Metrics, names};

/// Phase, temperature and blend of an iteration's plan. The blend is absent where neither softmax nor
/// sparsemax routes.
pub fn plan_metrics(plan: &Plan) -> Metrics {
    let mut metrics = Metrics::new();
    metrics.set(names::CURRICULUM_PHASE, plan.phase.index() as f64);
    metrics.set(names::CURRICULUM_TEMPERATURE, f64::from(plan.temperature));
    if let Some(blend) = plan.routing.blend() {
        metrics.set(names::CURRICULUM_BLEND, f64::from(blend));
    }
    metrics
}

#[cfg(test)]
mod tests {
    use gatefold_curriculum::{Coefficients, LearningRate, Phase, Routing};

    use super::*;

    #[test]
    fn a_plan_reports_phase_temperature_and_blend() {
        let mut plan = Plan {
            phase: Phase::Transition,
            routing: Routing::Blend { weight: 0.25 },
            temperature: 0.875,
            coefficients: Coefficients::default(),
            learning_rate: LearningRate::constant(1e-4),
        };
        let expected = [
            (names::CURRICULUM_PHASE, 1.0),
            (names::CURRICULUM_TEMPERATURE, 0.875),
            (names::CURRICULUM_BLEND, 0.25),
        ];
        assert_eq!(plan_metrics(&plan).iter().collect::<Vec<_>>(), expected);
        plan.routing = Routing::Dense;
        assert_eq!(plan_metrics(&plan).iter().collect::<Vec<_>>(), expected[..2]);
    }
}
