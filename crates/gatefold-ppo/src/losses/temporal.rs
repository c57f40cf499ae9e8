//! How fast gates move in time.

use burn::tensor::{Tensor, backend::Backend};

use super::segments::pick;
use crate::collect::to_host;

// B minibatch, K experts, P pairs

/// `mean_{p,k} (alpha_{t+1,k} - alpha_{t,k})^2` over gates `[B, K]` and pairs of rows of one episode
/// ([`adjacent_pairs`](super::adjacent_pairs)).
///
/// Exactly 0, without gradient, where there is no pair.
pub fn temporal<B: Backend>(alpha: Tensor<B, 2>, [first, second]: &[Vec<usize>; 2]) -> Tensor<B, 1> {
    if first.is_empty() {
        return Tensor::zeros([1], &alpha.device());
    }
    (pick(&alpha, second) - pick(&alpha, first)).square().mean()
}

/// Share of pairs whose rows prefer different experts; `None` where there is no pair. Reads from
/// the device.
pub fn expert_switches<B: Backend>(alpha: &Tensor<B, 2>, [first, second]: &[Vec<usize>; 2]) -> Option<f64> {
    let [_, num_experts] = alpha.dims();
    let gates = to_host(alpha.clone());
    let preferred: Vec<usize> = gates.chunks_exact(num_experts).map(first_largest).collect();
    let switched = first.iter().zip(second).filter(|&(&a, &b)| preferred[a] != preferred[b]).count();
    (!first.is_empty()).then(|| switched as f64 / first.len() as f64)
}

fn first_largest(gates: &[f32]) -> usize {
    (1..gates.len()).fold(0, |best, k| if gates[k] > gates[best] { k } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::adjacent_pairs;
    use crate::losses::probe::{assert_close, probe, tensor};
    use crate::losses::segments::segment_rows;
    use burn::backend::Flex;

    const GATES: [f32; 8] = [1.0, 0.0, 0.5, 0.5, 0.0, 1.0, 0.25, 0.75];

    #[test]
    fn only_pairs_inside_an_episode_cost() {
        let pairs = adjacent_pairs(&segment_rows(&[(0, false), (0, true), (0, false), (0, false)]));
        let (value, grad) = probe(&GATES, [4, 2], |alpha| temporal(alpha, &pairs));
        // Differences (-.5, .5) and (.25, -.25): (2 * .25 + 2 * .0625) / 4
        assert_close(&[value], &[0.15625]);
        assert_close(&grad, &[0.25, -0.25, -0.25, 0.25, -0.125, 0.125, 0.125, -0.125]);
        let alpha = tensor::<Flex, 2>(&GATES, [4, 2]);
        assert_eq!(expert_switches(&alpha, &pairs), Some(0.0));
        assert_eq!(expert_switches(&alpha, &[vec![0, 2], vec![2, 3]]), Some(0.5));
    }

    #[test]
    fn without_a_pair_value_and_gradient_are_exactly_zero() {
        let pairs = adjacent_pairs(&segment_rows(&[(0, true), (0, false), (1, false), (2, false)]));
        let (value, grad) = probe(&GATES, [4, 2], |alpha| temporal(alpha, &pairs));
        assert_eq!((value, grad), (0.0, vec![0.0; 8]));
        assert_eq!(expert_switches(&tensor::<Flex, 2>(&GATES, [4, 2]), &pairs), None);
    }
}
