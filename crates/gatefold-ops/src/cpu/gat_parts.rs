//! One or two heads cut into four parts, for the kernels of four heads.
//!
//! A part is taken for a head whose score is the sum over all parts of the head that it is of. So these parts have
//! the same attention, and each has the gradient of the score in full.

// H heads, P parts of a head, R relations

use burn::backend::flex::FlexTensor;

use super::flat::{dims, floats, tensor};

/// Into how many parts each head is cut; 1 where heads stay whole.
pub(super) fn parts_of(heads: usize, channels: usize) -> usize {
    match (heads, channels) {
        (1, 32 | 64 | 128 | 256) => 4,
        (2, 16 | 32 | 64 | 128) => 2,
        _ => 1,
    }
}

/// A relation bias `[R, H]` as one of all parts, `[R, H * P]`, for heads with these weights `[H, C]`.
pub(super) fn for_parts(relation_bias: FlexTensor, weights: &FlexTensor) -> FlexTensor {
    let ([relations, _], [heads, channels]) = (dims(&relation_bias), dims(weights));
    let parts = parts_of(heads, channels);
    if parts == 1 {
        return relation_bias;
    }
    let of_parts = floats(&relation_bias).iter().flat_map(|&bias| std::iter::repeat_n(bias, parts));
    tensor(of_parts.collect(), [relations, heads * parts])
}

/// What heads have of numbers that their parts have in common.
pub(super) fn of_heads(of_parts: Vec<f32>, parts: usize) -> Vec<f32> {
    if parts == 1 { of_parts } else { of_parts.into_iter().step_by(parts).collect() }
}
