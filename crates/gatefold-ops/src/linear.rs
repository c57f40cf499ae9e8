//! A linear layer with its activation.

use burn::tensor::{Tensor, backend::Backend};

use crate::OpsBackend;

/// What a linear layer applies to its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// Nothing.
    #[default]
    Identity,
    /// Hyperbolic tangent.
    Tanh,
    /// `max(x, 0)`; keeps a NaN. Its gradient at 0 is 0.
    Relu,
}

impl Activation {
    /// Applies the activation by plain tensor operations.
    pub(crate) fn composed<B: Backend, const D: usize>(self, x: Tensor<B, D>) -> Tensor<B, D> {
        match self {
            Activation::Identity => x,
            Activation::Tanh => x.tanh(),
            Activation::Relu => {
                // A selection, because some backends turn max(NaN, 0) into 0.
                let negative = x.clone().lower_equal_elem(0.0);
                x.mask_fill(negative, 0.0)
            }
        }
    }
}

/// A linear layer: `y = act(x W + b)`.
///
/// Shapes: `x` `[rows, in]`, `weight` `[in, out]`, `bias` `[out]`, result `[rows, out]`.
/// On the CPU a row of the result has the same bits whatever else is in the batch.
/// Panics if shapes differ.
pub fn linear<B: OpsBackend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    act: Activation,
) -> Tensor<B, 2> {
    check(&x, &weight, &bias);
    B::linear_act(x, weight, bias, act)
}

/// [`linear`] by plain tensor operations.
pub fn composed<B: Backend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    act: Activation,
) -> Tensor<B, 2> {
    act.composed(x.matmul(weight) + bias.unsqueeze())
}

fn check<B: Backend>(x: &Tensor<B, 2>, weight: &Tensor<B, 2>, bias: &Tensor<B, 1>) {
    let ([_, x_in], [w_in, w_out], [b_out]) = (x.dims(), weight.dims(), bias.dims());
    assert!(
        x_in == w_in && w_out == b_out,
        "linear: x has {x_in} columns, weight is [{w_in}, {w_out}], bias has {b_out} elements"
    );
}
