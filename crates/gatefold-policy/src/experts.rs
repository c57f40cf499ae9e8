//! K independent action heads, stored and computed together.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, backend::Backend};
use gatefold_ops::{Activation, OpsBackend, expert_linear, init};
use rand::Rng;

use crate::Nonlinearity;

// B minibatch, K experts, A actions

/// One layer of all experts.
#[derive(Module, Debug)]
struct ExpertLayer<B: Backend> {
    weight: Param<Tensor<B, 3>>, // [K, in, out]
    bias: Param<Tensor<B, 2>>,   // [K, out]
}

/// K independent MLPs from the observation's encoding to action logits.
#[derive(Module, Debug)]
pub struct Experts<B: Backend> {
    layers: Vec<ExpertLayer<B>>,
    #[module(skip)]
    activation: Nonlinearity,
}

impl<B: OpsBackend> Experts<B> {
    /// `num_experts` experts from `input` through `hidden` to `num_actions` logits; the last layer
    /// is orthogonal with gain `last_gain`, the others with sqrt 2.
    pub fn new(
        num_experts: usize,
        [input, num_actions]: [usize; 2],
        hidden: &[usize],
        activation: Nonlinearity,
        last_gain: f32,
        rng: &mut impl Rng,
        device: &B::Device,
    ) -> Self {
        let mut widths = vec![input];
        widths.extend(hidden);
        widths.push(num_actions);
        let last = widths.len() - 2;
        let layers = widths
            .windows(2)
            .enumerate()
            .map(|(i, pair)| {
                let (from, to) = (pair[0], pair[1]);
                let gain = if i == last { last_gain } else { 2f32.sqrt() };
                let weight = (0..num_experts).flat_map(|_| init::orthogonal(from, to, gain, rng)).collect();
                ExpertLayer {
                    weight: init::parameter(weight, [num_experts, from, to], device),
                    bias: init::constant(0.0, [num_experts, to], device),
                }
            })
            .collect();
        Self { layers, activation }
    }

    /// Logits of every expert `[B, K, A]` for encodings `[B, input]`.
    ///
    /// With `alpha` (row-major `[B, K]`) an expert is skipped where its gate is exactly 0: those
    /// logits are 0 and cost nothing; all others have the bits of the full computation.
    pub fn forward(&self, x: Tensor<B, 2>, alpha: Option<&[f32]>) -> Tensor<B, 3> {
        let [rows, width] = x.dims();
        let [num_experts, _] = self.layers[0].bias.dims();
        let active: Option<Vec<bool>> = alpha.map(|alpha| {
            let gate = |k: usize, b: usize| alpha[b * num_experts + k];
            (0..num_experts).flat_map(|k| (0..rows).map(move |b| gate(k, b) != 0.0)).collect()
        });
        let last = self.layers.len() - 1;
        let mut y = x.reshape([1, rows, width]);
        for (i, layer) in self.layers.iter().enumerate() {
            let activation = if i == last { Activation::Identity } else { self.activation.into() };
            y = expert_linear(y, layer.weight.val(), layer.bias.val(), activation, active.as_deref());
        }
        y.swap_dims(0, 1) // [B, K, A]
    }

    /// Number of experts.
    pub fn count(&self) -> usize {
        self.layers[0].bias.dims()[0]
    }
}
