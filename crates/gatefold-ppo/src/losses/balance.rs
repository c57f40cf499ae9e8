//! How evenly the router chooses experts.
//!
//! Balance acts on routing probabilities `softmax(z / tau)`, not on gates: an expert outside the
//! support gets no gradient through its gate, so nothing could bring it back.

use burn::tensor::{Tensor, backend::Backend};

use crate::collect::to_host;

// B minibatch, K experts

/// `mean_k (mean_b p_bk - 1/K)^2` over routing probabilities `softmax(z / tau)` `[B, K]`.
///
/// 0 when every expert is chosen equally often on average.
pub fn load_balance_mse<B: Backend>(probabilities: Tensor<B, 2>) -> Tensor<B, 1> {
    let [_, num_experts] = probabilities.dims();
    (probabilities.mean_dim(0) - 1.0 / num_experts as f32).square().mean()
}

/// `K sum_k f_k mean_b p_bk`, where `f_k = mean_b 1[alpha_bk > 0] / |S_b|` carries no gradient and
/// `S_b` is row b's support.
///
/// Shapes: both `[B, K]`. 1 when even. Source: Fedus et al. 2022, eq. 4, for a varying support.
pub fn load_balance_switch<B: Backend>(probabilities: Tensor<B, 2>, alpha: Tensor<B, 2>) -> Tensor<B, 1> {
    let [_, num_experts] = probabilities.dims();
    let chosen = alpha.detach().greater_elem(0.0).float();
    let fraction = (chosen.clone() / chosen.sum_dim(1)).mean_dim(0); // [1, K]
    (fraction * probabilities.mean_dim(0)).sum() * num_experts as f32
}

/// Squared coefficient of variation of importance: `Var_k(I) / Mean_k(I)^2`, `I_k = sum_b p_bk`,
/// with the population variance.
///
/// Shape `[B, K]`. 0 when even, `K - 1` when one expert has everything. Source: Shazeer et al.
/// 2017, eq. 6 and 7. Differs: importance sums `softmax(z / tau)`, not gates. As those sum to 1
/// in every row, the mean importance is `B / K` and the loss is `K^2` times [`load_balance_mse`]: a
/// unit in which a collapse costs about the number of experts.
pub fn importance<B: Backend>(probabilities: Tensor<B, 2>) -> Tensor<B, 1> {
    let share = probabilities.mean_dim(0); // [1, K]
    let mean = share.clone().mean_dim(1); // [1, 1]
    (share / mean - 1.0).square().mean()
}

/// Who is chosen most and least.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BalanceStatistics {
    /// Share of the expert with the highest mean probability, `1/K` to 1.
    pub most_used: f64,
    /// Share of the expert with the lowest mean probability, 0 to `1/K`.
    pub least_used: f64,
}

/// The extremes of `mean_b p_bk`, from probabilities or gates `[B, K]`. Reads from the device.
pub fn balance_statistics<B: Backend>(probabilities: &Tensor<B, 2>) -> BalanceStatistics {
    let [rows, num_experts] = probabilities.dims();
    let mut shares = vec![0.0f64; num_experts];
    for row in to_host(probabilities.clone()).chunks_exact(num_experts) {
        for (share, &p) in shares.iter_mut().zip(row) {
            *share += f64::from(p) / rows as f64;
        }
    }
    BalanceStatistics {
        most_used: shares.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        least_used: shares.iter().copied().fold(f64::INFINITY, f64::min),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::probe::tensor;
    use burn::backend::Flex;

    const EVEN: [f32; 4] = [1.0, 0.0, 0.0, 1.0];
    const ONE: [f32; 4] = [1.0, 0.0, 1.0, 0.0];

    fn rows(values: &[f32]) -> Tensor<Flex, 2> {
        tensor(values, [values.len() / 2, 2])
    }

    #[test]
    fn balance_is_zero_when_even_and_grows_with_collapse() {
        assert_eq!(load_balance_mse(rows(&EVEN)).into_scalar(), 0.0);
        assert_eq!(load_balance_mse(rows(&ONE)).into_scalar(), 0.25);
        assert_eq!(load_balance_switch(rows(&EVEN), rows(&EVEN)).into_scalar(), 1.0);
        assert_eq!(load_balance_switch(rows(&ONE), rows(&ONE)).into_scalar(), 2.0);
    }

    #[test]
    fn importance_goes_from_zero_to_one_less_than_the_number_of_experts() {
        assert_eq!(importance(rows(&EVEN)).into_scalar(), 0.0);
        assert_eq!(importance(rows(&ONE)).into_scalar(), 1.0);
        let four = tensor::<Flex, 2>(&[0.0, 1.0, 0.0, 0.0], [1, 4]);
        assert_eq!(importance(four).into_scalar(), 3.0);
    }

    #[test]
    fn the_most_and_the_least_used_expert_are_told() {
        let statistics = balance_statistics(&rows(&[0.75, 0.25, 0.75, 0.25]));
        assert_eq!(statistics, BalanceStatistics { most_used: 0.75, least_used: 0.25 });
    }
}
