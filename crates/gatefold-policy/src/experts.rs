//! K independent action heads, stored and computed together.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, backend::Backend};
use gatefold_ops::{
    Activation, ActivePairs, OpsBackend, expert_linear, init, pack, packed_expert_linear, packed_mix,
};
use rand::Rng;

use crate::Nonlinearity;

// B minibatch, K experts, P pairs, A actions

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
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 3> {
        let [rows, width] = x.dims();
        let mut y = x.reshape([1, rows, width]);
        for (layer, activation) in self.layers.iter().zip(self.activations()) {
            y = expert_linear(y, layer.weight.val(), layer.bias.val(), activation);
        }
        y.swap_dims(0, 1) // [B, K, A]
    }

    /// `sum_k alpha_k logits_k` `[B, A]`, computing only experts whose gate is not exactly 0.
    ///
    /// `alpha` is `[B, K]`. The result has the bits of mixing [`forward`](Self::forward). The gradient
    /// of a gate that is 0 is left out: use it where the routing has none there either.
    pub fn forward_active(&self, x: Tensor<B, 2>, alpha: Tensor<B, 2>) -> Tensor<B, 2> {
        let gates = alpha.to_data().convert::<f32>().to_vec::<f32>().expect("converted to f32");
        let pairs = ActivePairs::from_gates(&gates, self.count());
        let mut y = pack(x, &pairs); // [P, in], P pairs of a row and an expert
        for (layer, activation) in self.layers.iter().zip(self.activations()) {
            y = packed_expert_linear(y, layer.weight.val(), layer.bias.val(), activation, &pairs);
        }
        packed_mix(alpha, y, &pairs)
    }

    fn activations(&self) -> impl Iterator<Item = Activation> {
        let hidden = std::iter::repeat_n(self.activation.into(), self.layers.len() - 1);
        hidden.chain([Activation::Identity])
    }

    /// Number of experts.
    pub fn count(&self) -> usize {
        self.layers[0].bias.dims()[0]
    }
}
