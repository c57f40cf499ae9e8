//! A whole MLP whose parameters lie in one tensor.
//!
//! Everything that Burn, an optimizer and an allocator do for a tensor costs the same for a large and a small
//! one. For a network of some thousand parameters in a dozen tensors that is as much as the arithmetic.

use burn::tensor::{Tensor, backend::Backend, ops::FloatTensor};

use crate::{Activation, MlpLayer, OpsBackend, composed, squared_norms_of_parts};

/// The layers of an MLP whose parameters lie in one tensor: of each layer the weight `[in, out]`, row-major,
/// then the bias `[out]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlatMlp {
    inputs: usize,
    layers: Vec<(usize, Activation)>,
}

impl FlatMlp {
    /// Layers by their outputs, each with what is applied to its result. Panics if there is none.
    pub fn new(inputs: usize, layers: Vec<(usize, Activation)>) -> Self {
        assert!(!layers.is_empty(), "an MLP has layers");
        Self { inputs, layers }
    }

    /// Inputs and outputs of each layer, and its activation.
    pub fn layers(&self) -> impl Iterator<Item = ([usize; 2], Activation)> {
        let mut inputs = self.inputs;
        self.layers
            .iter()
            .map(move |&(outputs, act)| ([std::mem::replace(&mut inputs, outputs), outputs], act))
    }

    /// Elements of each parameter, in their order: a layer's weight, its bias, the next layer's weight.
    pub fn sizes(&self) -> impl Iterator<Item = usize> {
        self.layers().flat_map(|([inputs, outputs], _)| [inputs * outputs, outputs])
    }

    /// About the floating-point operations of a forward and a backward pass of so many rows.
    pub(crate) fn learning_flops(&self, rows: usize) -> usize {
        6 * rows * self.sizes().sum::<usize>()
    }

    /// Outputs of the last layer.
    pub(crate) fn outputs(&self) -> usize {
        self.layers[self.layers.len() - 1].0
    }

    /// Panics unless x may have so many columns, and its parameters so many elements.
    pub(crate) fn check(&self, columns: usize, given: usize) {
        assert_eq!(columns, self.inputs, "flat_mlp: columns of x and inputs");
        assert_eq!(given, self.sizes().sum::<usize>(), "flat_mlp: parameters given and needed");
    }
}

/// A gradient by the parameters of an MLP.
#[derive(Debug, Clone)]
pub struct FlatGradient<B: Backend> {
    /// It itself `[P]`.
    pub values: FloatTensor<B>,
    /// The sum of squares of each parameter's part, in the order of [`FlatMlp::sizes`].
    pub squares: Vec<f64>,
}

impl<B: OpsBackend> FlatGradient<B> {
    /// The gradient by the parameters of `mlp`. Panics if it has another number of elements.
    pub fn new(values: FloatTensor<B>, mlp: &FlatMlp) -> Self {
        let squares = squared_norms_of_parts::<B>(&values, &mlp.sizes().collect::<Vec<_>>());
        Self { values, squares }
    }
}

/// [`mlp`](crate::mlp()) with parameters `[P]` in one tensor: `[rows, in]` to `[rows, out]`.
///
/// The bits of values and gradients are those of [`mlp`](crate::mlp()). Panics if shapes differ.
pub fn flat_mlp<B: OpsBackend>(x: Tensor<B, 2>, parameters: Tensor<B, 1>, mlp: &FlatMlp) -> Tensor<B, 2> {
    mlp.check(x.dims()[1], parameters.dims()[0]);
    B::flat_mlp(x, parameters, mlp)
}

/// [`flat_mlp`] of one output as a vector `[rows]`: a value function.
pub fn flat_mlp_column<B: OpsBackend>(
    x: Tensor<B, 2>,
    parameters: Tensor<B, 1>,
    mlp: &FlatMlp,
) -> Tensor<B, 1> {
    mlp.check(x.dims()[1], parameters.dims()[0]);
    assert_eq!(mlp.outputs(), 1, "flat_mlp_column: outputs of the last layer");
    B::flat_mlp_column(x, parameters, mlp)
}

/// [`flat_mlp`] as one [`linear`](crate::linear) after the other.
pub fn composed<B: OpsBackend>(x: Tensor<B, 2>, parameters: Tensor<B, 1>, mlp: &FlatMlp) -> Tensor<B, 2> {
    let mut first = 0;
    let mut take = |count: usize| {
        first += count;
        parameters.clone().narrow(0, first - count, count)
    };
    let layers = mlp.layers().map(|([inputs, outputs], activation)| MlpLayer {
        weight: take(inputs * outputs).reshape([inputs, outputs]),
        bias: take(outputs),
        activation,
    });
    composed::mlp(x, layers.collect())
}

/// [`flat_mlp_column`] as one [`linear`](crate::linear) after the other.
pub fn composed_column<B: OpsBackend>(
    x: Tensor<B, 2>,
    parameters: Tensor<B, 1>,
    mlp: &FlatMlp,
) -> Tensor<B, 1> {
    let [rows, _] = x.dims();
    composed(x, parameters, mlp).reshape([rows])
}
