//! A limit to the length of node vectors.

use burn::tensor::{Tensor, backend::Backend};

/// Scales vectors `[B, T, D]` whose L2 norm is above `limit` to that norm; the others keep their bits.
///
/// The gradient goes through the norm: `dx = limit / |x| (g - u (u . g))` with `u = x / |x|`. A vector
/// that is not finite stays as it is, for the guards to see.
pub(crate) fn clip_norms<B: Backend>(x: Tensor<B, 3>, limit: f32) -> Tensor<B, 3> {
    // Squares of numbers in units of the largest one neither overflow nor vanish.
    let largest = x.clone().detach().abs().max_dim(2); // [B, T, 1]
    let unit = largest.clone().mask_fill(largest.equal_elem(0.0), 1.0);
    let squares = (x.clone() / unit.clone()).square().sum_dim(2);
    let inside = (squares.clone().detach().sqrt() * unit.clone()).greater_elem(limit).bool_not();
    // Filled before the root, whose gradient at 0 is infinite.
    let norm = squares.mask_fill(inside.clone(), 1.0).sqrt() * unit;
    let scale = norm.recip().mul_scalar(limit).mask_fill(inside, 1.0);
    x * scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::TensorData;

    type Train = Autodiff<Flex>;

    fn vectors(values: &[f32]) -> Tensor<Train, 3> {
        let data = TensorData::new(values.to_vec(), [1, values.len() / 2, 2]);
        Tensor::from_data(data, &Default::default())
    }

    fn clipped(values: &[f32], limit: f32) -> Vec<f32> {
        clip_norms(vectors(values), limit).into_data().into_vec().unwrap()
    }

    #[test]
    fn longer_vectors_end_at_the_limit_and_shorter_ones_keep_their_bits() {
        let out = clipped(&[3.0, 4.0, 0.3, -0.7, 0.0, 0.0, -8.0, 6.0], 2.0);
        for (got, expected) in out.iter().zip([1.2, 1.6, 0.3, -0.7, 0.0, 0.0, -1.6, 1.2]) {
            assert!((got - expected).abs() < 1e-6, "{out:?}");
        }
        assert_eq!(out[2..6], [0.3, -0.7, 0.0, 0.0]);
    }

    #[test]
    fn huge_vectors_keep_their_direction() {
        let out = clipped(&[3e30, 4e30], 5.0);
        assert!((out[0] - 3.0).abs() < 1e-5 && (out[1] - 4.0).abs() < 1e-5, "{out:?}");
    }

    #[test]
    fn what_is_not_finite_stays_visible() {
        let out = clipped(&[f32::NAN, 9.0, f32::INFINITY, 1.0, 3.0, 4.0], 1.0);
        assert!(out[0].is_nan() && out[2].is_infinite(), "{out:?}");
        assert!((out[4] - 0.6).abs() < 1e-6, "{out:?}");
    }

    #[test]
    fn the_gradient_goes_through_the_scaling() {
        let x = vectors(&[3.0, 4.0, 0.3, 0.4, 0.0, 0.0]).require_grad();
        let upstream = vectors(&[1.0, 0.0, 5.0, 7.0, 2.0, 3.0]);
        let grads = (clip_norms(x.clone(), 1.0) * upstream).sum().backward();
        let gradient = x.grad(&grads).unwrap().into_data().into_vec::<f32>().unwrap();
        // 1 / 5 * ([1, 0] - 0.6 * [0.6, 0.8]); what is inside the limit, and 0, passes it on.
        for (got, expected) in gradient.iter().zip([0.128, -0.096, 5.0, 7.0, 2.0, 3.0]) {
            assert!((got - expected).abs() < 1e-6, "{gradient:?}");
        }
    }
}
