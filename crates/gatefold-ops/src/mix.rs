//! The weighted sum of experts' outputs.

use std::sync::Arc;

use burn::tensor::{Tensor, backend::Backend};

use crate::{OpsBackend, composed as compositions};

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

/// [`mix`] of picked items: `y_b = sum_k w_bk item_rows[b * K + k]`, with its bits.
///
/// Shapes: `weights` `[B, K]`, `items` `[R, A]`, result `[B, A]`. The gradient of an item is the sum over
/// where it was picked, in that order. Panics if shapes differ or a row is not below R.
pub fn mix_rows<B: OpsBackend>(
    weights: Tensor<B, 2>,
    items: Tensor<B, 2>,
    rows: &Arc<[u32]>,
) -> Tensor<B, 2> {
    let ([batch, picked], [count, _]) = (weights.dims(), items.dims());
    assert_eq!(rows.len(), batch * picked, "mix_rows: rows of weights [{batch}, {picked}]");
    if let Some(&most) = rows.iter().max() {
        assert!((most as usize) < count, "mix_rows: row {most} of {count}");
    }
    B::mix_rows(weights, items, rows)
}

/// [`mix_rows`] by plain tensor operations.
pub fn composed_rows<B: Backend>(
    weights: Tensor<B, 2>,
    items: Tensor<B, 2>,
    rows: &Arc<[u32]>,
) -> Tensor<B, 2> {
    let ([batch, picked], [_, width]) = (weights.dims(), items.dims());
    composed(weights, compositions::gather_rows(items, rows).reshape([batch, picked, width]))
}
