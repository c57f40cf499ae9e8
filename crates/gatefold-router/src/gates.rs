//! From scores to gates.

use burn::tensor::{Bool, Int, Tensor, backend::Backend};
use gatefold_curriculum::Routing;
use gatefold_ops::{AllMasked, OpsBackend, entmax15, softmax, sparsemax};

use crate::select_top_k;

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
    /// What the routing drew or selected `[B, K]`, for `top_k` (the selection, 0 or 1), `gumbel` (the
    /// noise) and `random` (the gates). A rollout stores it, and its update passes it to [`route`]
    /// again: otherwise the ratio would not start at 1.
    pub drawn: Option<Tensor<B, 2>>,
}

impl<B: Backend> Gates<B> {
    /// Where alpha is above 0 `[B, K]`: the experts that act.
    pub fn support(&self) -> Tensor<B, 2, Bool> {
        self.alpha.clone().greater_elem(0.0)
    }
}

/// Turns logits `[B, K]` into gates.
///
/// - `softmax`: `softmax(z / tau)`; `sparsemax`: `sparsemax(z / tau)`; `entmax15`: `entmax15(z / tau)`
/// - `blend(w)`: `(1 - w) softmax(z / tau) + w sparsemax(z / tau)`
/// - `top_k`: softmax over the selected experts, exactly 0 elsewhere. `drawn` is the selection; `None`
///   selects the largest logits now (with balance biases call [`select_top_k`] for it).
/// - `gumbel`: 1 for the largest `z + g`, 0 elsewhere, with the gradient of `softmax((z + g) / tau)`
///   (straight-through, Jang et al. 2017). `drawn` is the noise g.
/// - `random`: `drawn` itself, which has no gradient
/// - `uniform` and `dense`: `1 / K` whatever the logits (for one expert that is 1)
///
/// The others draw nothing and ignore `drawn`. Panics unless `temperature > 0`, and if `gumbel` or
/// `random` is not given what was drawn.
pub fn route<B: OpsBackend>(
    logits: Tensor<B, 2>,
    routing: Routing,
    temperature: f32,
    drawn: Option<Tensor<B, 2>>,
) -> Gates<B> {
    assert!(temperature > 0.0, "temperature {temperature} must be above 0");
    let [_, num_experts] = logits.dims();
    if let Some(drawn) = &drawn {
        assert_eq!(drawn.dims(), logits.dims(), "what was drawn for {routing:?} routing has another shape");
    }
    let probabilities = softmax(logits.clone() / temperature);
    // No row of logits that the network made finite is all masked. If it did not, NaN gates lead to
    // the numerical guard, which discards the update; a panic would end the run.
    let or_nan = |alpha: Result<Tensor<B, 2>, AllMasked>| {
        alpha.unwrap_or_else(|AllMasked { .. }| probabilities.full_like(f32::NAN))
    };
    let (alpha, drawn) = match routing {
        Routing::Softmax => (probabilities.clone(), None),
        Routing::Sparsemax => (or_nan(sparsemax(logits.clone(), temperature)), None),
        Routing::Entmax15 => (or_nan(entmax15(logits.clone(), temperature)), None),
        Routing::Blend { weight } => {
            let sparse = or_nan(sparsemax(logits.clone(), temperature));
            (probabilities.clone() * (1.0 - weight) + sparse * weight, None)
        }
        Routing::TopK { k } => {
            let selected = drawn.unwrap_or_else(|| select_top_k(&logits, k, None)).detach();
            let outside = selected.clone().equal_elem(0.0);
            (softmax(logits.clone().mask_fill(outside, f32::NEG_INFINITY) / temperature), Some(selected))
        }
        Routing::Gumbel => {
            let noise = drawn.expect("gumbel routing is given its noise").detach();
            (straight_through(logits.clone() + noise.clone(), temperature), Some(noise))
        }
        Routing::Random => {
            let gates = drawn.expect("random routing is given its gates").detach();
            (gates.clone(), Some(gates))
        }
        Routing::Uniform | Routing::Dense => (probabilities.full_like(1.0 / num_experts as f32), None),
        other => unreachable!("{other:?} has no routing function"),
    };
    Gates { logits, alpha, probabilities, drawn }
}

/// Exactly 1 at the largest score and 0 elsewhere, with the gradient of `softmax(scores / tau)`.
fn straight_through<B: Backend>(scores: Tensor<B, 2>, temperature: f32) -> Tensor<B, 2> {
    let [rows, num_experts] = scores.dims();
    let best = scores.clone().detach().argmax(1).expand([rows, num_experts]);
    let experts = Tensor::<B, 1, Int>::arange(0..num_experts as i64, &scores.device());
    let soft = softmax(scores / temperature);
    let hard = experts.unsqueeze::<2>().expand([rows, num_experts]).equal(best).float().cast(soft.dtype());
    hard + (soft.clone() - soft.detach()) // x - x is 0, or NaN
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::TensorData;

    type Train = Autodiff<Flex>;

    fn alpha(logits: &[f32], routing: Routing, temperature: f32) -> Vec<f32> {
        let data = TensorData::new(logits.to_vec(), [1, logits.len()]);
        let logits = Tensor::<Flex, 2>::from_data(data, &Default::default());
        route(logits, routing, temperature, None).alpha.into_data().to_vec().unwrap()
    }

    #[test]
    fn each_routing_has_its_closed_form() {
        let soft = |x: f32| [1.0 / (1.0 + (-x).exp()), 1.0 / (1.0 + x.exp())];
        let cases = [
            (Routing::Softmax, 1.0, soft(0.5)),
            (Routing::Softmax, 0.5, soft(1.0)),
            (Routing::Sparsemax, 1.0, [0.75, 0.25]),
            (Routing::Sparsemax, 0.5, [1.0, 0.0]),
            (Routing::Entmax15, 1.0, [0.673_992_6, 0.326_007_4]),
            (Routing::Entmax15, 0.25, [1.0, 0.0]),
            (Routing::TopK { k: 1 }, 1.0, [1.0, 0.0]),
            (Routing::TopK { k: 2 }, 0.5, soft(1.0)),
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
        let blend = Routing::Blend { weight: 0.3 };
        let top = Routing::TopK { k: 2 };
        for routing in [Routing::Softmax, Routing::Sparsemax, blend, Routing::Entmax15, top] {
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
        let (blend, top) = (Routing::Blend { weight: 0.5 }, Routing::TopK { k: 2 });
        for routing in [Routing::Softmax, Routing::Sparsemax, blend, Routing::Entmax15, top] {
            assert_ne!(alpha(&[0.3, 0.0], routing, 1.0), alpha(&[0.3, 0.0], routing, 0.5), "{routing:?}");
        }
    }

    fn rows<B: Backend>(values: &[f32], num_experts: usize) -> Tensor<B, 2> {
        let data = TensorData::new(values.to_vec(), [values.len() / num_experts, num_experts]);
        Tensor::from_data(data, &Default::default())
    }

    fn host<B: Backend>(t: Tensor<B, 2>) -> Vec<f32> {
        t.into_data().to_vec().unwrap()
    }

    /// Gates, and the gradient of `sum(upstream * alpha)` by the logits.
    fn with_gradient(
        logits: &[f32],
        upstream: &[f32],
        routing: Routing,
        temperature: f32,
        drawn: Option<&[f32]>,
    ) -> (Vec<f32>, Option<Vec<f32>>) {
        let (k, z) = (logits.len(), rows::<Train>(logits, logits.len()).require_grad());
        let gates = route(z.clone(), routing, temperature, drawn.map(|drawn| rows(drawn, k)));
        let loss = (gates.alpha.clone() * rows(upstream, k)).sum() + (gates.logits * 0.0).sum();
        let grads = loss.backward();
        (host(gates.alpha.inner()), z.grad(&grads).map(host))
    }

    /// Softmax and the gradient of `sum(upstream * softmax)` by z, in f64.
    fn soft(z: &[f64], upstream: &[f32], temperature: f64) -> (Vec<f64>, Vec<f64>) {
        let weights: Vec<f64> = z.iter().map(|z| (z / temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        let p: Vec<f64> = weights.iter().map(|w| w / total).collect();
        let mean: f64 = p.iter().zip(upstream).map(|(p, &u)| p * f64::from(u)).sum();
        let d = p.iter().zip(upstream).map(|(p, &u)| p * (f64::from(u) - mean) / temperature).collect();
        (p, d)
    }

    #[track_caller]
    fn assert_near(got: &[f32], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        for (g, e) in got.iter().zip(expected) {
            assert!((f64::from(*g) - e).abs() < 1e-6, "{got:?}, not {expected:?}");
        }
    }

    #[test]
    fn top_k_is_the_softmax_of_the_selected_experts_and_has_its_gradient() {
        let (logits, upstream) = ([0.5, -1.0, 0.2, 0.3], [1.0, 5.0, -2.0, 0.5]);
        let top = Routing::TopK { k: 2 };
        let (p, d) = soft(&[0.5, 0.3], &[1.0, 0.5], 0.7);
        let (alpha, gradient) = with_gradient(&logits, &upstream, top, 0.7, None);
        assert_near(&alpha, &[p[0], 0.0, 0.0, p[1]]);
        assert_near(&gradient.unwrap(), &[d[0], 0.0, 0.0, d[1]]);
        assert_eq!((alpha[1], alpha[2]), (0.0, 0.0));
        // What the rollout selected decides, whatever the logits say now.
        let (p, d) = soft(&[-1.0, 0.2], &[5.0, -2.0], 0.7);
        let (alpha, gradient) = with_gradient(&logits, &upstream, top, 0.7, Some(&[0.0, 1.0, 1.0, 0.0]));
        assert_near(&alpha, &[0.0, p[0], p[1], 0.0]);
        assert_near(&gradient.unwrap(), &[0.0, d[0], d[1], 0.0]);
    }

    #[test]
    fn what_top_k_selected_gives_the_same_gates_again() {
        let z: Vec<f32> = (0..40).map(|i| (i as f32 * 1.7).sin()).collect();
        let top = Routing::TopK { k: 3 };
        let first = route(rows::<Flex>(&z, 5), top, 0.5, None);
        let again = route(rows::<Flex>(&z, 5), top, 0.5, first.drawn.clone());
        assert_eq!(host(first.drawn.unwrap()).iter().sum::<f32>(), 24.0);
        assert_eq!(host(first.alpha), host(again.alpha));
    }

    #[test]
    fn gumbel_gates_are_exactly_one_hot_with_the_gradient_of_the_softmax() {
        let (logits, noise, upstream) = ([0.5, -1.0, 0.2], [-0.3, 1.9, 0.1], [1.0, -0.5, 2.0]);
        let (alpha, gradient) = with_gradient(&logits, &upstream, Routing::Gumbel, 0.6, Some(&noise));
        assert_eq!(alpha, [0.0, 1.0, 0.0]);
        let sums: Vec<f64> = logits.iter().zip(noise).map(|(&z, g)| f64::from(z) + f64::from(g)).collect();
        assert_near(&gradient.unwrap(), &soft(&sums, &upstream, 0.6).1);
        let tied = route(rows::<Flex>(&[1.0, 2.0, 2.0], 3), Routing::Gumbel, 1.0, Some(rows(&[0.0; 3], 3)));
        assert_eq!(host(tied.alpha), [0.0, 1.0, 0.0]);
    }

    #[test]
    fn random_gates_are_taken_as_drawn_and_give_the_router_no_gradient() {
        let drawn = [0.0, 0.0, 1.0];
        let (alpha, gradient) =
            with_gradient(&[3.0, 2.0, 1.0], &[1.0, 2.0, 3.0], Routing::Random, 1.0, Some(&drawn));
        assert_eq!(alpha, drawn);
        assert_eq!(gradient.unwrap(), [0.0; 3]);
    }

    #[test]
    fn the_support_is_where_gates_are_above_zero() {
        let gates = route(rows::<Flex>(&[0.5, 0.3, -4.0], 3), Routing::Sparsemax, 1.0, None);
        assert_eq!(gates.support().into_data().iter::<bool>().collect::<Vec<_>>(), [true, true, false]);
    }

    #[test]
    fn logits_that_are_not_finite_make_gates_that_are_not() {
        let (nan, inf) = (f32::NAN, f32::NEG_INFINITY);
        let noise = Some(rows::<Flex>(&[0.1, 0.2, 0.3], 3));
        for logits in [[nan, 0.0, 1.0], [inf; 3]] {
            for (routing, drawn) in [
                (Routing::Softmax, None),
                (Routing::Sparsemax, None),
                (Routing::Entmax15, None),
                (Routing::Blend { weight: 0.5 }, None),
                (Routing::TopK { k: 2 }, None),
                (Routing::Gumbel, noise.clone()),
            ] {
                let alpha = host(route(rows::<Flex>(&logits, 3), routing, 1.0, drawn).alpha);
                assert!(alpha.iter().any(|gate| gate.is_nan()), "{routing:?} of {logits:?}: {alpha:?}");
            }
        }
    }
}
