//! Log-probabilities of a masked categorical head, on the device and on the host.

use burn::tensor::{Bool, Tensor, backend::Backend};

use crate::{OpsBackend, cpu};

/// Log-softmax over the allowed entries of each row; masked entries are `-inf`, their gradient is 0.
///
/// Shapes: `logits` and `mask` `[rows, actions]`, `true` = allowed. A row without an allowed entry
/// is all `-inf`: check masks where they enter. Masking is by selection, so a gradient is never NaN
/// because of a masked entry; but `p * log p` of a masked entry is `0 * -inf`: select there too.
pub fn masked_log_softmax<B: OpsBackend>(
    logits: Tensor<B, 2>,
    mask: Option<Tensor<B, 2, Bool>>,
) -> Tensor<B, 2> {
    match mask {
        None => selected_log_softmax(logits, None),
        Some(mask) => {
            let masked = mask.bool_not();
            selected_log_softmax(logits, Some(masked.clone())).mask_fill(masked, f32::NEG_INFINITY)
        }
    }
}

/// Log-softmax over the entries that are not `masked`; finite garbage at the masked ones.
pub(crate) fn selected_log_softmax<B: Backend>(
    logits: Tensor<B, 2>,
    masked: Option<Tensor<B, 2, Bool>>,
) -> Tensor<B, 2> {
    let Some(masked) = masked else {
        let max = logits.clone().detach().max_dim(1);
        let shifted = logits - max;
        return shifted.clone() - shifted.exp().sum_dim(1).log();
    };
    let max = logits.clone().detach().mask_fill(masked.clone(), f32::NEG_INFINITY).max_dim(1);
    let shifted = logits.mask_fill(masked.clone(), 0.0) - max;
    let shifted = shifted.mask_fill(masked.clone(), 0.0);
    let sum = shifted.clone().exp().mask_fill(masked, 0.0).sum_dim(1);
    shifted - sum.log()
}

/// Log-softmax of rows `[B, A]` on the host, with the bits of the fused PPO head.
///
/// A rollout that samples from these log-probabilities has a probability ratio of exactly 1 in the
/// first minibatch, as long as the logits have the same bits. Masked entries become `-inf`; a NaN
/// among the others of a row makes all of those NaN.
/// Panics if lengths differ or are no multiple of `num_actions`.
pub fn log_softmax_rows(logits: &[f32], mask: Option<&[bool]>, num_actions: usize, log_probs: &mut [f32]) {
    assert_eq!(logits.len(), log_probs.len(), "log_softmax_rows: lengths of logits and result");
    assert!(logits.len().is_multiple_of(num_actions), "log_softmax_rows: rows of {num_actions} logits");
    if let Some(mask) = mask {
        assert_eq!(logits.len(), mask.len(), "log_softmax_rows: lengths of logits and mask");
    }
    cpu::log_softmax_rows(logits, mask, num_actions, log_probs);
}
