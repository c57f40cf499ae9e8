//! Whether routing follows the graph: the experts whose operators score high should be chosen.

use burn::tensor::{Bool, Tensor, TensorData, activation, backend::Backend};

use crate::collect::to_host;

// B minibatch, T operators, K experts

/// Which operators of a knowledge graph belong to which expert.
#[derive(Debug, Clone)]
pub struct ExpertOperators<B: Backend> {
    mean: Tensor<B, 2>,          // [T, K]: 1 / n_k for each of the n_k operators of expert k
    without: Tensor<B, 2, Bool>, // [1, K]: experts without operators
}

impl<B: Backend> ExpertOperators<B> {
    /// From each operator's expert, in the order of the scores; `None` for an operator that belongs
    /// to nobody. No expert with operators leaves nothing to align with: the result is `None`.
    /// Panics if an expert is `num_experts` or more.
    pub fn new(expert_of: &[Option<usize>], num_experts: usize, device: &B::Device) -> Option<Self> {
        let mut counts = vec![0usize; num_experts];
        for &expert in expert_of.iter().flatten() {
            counts[expert] += 1;
        }
        let mut mean = vec![0.0; expert_of.len() * num_experts];
        for (operator, expert) in expert_of.iter().enumerate() {
            if let Some(expert) = *expert {
                mean[operator * num_experts + expert] = 1.0 / counts[expert] as f32;
            }
        }
        let without: Vec<bool> = counts.iter().map(|&n| n == 0).collect();
        let mean = TensorData::new(mean, [expert_of.len(), num_experts]);
        counts.iter().any(|&n| n > 0).then(|| Self {
            mean: Tensor::from_data(mean, device),
            without: Tensor::from_data(TensorData::new(without, [1, num_experts]), device),
        })
    }

    /// What routing should look like, `[B, K]`, without gradient: softmax over the experts that
    /// have operators of their operators' mean score, divided by `temperature` (> 0).
    ///
    /// `scores` is `[B, T]`. An expert without operators gets exactly 0. (Not a score of 0: scores
    /// mean something only relative to each other, and the graph says nothing about that expert.)
    pub fn target(&self, scores: Tensor<B, 2>, temperature: f32) -> Tensor<B, 2> {
        assert!(temperature > 0.0, "temperature {temperature} must be above 0");
        let [rows, _] = scores.dims();
        let [_, num_experts] = self.without.dims();
        let without = self.without.clone().expand([rows, num_experts]);
        let scores = scores.detach().matmul(self.mean.clone()) / temperature; // [B, K]
        let target = activation::softmax(scores.mask_fill(without.clone(), f32::NEG_INFINITY), 1);
        target.mask_fill(without, 0.0)
    }
}

/// `mean_b KL(target_b || softmax(z_b / tau))` in nats; no gradient goes into the target.
///
/// Shapes: `target` `[B, K]`, rows on the simplex, and router logits z `[B, K]`. It acts on
/// `softmax(z / tau)`, so that an expert outside the support can come back, and takes logits, so
/// that value and gradient stay finite where a probability has underflowed.
pub fn alignment<B: Backend>(target: Tensor<B, 2>, logits: Tensor<B, 2>, temperature: f32) -> Tensor<B, 1> {
    assert_eq!(target.dims(), logits.dims(), "one target per router logit");
    assert!(temperature > 0.0, "temperature {temperature} must be above 0");
    let [rows, _] = logits.dims();
    let target = target.detach();
    let log_target = target.clone().mask_fill(target.clone().equal_elem(0.0), 1.0).log();
    let log_probabilities = activation::log_softmax(logits / temperature, 1);
    (target * (log_target - log_probabilities)).sum() / rows as f32
}

/// How clear the graph's advice is, and whether it is followed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AlignmentStatistics {
    /// Mean entropy of the target in nats: ln K advises nothing.
    pub target_entropy: f64,
    /// Share of rows in which the router's first choice has the target's highest probability.
    pub agreement: f64,
}

/// Of `target` and router logits or probabilities, both `[B, K]`. Reads from the device.
pub fn alignment_statistics<B: Backend>(target: &Tensor<B, 2>, logits: &Tensor<B, 2>) -> AlignmentStatistics {
    let [rows, num_experts] = target.dims();
    let (target, logits) = (to_host(target.clone()), to_host(logits.clone()));
    let (mut entropy, mut agreeing) = (0.0, 0u64);
    for (target, logits) in target.chunks_exact(num_experts).zip(logits.chunks_exact(num_experts)) {
        let terms = target.iter().map(|&p| f64::from(p)).filter(|&p| p > 0.0);
        entropy -= terms.map(|p| p * p.ln()).sum::<f64>();
        let first = (0..num_experts).max_by(|&i, &j| logits[i].total_cmp(&logits[j]));
        let chosen = target[first.expect("at least one expert")];
        agreeing += u64::from(target.iter().all(|&p| p <= chosen));
    }
    AlignmentStatistics { target_entropy: entropy / rows as f64, agreement: agreeing as f64 / rows as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::probe::{Train, assert_close, probe, tensor};
    use burn::backend::Flex;

    fn target(expert_of: &[Option<usize>], scores: &[f32], temperature: f32) -> Vec<f32> {
        let operators = ExpertOperators::<Flex>::new(expert_of, 3, &Default::default()).unwrap();
        to_host(operators.target(tensor(scores, [1, scores.len()]), temperature))
    }

    #[test]
    fn the_target_is_the_softmax_of_mean_scores_over_experts_that_have_operators() {
        let expert_of = [Some(0), Some(2), None, Some(0)];
        let scores = [1.0, 1.0, 50.0, 1.0 + 2.0 * 3f32.ln()]; // means 1 + ln 3 and 1
        assert_close(&target(&expert_of, &scores, 1.0), &[0.75, 0.0, 0.25]);
        assert_close(&target(&expert_of, &scores, 0.5), &[0.9, 0.0, 0.1]);
        assert_close(&target(&expert_of, &scores.map(|s| s - 40.0), 1.0), &[0.75, 0.0, 0.25]);
        assert_eq!(target(&[Some(1)], &[-3.0], 1.0), [0.0, 1.0, 0.0]);
    }

    #[test]
    fn a_graph_without_affinities_has_nothing_to_align_with() {
        assert!(ExpertOperators::<Flex>::new(&[None, None], 3, &Default::default()).is_none());
        assert!(ExpertOperators::<Flex>::new(&[], 3, &Default::default()).is_none());
    }

    #[test]
    fn alignment_is_the_divergence_and_its_gradient_is_the_difference() {
        let of = |expected: [f32; 2], z: [f32; 2], tau| {
            probe(&z, [1, 2], |z| alignment(tensor(&expected, [1, 2]), z, tau))
        };
        let (value, grad) = of([1.0, 0.0], [0.0, 0.0], 1.0);
        assert_close(&[value], &[2f32.ln()]);
        assert_close(&grad, &[-0.5, 0.5]);
        let (value, grad) = of([0.75, 0.25], [0.5 * 3f32.ln(), 0.0], 0.5);
        assert_close(&[value], &[0.0]);
        assert_close(&grad, &[0.0, 0.0]);
    }

    #[test]
    fn an_underflowed_probability_keeps_value_and_gradient_finite() {
        let (value, grad) = probe(&[0.0, 1000.0], [1, 2], |z| alignment(tensor(&[1.0, 0.0], [1, 2]), z, 1.0));
        assert_eq!((value, grad), (1000.0, vec![-1.0, 1.0]));
    }

    #[test]
    fn no_gradient_goes_into_the_scores() {
        let operators = ExpertOperators::<Train>::new(&[Some(0), Some(1)], 2, &Default::default());
        let (value, grad) = probe(&[2.0, -1.0], [1, 2], |scores| {
            let target = operators.as_ref().unwrap().target(scores, 1.0);
            alignment(target, tensor(&[0.3, 0.0], [1, 2]), 1.0)
        });
        assert!(value > 0.0);
        assert_eq!(grad, [0.0, 0.0]);
    }

    #[test]
    fn statistics_tell_clear_from_vague_advice_and_followed_from_ignored() {
        let target = tensor::<Flex, 2>(&[1.0, 0.0, 0.5, 0.5], [2, 2]);
        let of = |logits: &[f32]| alignment_statistics(&target, &tensor(logits, [2, 2]));
        let followed = of(&[2.0, 1.0, 0.0, 9.0]);
        assert!((followed.target_entropy - 0.5 * std::f64::consts::LN_2).abs() < 1e-7);
        assert_eq!((followed.agreement, of(&[0.0, 1.0, 0.0, 9.0]).agreement), (1.0, 0.5));
    }
}
