//! The fused CPU kernels.

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

/// The SIMD level of this process's kernels: `avx512`, `avx2` or `portable`.
///
/// Results have the same bits on every machine of one level, and may differ between levels.
pub fn simd_level() -> &'static str {
    "portable"
}

use crate::OpsBackend;
use burn::backend::{Autodiff, Flex, autodiff::checkpoint::strategy::CheckpointStrategy};

impl OpsBackend for Flex {}
impl<C: CheckpointStrategy> OpsBackend for Autodiff<Flex, C> {}
