//! The network that scores experts.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Tensor, backend::Backend};
use gatefold_ops::{Activation, OpsBackend, init, norm_relu};
use rand::Rng;

/// Gain of the last layer: gates start nearly uniform.
const LAST_GAIN: f32 = 0.1;

/// A hidden layer: linear, LayerNorm, ReLU.
#[derive(Module, Debug)]
struct Hidden<B: Backend> {
    linear: Linear<B>,
    norm_gain: Param<Tensor<B, 1>>,
    norm_bias: Param<Tensor<B, 1>>,
}

/// Scores K experts from `[h_obs ; h_graph]`.
#[derive(Module, Debug)]
pub struct Router<B: Backend> {
    hidden: Vec<Hidden<B>>,
    last: Linear<B>,
}

impl<B: OpsBackend> Router<B> {
    /// A router from `input` features through `hidden` widths to `num_experts` scores.
    pub fn new(
        input: usize,
        hidden: &[usize],
        num_experts: usize,
        rng: &mut impl Rng,
        device: &B::Device,
    ) -> Self {
        let mut width = input;
        let mut layers = Vec::with_capacity(hidden.len());
        for &next in hidden {
            layers.push(Hidden {
                linear: init::orthogonal_linear([width, next], 2f32.sqrt(), rng, device),
                norm_gain: init::constant(1.0, [next], device),
                norm_bias: init::constant(0.0, [next], device),
            });
            width = next;
        }
        let last = init::orthogonal_linear([width, num_experts], LAST_GAIN, rng, device);
        Self { hidden: layers, last }
    }

    /// Scores `[B, K]` of inputs `[B, input]`.
    pub fn forward(&self, mut x: Tensor<B, 2>) -> Tensor<B, 2> {
        for layer in &self.hidden {
            let projected = init::apply_linear(&layer.linear, x, Activation::Identity);
            x = norm_relu(projected, layer.norm_gain.val(), layer.norm_bias.val(), None);
        }
        init::apply_linear(&self.last, x, Activation::Identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;
    use burn::tensor::Distribution;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn a_new_router_is_nearly_even_but_not_constant() {
        let device = Default::default();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let router = Router::<Flex>::new(10, &[32, 16], 4, &mut rng, &device);
        let x = Tensor::random([64, 10], Distribution::Normal(0.0, 1.0), &device);
        let scores = router.forward(x);
        assert_eq!(scores.dims(), [64, 4]);
        let largest: f32 = scores.clone().abs().max().into_scalar();
        assert!(largest < 2.0, "scores up to {largest}");
        let spread: f32 = scores.var(0).sum().into_scalar();
        assert!(spread > 1e-4, "the scores do not depend on the input");
    }
}
