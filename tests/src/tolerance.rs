//! How far a 32-bit result may be from its reference.

use burn::tensor::{Tensor, backend::Backend};

/// The numbers of a tensor, row-major.
pub fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().into_vec().expect("tensors of f32")
}

/// The bits of a tensor, row-major.
pub fn bits<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<u32> {
    values(tensor).into_iter().map(f32::to_bits).collect()
}

/// Euclidean norm of the difference over the norm of the reference; the difference itself where the
/// reference is 0. NaN if anything is NaN.
pub fn relative_error(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len(), "lengths of result and reference");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut got.iter().zip(expected).map(|(&g, &e)| f64::from(g) - e));
    let reference = norm(&mut expected.iter().copied());
    if reference > 0.0 { difference / reference } else { difference }
}

/// Fails if the [`relative_error`] is above `tolerance`.
#[track_caller]
pub fn assert_norm(what: &str, got: &[f32], expected: &[f64], tolerance: f64) {
    let error = relative_error(got, expected);
    assert!(error <= tolerance, "{what}: relative error {error:.2e}, at most {tolerance:.0e} is allowed");
}

/// Fails if a number is further than `tolerance * max(1, |expected|)` from its reference.
#[track_caller]
pub fn assert_near(what: &str, got: f64, expected: f64, tolerance: f64) {
    let allowed = tolerance * expected.abs().max(1.0);
    assert!((got - expected).abs() <= allowed, "{what}: {got}, expected {expected} within {allowed:.1e}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_relative_to_the_reference_and_a_nan_is_never_small() {
        assert_eq!(relative_error(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
        assert!((relative_error(&[3.0, 4.5], &[3.0, 4.0]) - 0.1).abs() < 1e-12);
        assert_eq!(relative_error(&[0.5], &[0.0]), 0.5);
        assert!(relative_error(&[f32::NAN], &[1.0]).is_nan());
        let fails = |got: f64| std::panic::catch_unwind(|| assert_near("x", got, 1.0, 1e-3)).is_err();
        assert_eq!([1.0005, 1.002, f64::NAN].map(fails), [false, true, true]);
    }
}
