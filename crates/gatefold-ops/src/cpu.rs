//! The fused CPU kernels, and the backends that use them.

mod chunks;
mod flat;
mod level;
mod linear;
mod math;
mod microkernel;
mod sgemm;

pub use level::simd_level;

use burn::{
    backend::{Autodiff, Flex, autodiff::checkpoint::strategy::CheckpointStrategy},
    tensor::{DType, Tensor},
};

use crate::{Activation, OpsBackend, composed};
use flat::{unwrap, wrap};

pub(crate) fn log_softmax_row(logits: &[f32], mask: Option<&[bool]>, log_probs: &mut [f32]) {
    let allowed = |a: usize| mask.is_none_or(|mask| mask[a]);
    let max = (0..logits.len()).filter(|&a| allowed(a)).fold(f32::NEG_INFINITY, |m, a| m.max(logits[a]));
    let mut sum = 0.0;
    for a in (0..logits.len()).filter(|&a| allowed(a)) {
        log_probs[a] = logits[a] - max;
        sum += log_probs[a].exp();
    }
    let log_sum = f32::ln(sum);
    for a in 0..logits.len() {
        log_probs[a] = if allowed(a) { log_probs[a] - log_sum } else { f32::NEG_INFINITY };
    }
}

/// Whether all tensors hold `f32`: the fused kernels know nothing else.
macro_rules! all_f32 {
    ($($t:expr),+) => { $($t.dtype() == DType::F32)&&+ };
}

impl OpsBackend for Flex {
    fn linear_act(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        bias: Tensor<Self, 1>,
        act: Activation,
    ) -> Tensor<Self, 2> {
        if !all_f32!(x, weight, bias) {
            return composed::linear(x, weight, bias, act);
        }
        wrap(linear::flex(unwrap(x), unwrap(weight), unwrap(bias), act))
    }
}

impl<C: CheckpointStrategy> OpsBackend for Autodiff<Flex, C> {
    fn linear_act(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        bias: Tensor<Self, 1>,
        act: Activation,
    ) -> Tensor<Self, 2> {
        if !all_f32!(x, weight, bias) {
            return composed::linear(x, weight, bias, act);
        }
        wrap(linear::autodiff::<C>(unwrap(x), unwrap(weight), unwrap(bias), act))
    }
}
