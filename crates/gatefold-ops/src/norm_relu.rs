//! Layer normalisation, ReLU and a residual: the end of a block.

use burn::tensor::{Tensor, backend::Backend};

use crate::{Activation, OpsBackend};

/// What is added to the variance before its root.
pub(crate) const EPSILON: f32 = 1e-5;

/// `residual + relu(LayerNorm(x) * gamma + beta)`, over the last dimension.
///
/// Biased variance, epsilon 1e-5. Shapes: `x` and `residual` `[rows, D]`, `gamma` and `beta` `[D]`.
/// Panics if shapes differ.
pub fn norm_relu<B: OpsBackend>(
    x: Tensor<B, 2>,
    gamma: Tensor<B, 1>,
    beta: Tensor<B, 1>,
    residual: Option<Tensor<B, 2>>,
) -> Tensor<B, 2> {
    let [rows, width] = x.dims();
    assert!(
        gamma.dims() == [width] && beta.dims() == [width],
        "norm_relu: {width} columns, gamma {:?}, beta {:?}",
        gamma.dims(),
        beta.dims()
    );
    if let Some(residual) = &residual {
        assert_eq!(residual.dims(), [rows, width], "norm_relu: shape of the residual");
    }
    B::norm_relu(x, gamma, beta, residual)
}

/// [`norm_relu`] by plain tensor operations.
pub fn composed<B: Backend>(
    x: Tensor<B, 2>,
    gamma: Tensor<B, 1>,
    beta: Tensor<B, 1>,
    residual: Option<Tensor<B, 2>>,
) -> Tensor<B, 2> {
    let centred = x.clone() - x.mean_dim(1);
    let variance = centred.clone().square().mean_dim(1);
    let normed = centred / variance.add_scalar(EPSILON).sqrt();
    let y = Activation::Relu.composed(normed * gamma.unsqueeze() + beta.unsqueeze());
    match residual {
        None => y,
        Some(residual) => residual + y,
    }
}
