//! How many experts share a row.

use burn::tensor::{Tensor, backend::Backend};

use crate::collect::to_host;

// B minibatch, K experts

/// `mean_b H(alpha_b)` in nats over gates `[B, K]`; `0 log 0 = 0`, by selection, so that its
/// gradient is finite at gates that are exactly 0.
pub fn gate_entropy<B: Backend>(alpha: Tensor<B, 2>) -> Tensor<B, 1> {
    let [rows, _] = alpha.dims();
    let outside = alpha.clone().detach().equal_elem(0.0);
    let log = alpha.clone().mask_fill(outside, 1.0).log();
    (alpha * log).sum().neg() / rows as f32
}

/// Mean number of experts whose gate is above 0, of gates `[B, K]`. Reads from the device.
pub fn mean_support<B: Backend>(alpha: &Tensor<B, 2>) -> f64 {
    let [rows, _] = alpha.dims();
    let inside = to_host(alpha.clone()).iter().filter(|&&gate| gate > 0.0).count();
    inside as f64 / rows as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::probe::{probe, tensor};
    use burn::backend::Flex;

    #[test]
    fn gate_entropy_is_finite_with_finite_gradients_at_exact_zeros() {
        let (entropy, grad) = probe(&[1.0, 0.0, 0.5, 0.5], [2, 2], gate_entropy);
        assert!((entropy - 0.5 * 2f32.ln()).abs() < 1e-6);
        assert!(grad.iter().all(|g| g.is_finite()), "{grad:?}");
    }

    #[test]
    fn support_counts_gates_above_zero() {
        assert_eq!(mean_support(&tensor::<Flex, 2>(&[1.0, 0.0, 0.5, 0.5], [2, 2])), 1.5);
    }
}
