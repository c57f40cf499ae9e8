//! Node inputs of a static graph: an embedding moved along some directions by each node's numbers.

use std::sync::Arc;

use burn::tensor::{Tensor, backend::Backend};

use crate::{OpsBackend, composed as compositions};

/// `x_bv = base_v + sum_g a_bvg * direction_g`.
///
/// Shapes: `base` `[V, D]`, `inputs` `[B, V, G]` (data: they get no gradient), `directions` `[G, D]`;
/// result `[B, V, D]`. Panics if shapes differ.
pub fn embed_nodes<B: OpsBackend>(
    base: Tensor<B, 2>,
    inputs: Tensor<B, 3>,
    directions: Tensor<B, 2>,
) -> Tensor<B, 3> {
    let ([rows, width], [_, nodes, numbers]) = (base.dims(), inputs.dims());
    assert!(
        rows == nodes && directions.dims() == [numbers, width],
        "embed_nodes: base [{rows}, {width}], {nodes} nodes of {numbers} numbers, directions {:?}",
        directions.dims()
    );
    B::embed_nodes(base, inputs, directions)
}

/// [`embed_nodes`] by plain tensor operations.
pub fn composed<B: Backend>(
    base: Tensor<B, 2>,
    inputs: Tensor<B, 3>,
    directions: Tensor<B, 2>,
) -> Tensor<B, 3> {
    base.unsqueeze() + inputs.detach().matmul(directions.unsqueeze())
}

/// `x_r = base_rows[r] + sum_g a_rg * direction_g`: [`embed_nodes`] of picked rows, with its bits.
///
/// Shapes: `base` `[V, D]`, `inputs` `[R, G]` (data: they get no gradient), `directions` `[G, D]`; result
/// `[R, D]`. Panics if shapes differ or a row is not below V.
pub fn embed_rows<B: OpsBackend>(
    base: Tensor<B, 2>,
    rows: &Arc<[u32]>,
    inputs: Tensor<B, 2>,
    directions: Tensor<B, 2>,
) -> Tensor<B, 2> {
    let ([count, width], [picked, numbers]) = (base.dims(), inputs.dims());
    assert!(
        rows.len() == picked && directions.dims() == [numbers, width],
        "embed_rows: base [{count}, {width}], {} rows, {picked} of {numbers} numbers, directions {:?}",
        rows.len(),
        directions.dims()
    );
    if let Some(&most) = rows.iter().max() {
        assert!((most as usize) < count, "embed_rows: row {most} of {count}");
    }
    B::embed_rows(base, rows, inputs, directions)
}

/// [`embed_rows`] by plain tensor operations.
pub fn composed_rows<B: Backend>(
    base: Tensor<B, 2>,
    rows: &Arc<[u32]>,
    inputs: Tensor<B, 2>,
    directions: Tensor<B, 2>,
) -> Tensor<B, 2> {
    compositions::gather_rows(base, rows) + inputs.detach().matmul(directions)
}
