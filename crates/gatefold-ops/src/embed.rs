//! Node inputs of a static graph: an embedding moved along one direction by each activation.

use burn::tensor::{Tensor, backend::Backend};

use crate::OpsBackend;

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
