//! How large the router's logits are.

use burn::tensor::{Tensor, backend::Backend};

use crate::collect::to_host;

// B minibatch, K experts

/// `mean_b logsumexp_k(z_bk)^2` over router logits `[B, K]`, before the temperature.
///
/// Keeps logits small, where rounding is fine. Finite for any finite logits.
/// Source: Zoph et al. 2022 (ST-MoE), eq. 5.
pub fn router_z<B: Backend>(logits: Tensor<B, 2>) -> Tensor<B, 1> {
    logsumexp(logits).square().mean()
}

/// The largest `|logsumexp_k(z_bk)|` of router logits `[B, K]`. Reads from the device.
pub fn largest_logsumexp<B: Backend>(logits: &Tensor<B, 2>) -> f64 {
    let values = to_host(logsumexp(logits.clone().detach()));
    values.iter().map(|&x| f64::from(x).abs()).fold(0.0, f64::max)
}

fn logsumexp<B: Backend>(logits: Tensor<B, 2>) -> Tensor<B, 2> {
    let most = logits.clone().detach().max_dim(1); // [B, 1]
    (logits - most.clone()).exp().sum_dim(1).log() + most
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::probe::{assert_close, probe, tensor};
    use burn::backend::Flex;

    #[test]
    fn equal_logits_cost_the_square_of_ln_k_plus_their_value() {
        let ln2 = 2f32.ln();
        let (value, grad) = probe(&[0.0, 0.0, 3.0, 3.0], [2, 2], router_z);
        assert_close(&[value], &[(ln2.powi(2) + (3.0 + ln2).powi(2)) / 2.0]);
        // d/dz = 2 logsumexp softmax / B
        assert_close(&grad, &[ln2 / 2.0, ln2 / 2.0, (3.0 + ln2) / 2.0, (3.0 + ln2) / 2.0]);
        let largest = largest_logsumexp(&tensor::<Flex, 2>(&[0.0, 0.0, -5.0, -5.0], [2, 2]));
        assert!((largest - f64::from(5.0 - ln2)).abs() < 1e-6, "{largest}");
    }

    #[test]
    fn huge_logits_have_a_finite_value_and_gradient() {
        let (value, grad) = probe(&[1e4, -1e4], [1, 2], router_z);
        assert_eq!((value, grad), (1e8, vec![2e4, 0.0]));
    }
}
