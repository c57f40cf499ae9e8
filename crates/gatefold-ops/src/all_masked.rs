//! Rows that no projection on the simplex exists for.

use burn::tensor::{Tensor, backend::Backend};

/// All entries of a row of scores are masked (`-inf`), so that nothing can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllMasked {
    /// The first such row of the batch.
    pub row: usize,
}

impl std::fmt::Display for AllMasked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "row {}: every score is minus infinity", self.row)
    }
}

impl std::error::Error for AllMasked {}

/// The first row of `z` `[rows, K]` with nothing but `-inf`, by plain tensor operations; reads one
/// flag per row back from the device.
pub fn composed<B: Backend>(z: &Tensor<B, 2>) -> Option<usize> {
    let masked = z.clone().detach().equal_elem(f32::NEG_INFINITY).all_dim(1);
    masked.into_data().iter::<bool>().position(|masked| masked)
}
