//! From scores to gates.

use burn::tensor::{Tensor, backend::Backend};
use gatefold_curriculum::Routing;
use gatefold_ops::{OpsBackend, softmax, sparsemax};

/// What the router decided for a batch.
#[derive(Debug, Clone)]
pub struct Gates<B: Backend> {
    /// Router logits z `[B, K]`.
    pub logits: Tensor<B, 2>,
    /// Gates alpha `[B, K]`: on the simplex, exactly 0 outside the support.
    pub alpha: Tensor<B, 2>,
    /// `softmax(z / tau)` `[B, K]`: what balance losses act on, because an expert outside the
    /// support gets no gradient through alpha.
    pub probabilities: Tensor<B, 2>,
}

/// Turns logits `[B, K]` into gates.
///
/// `softmax`: `softmax(z / tau)`; `sparsemax`: `sparsemax(z / tau)`; `blend(w)`:
/// `(1 - w) softmax(z / tau) + w sparsemax(z / tau)`; `uniform` and `dense`: `1 / K` whatever the
/// logits (for one expert that is 1). Panics unless `temperature > 0`.
pub fn route<B: OpsBackend>(logits: Tensor<B, 2>, routing: Routing, temperature: f32) -> Gates<B> {
    assert!(temperature > 0.0, "temperature {temperature} must be above 0");
    let [_, num_experts] = logits.dims();
    let probabilities = softmax(logits.clone() / temperature);
    let alpha = match routing {
        Routing::Softmax => probabilities.clone(),
        Routing::Sparsemax => sparsemax(logits.clone(), temperature),
        Routing::Blend { weight } => {
            let sparse = sparsemax(logits.clone(), temperature);
            probabilities.clone() * (1.0 - weight) + sparse * weight
        }
        Routing::Uniform | Routing::Dense => probabilities.full_like(1.0 / num_experts as f32),
        other => unreachable!("{other:?} has no routing function"),
    };
    Gates { logits, alpha, probabilities }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;
    use burn::tensor::TensorData;

    fn alpha(logits: &[f32], routing: Routing, temperature: f32) -> Vec<f32> {
        let data = TensorData::new(logits.to_vec(), [1, logits.len()]);
        let logits = Tensor::<Flex, 2>::from_data(data, &Default::default());
        route(logits, routing, temperature).alpha.into_data().to_vec().unwrap()
    }

    #[test]
    fn each_routing_has_its_closed_form() {
        let soft = |x: f32| [1.0 / (1.0 + (-x).exp()), 1.0 / (1.0 + x.exp())];
        let cases = [
            (Routing::Softmax, 1.0, soft(0.5)),
            (Routing::Softmax, 0.5, soft(1.0)),
            (Routing::Sparsemax, 1.0, [0.75, 0.25]),
            (Routing::Sparsemax, 0.5, [1.0, 0.0]),
            (Routing::Uniform, 1.0, [0.5, 0.5]),
            (Routing::Blend { weight: 0.0 }, 1.0, soft(0.5)),
            (Routing::Blend { weight: 1.0 }, 1.0, [0.75, 0.25]),
            (Routing::Blend { weight: 0.5 }, 0.5, [(soft(1.0)[0] + 1.0) / 2.0, soft(1.0)[1] / 2.0]),
        ];
        for (routing, temperature, expected) in cases {
            let got = alpha(&[0.5, 0.0], routing, temperature);
            for (g, e) in got.iter().zip(expected) {
                assert!((g - e).abs() < 1e-6, "{routing:?} at {temperature}: {got:?}, not {expected:?}");
            }
        }
        assert_eq!(alpha(&[3.0], Routing::Dense, 1.0), [1.0]);
    }

    #[test]
    fn permuting_experts_permutes_gates() {
        for routing in [Routing::Softmax, Routing::Sparsemax, Routing::Blend { weight: 0.3 }] {
            let forward = alpha(&[0.1, 0.9, -0.4], routing, 0.7);
            let backward = alpha(&[-0.4, 0.9, 0.1], routing, 0.7);
            for (a, b) in forward.iter().zip(backward.iter().rev()) {
                assert!((a - b).abs() < 1e-6, "{routing:?}: {forward:?} {backward:?}");
            }
        }
    }

    #[test]
    fn sparsemax_is_not_a_top_two_softmax() {
        // The fault: entropy pinned at ln 2 whatever the logits, read as specialisation.
        let gates = alpha(&[5.0, 0.0, 0.0, 0.0], Routing::Sparsemax, 1.0);
        assert_eq!(gates, [1.0, 0.0, 0.0, 0.0]);
        assert_eq!(alpha(&[0.0; 4], Routing::Sparsemax, 1.0), [0.25; 4]);
    }

    #[test]
    fn the_temperature_is_applied() {
        for routing in [Routing::Softmax, Routing::Sparsemax, Routing::Blend { weight: 0.5 }] {
            assert_ne!(alpha(&[0.3, 0.0], routing, 1.0), alpha(&[0.3, 0.0], routing, 0.5), "{routing:?}");
        }
    }
}
