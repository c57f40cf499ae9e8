//! A stack of linear layers with one activation.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Tensor, backend::Backend};
use gatefold_ops::{Activation, OpsBackend, init, mlp};
use rand::Rng;

use crate::Nonlinearity;

/// Linear layers, each followed by the activation. Weights orthogonal with gain sqrt 2, biases 0.
#[derive(Module, Debug)]
pub struct Mlp<B: Backend> {
    layers: Vec<Linear<B>>,
    #[module(skip)]
    activation: Nonlinearity,
}

impl<B: OpsBackend> Mlp<B> {
    /// Layers from `input` through `widths`.
    pub fn new(
        input: usize,
        widths: &[usize],
        activation: Nonlinearity,
        rng: &mut impl Rng,
        device: &B::Device,
    ) -> Self {
        let mut from = input;
        let mut layers = Vec::with_capacity(widths.len());
        for &to in widths {
            layers.push(init::orthogonal_linear([from, to], 2f32.sqrt(), rng, device));
            from = to;
        }
        Self { layers, activation }
    }

    /// `[B, input]` to `[B, last width]`.
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        mlp(x, self.layers.iter().map(|layer| init::mlp_layer(layer, self.activation.into())).collect())
    }

    pub(crate) fn layers(&self) -> impl Iterator<Item = &Linear<B>> {
        self.layers.iter()
    }

    pub(crate) fn activation(&self) -> Activation {
        self.activation.into()
    }
}

impl From<Nonlinearity> for Activation {
    fn from(value: Nonlinearity) -> Self {
        match value {
            Nonlinearity::Tanh => Activation::Tanh,
            Nonlinearity::Relu => Activation::Relu,
        }
    }
}
