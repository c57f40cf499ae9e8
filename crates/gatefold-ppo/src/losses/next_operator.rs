//! What the graph vector knows of the next step: which operators will be active.

use burn::tensor::{Tensor, activation, backend::Backend};

use super::segments::pick;
use crate::collect::to_host;

// B minibatch, O operators

/// Binary cross-entropy between a prediction at step t and the operators' activations at t + 1, the
/// mean over operators and pairs of rows of one episode ([`adjacent_pairs`](super::adjacent_pairs)).
///
/// `logits` `[B, O]` come from a head on `h_graph` of the same row; `activations` `[B, O]`, in
/// [0, 1], are each row's own. Computed from logits, so it is finite for any finite ones.
/// Exactly 0, without gradient, where there is no pair.
pub fn next_operator<B: Backend>(
    logits: Tensor<B, 2>,
    activations: Tensor<B, 2>,
    [first, second]: &[Vec<usize>; 2],
) -> Tensor<B, 1> {
    assert_eq!(logits.dims(), activations.dims(), "one activation per prediction");
    if first.is_empty() {
        return Tensor::zeros([1], &logits.device());
    }
    let predicted = pick(&logits, first);
    let off = pick(&activations.detach(), second).neg() + 1.0; // 1 - y
    // -y ln s(x) - (1 - y) ln(1 - s(x)) = (1 - y) x - ln s(x)
    (off * predicted.clone() - activation::log_sigmoid(predicted)).mean()
}

/// How well the next activations are predicted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NextOperatorStatistics {
    /// Share of predictions on the right side of one half.
    pub accuracy: f64,
    /// Share of next activations of at least one half: always saying "off" is right in the rest.
    pub base_rate: f64,
}

/// Of the same arguments as [`next_operator`]; `None` where there is no pair. Reads from the device.
pub fn next_operator_statistics<B: Backend>(
    logits: &Tensor<B, 2>,
    activations: &Tensor<B, 2>,
    [first, second]: &[Vec<usize>; 2],
) -> Option<NextOperatorStatistics> {
    let [_, operators] = logits.dims();
    let (logits, activations) = (to_host(logits.clone()), to_host(activations.clone()));
    let count = first.len() * operators;
    let (mut right, mut on) = (0u64, 0u64);
    for (&now, &next) in first.iter().zip(second) {
        for operator in 0..operators {
            let active = activations[next * operators + operator] >= 0.5;
            on += u64::from(active);
            right += u64::from((logits[now * operators + operator] >= 0.0) == active);
        }
    }
    (count > 0).then(|| NextOperatorStatistics {
        accuracy: right as f64 / count as f64,
        base_rate: on as f64 / count as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::adjacent_pairs;
    use crate::losses::probe::{Train, assert_close, probe, tensor};
    use crate::losses::segments::segment_rows;

    fn of(logits: &[f32], activations: &[f32], pairs: &[Vec<usize>; 2]) -> (f32, Vec<f32>) {
        let shape = [logits.len(), 1];
        probe(logits, shape, |logits| next_operator(logits, tensor(activations, shape), pairs))
    }

    #[test]
    fn a_row_is_compared_with_the_activations_of_the_next_row_of_its_episode() {
        let ln3 = 3f32.ln();
        let pairs = adjacent_pairs(&segment_rows(&[(0, false), (0, true), (0, false), (1, false)]));
        let (value, grad) = of(&[ln3, 50.0, 50.0, 50.0], &[0.5, 1.0, 0.0, 0.0], &pairs);
        assert_close(&[value], &[(4f32 / 3.0).ln()]); // sigmoid(ln 3) = 3/4, active
        assert_close(&grad, &[-0.25, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn the_gradient_is_the_error_also_at_a_logit_of_zero_and_at_huge_ones() {
        let pairs = [vec![0, 1, 2], vec![0, 1, 2]];
        let (value, grad) = of(&[0.0, 1000.0, -1000.0], &[0.25, 1.0, 1.0], &pairs);
        assert_close(&[value], &[(2f32.ln() + 0.0 + 1000.0) / 3.0]);
        assert_close(&grad, &[0.25 / 3.0, 0.0, -1.0 / 3.0]);
    }

    #[test]
    fn without_a_pair_value_gradient_and_statistics_are_absent() {
        let none = adjacent_pairs(&segment_rows(&[(0, true), (0, true)]));
        assert_eq!(of(&[3.0, 1.0], &[1.0, 0.0], &none), (0.0, vec![0.0; 2]));
        let two = || tensor::<Train, 2>(&[3.0, 1.0], [2, 1]);
        assert_eq!(next_operator_statistics(&two(), &two(), &none), None);
    }

    #[test]
    fn statistics_count_right_predictions_and_active_operators() {
        let logits = tensor::<Train, 2>(&[2.0, -1.0, 1.0, -3.0], [2, 2]);
        let activations = tensor::<Train, 2>(&[0.0, 0.0, 0.9, 1.0], [2, 2]);
        let statistics = next_operator_statistics(&logits, &activations, &[vec![0], vec![1]]);
        assert_eq!(statistics, Some(NextOperatorStatistics { accuracy: 0.5, base_rate: 1.0 }));
    }
}
