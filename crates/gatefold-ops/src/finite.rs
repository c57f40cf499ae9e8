//! The search for numbers that are none.

use burn::tensor::{Tensor, backend::Backend};

use crate::OpsBackend;

/// The first NaN or infinity of a tensor, row-major.
pub fn first_non_finite<B: OpsBackend, const D: usize>(t: &Tensor<B, D>) -> Option<f32> {
    B::first_non_finite(t)
}

/// [`first_non_finite`] on a copy on the host.
pub fn composed<B: Backend, const D: usize>(t: &Tensor<B, D>) -> Option<f32> {
    let values = t.to_data().convert::<f32>().into_vec::<f32>().expect("converted to f32");
    values.into_iter().find(|x| !x.is_finite())
}
