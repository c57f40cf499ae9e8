//! The weighted sum of experts' outputs.

use burn::tensor::{Tensor, backend::Backend};

use crate::OpsBackend;

/// `y_b = sum_k w_bk item_bk`.
///
/// Shapes: `weights` `[B, K]`, `items` `[B, K, A]`, result `[B, A]`. A weight of exactly 0 leaves
/// the sum's bits as they are, whatever finite numbers its item holds; a NaN item shows, whatever
/// its weight. Panics if shapes differ.
pub fn mix<B: OpsBackend>(weights: Tensor<B, 2>, items: Tensor<B, 3>) -> Tensor<B, 2> {
    let ([rows, experts], [item_rows, item_experts, _]) = (weights.dims(), items.dims());
    assert!(
        rows == item_rows && experts == item_experts,
        "mix: weights [{rows}, {experts}], items [{item_rows}, {item_experts}, _]"
    );
    B::mix(weights, items)
}

/// [`mix`] by plain tensor operations.
pub fn composed<B: Backend>(weights: Tensor<B, 2>, items: Tensor<B, 3>) -> Tensor<B, 2> {
    (weights.unsqueeze_dim::<3>(2) * items).sum_dim(1).squeeze_dim(1)
}
