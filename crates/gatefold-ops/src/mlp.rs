//! A whole MLP as one operation.

use burn::tensor::{Tensor, backend::Backend};

use crate::{Activation, OpsBackend};

/// One layer of an [`mlp`].
#[derive(Debug, Clone)]
pub struct MlpLayer<B: Backend> {
    /// `[in, out]`.
    pub weight: Tensor<B, 2>,
    /// `[out]`.
    pub bias: Tensor<B, 1>,
    /// What is applied to the layer's result.
    pub activation: Activation,
}

/// Layers one after the other: `x = act(x W + b)` for each of them.
///
/// Shapes: `x` `[rows, in]`, result `[rows, out]` of the last layer. On the CPU this is one node of the
/// graph, with the bits of [`linear`](crate::linear) layer by layer in values and gradients; the hidden
/// activations stay inside. Panics if shapes differ or there is no layer.
pub fn mlp<B: OpsBackend>(x: Tensor<B, 2>, layers: Vec<MlpLayer<B>>) -> Tensor<B, 2> {
    check(&x, &layers);
    B::mlp(x, layers)
}

/// [`mlp`] as one [`linear`](crate::linear) after the other.
pub fn composed<B: OpsBackend>(x: Tensor<B, 2>, layers: Vec<MlpLayer<B>>) -> Tensor<B, 2> {
    layers.into_iter().fold(x, |x, layer| B::linear_act(x, layer.weight, layer.bias, layer.activation))
}

fn check<B: Backend>(x: &Tensor<B, 2>, layers: &[MlpLayer<B>]) {
    assert!(!layers.is_empty(), "mlp: no layer");
    let [_, mut width] = x.dims();
    for (number, layer) in layers.iter().enumerate() {
        let ([inputs, outputs], [biases]) = (layer.weight.dims(), layer.bias.dims());
        assert!(
            inputs == width && biases == outputs,
            "mlp: layer {number} gets {width} columns, its weight is [{inputs}, {outputs}], \
             its bias has {biases} elements"
        );
        width = outputs;
    }
}
