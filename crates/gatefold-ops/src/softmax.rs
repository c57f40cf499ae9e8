//! Softmax over rows, with the same bits with and without autodiff.

use burn::tensor::{Tensor, backend::Backend};

/// `exp(z - max z) / sum exp(z - max z)` of each row of `[rows, columns]`.
///
/// Burn's own softmax takes another path under autodiff and differs in the last bit; a rollout and
/// its update must not. Entries of `-inf` become exactly 0; NaN spreads over its row.
pub fn softmax<B: Backend>(z: Tensor<B, 2>) -> Tensor<B, 2> {
    let max = z.clone().detach().max_dim(1);
    let weights = (z - max).exp();
    weights.clone() / weights.sum_dim(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::TensorData;

    fn of<B: Backend>(values: &[f32], tracked: bool) -> Vec<f32> {
        let data = TensorData::new(values.to_vec(), [1, values.len()]);
        let z = Tensor::<B, 2>::from_data(data, &Default::default());
        softmax(if tracked { z.require_grad() } else { z }).into_data().to_vec().unwrap()
    }

    #[test]
    fn rows_sum_to_one_and_minus_infinity_is_exactly_zero() {
        let p = of::<Flex>(&[2f32.ln(), 0.0, f32::NEG_INFINITY, -1e38], false);
        assert!((p[0] - 2.0 / 3.0).abs() < 1e-6 && (p[1] - 1.0 / 3.0).abs() < 1e-6, "{p:?}");
        assert_eq!(p[2..], [0.0, 0.0]);
        assert!(of::<Flex>(&[f32::NAN, 0.0], false).iter().all(|p| p.is_nan()));
    }

    #[test]
    fn autodiff_does_not_change_a_bit() {
        let z: Vec<f32> = (0..17).map(|i| (i as f32 * 1.37).sin() * 3.0).collect();
        assert_eq!(of::<Flex>(&z, false), of::<Autodiff<Flex>>(&z, true));
    }
}
