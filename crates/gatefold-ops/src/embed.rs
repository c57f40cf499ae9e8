//! Node inputs of a static graph: an embedding moved along one direction by each activation.

use std::sync::Arc;

use burn::tensor::{Tensor, backend::Backend};

use crate::{OpsBackend, composed as compositions};

/// `x_bv = base_v + a_bv * direction`.
///
/// Shapes: `base` `[V, D]`, `activations` `[B, V]` (data: it gets no gradient), `direction` `[D]`;
/// result `[B, V, D]`. Panics if shapes differ.
pub fn embed_activations<B: OpsBackend>(
    base: Tensor<B, 2>,
    activations: Tensor<B, 2>,
    direction: Tensor<B, 1>,
) -> Tensor<B, 3> {
    let ([rows, width], [_, nodes], [length]) = (base.dims(), activations.dims(), direction.dims());
    assert!(
        rows == nodes && width == length,
        "embed_activations: base [{rows}, {width}], {nodes} activations, direction of {length}"
    );
    B::embed_activations(base, activations, direction)
}

/// [`embed_activations`] by plain tensor operations.
pub fn composed<B: Backend>(
    base: Tensor<B, 2>,
    activations: Tensor<B, 2>,
    direction: Tensor<B, 1>,
) -> Tensor<B, 3> {
    let activations = activations.detach().unsqueeze_dim::<3>(2); // [B, V, 1]
    base.unsqueeze() + activations * direction.unsqueeze()
}

/// `x_r = base_rows[r] + a_r * direction`: [`embed_activations`] of picked rows.
///
/// Shapes: `base` `[V, D]`, `activations` `[R]` (data: it gets no gradient), `direction` `[D]`; result
/// `[R, D]`. Panics if shapes differ or a row is not below V.
pub fn embed_rows<B: OpsBackend>(
    base: Tensor<B, 2>,
    rows: &Arc<[u32]>,
    activations: Tensor<B, 1>,
    direction: Tensor<B, 1>,
) -> Tensor<B, 2> {
    let ([count, width], [picked], [length]) = (base.dims(), activations.dims(), direction.dims());
    assert!(
        rows.len() == picked && width == length,
        "embed_rows: base [{count}, {width}], {picked} activations of {} rows, direction of {length}",
        rows.len()
    );
    if let Some(&most) = rows.iter().max() {
        assert!((most as usize) < count, "embed_rows: row {most} of {count}");
    }
    B::embed_rows(base, rows, activations, direction)
}

/// [`embed_rows`] by plain tensor operations.
pub fn composed_rows<B: Backend>(
    base: Tensor<B, 2>,
    rows: &Arc<[u32]>,
    activations: Tensor<B, 1>,
    direction: Tensor<B, 1>,
) -> Tensor<B, 2> {
    let picked = compositions::gather_rows(base, rows);
    picked + activations.detach().unsqueeze_dim::<2>(1) * direction.unsqueeze()
}
