//! 1.5-entmax: sparser than softmax, smoother than sparsemax (Peters et al. 2019).

use burn::tensor::{Tensor, backend::Backend};

use crate::{Activation, AllMasked, OpsBackend};

/// 1.5-entmax of each row at a temperature: `p = max(u - t, 0)^2` with `u = (z - max z) / (2 temperature)`
/// and `t` such that `sum p = 1`.
///
/// Its gradient is `dz = s (g - sum s g / sum s) / temperature` with `s = sqrt(p)`. It vanishes at
/// the edge of the support, where sparsemax's jumps. Finite for `|z|` up to 1e38; an entry of `-inf`
/// gets exactly 0; a row of only `-inf` is an error. A row with a NaN or `+inf` is NaN. Ties share
/// equally.
///
/// Shapes: `z` and the result `[rows, K]`. Panics unless `temperature > 0`. Source: Peters, Niculae
/// & Martins 2019, arXiv 1905.05702, algorithm 2.
pub fn entmax15<B: OpsBackend>(z: Tensor<B, 2>, temperature: f32) -> Result<Tensor<B, 2>, AllMasked> {
    assert!(temperature > 0.0, "entmax15: temperature {temperature}, need more than 0");
    match B::all_masked_row(&z) {
        Some(row) => Err(AllMasked { row }),
        None => Ok(B::entmax15(z, temperature)),
    }
}

/// [`entmax15`] by plain tensor operations; compares all pairs, so memory grows with `K^2`. A row of
/// only `-inf` is NaN.
pub fn composed<B: Backend>(z: Tensor<B, 2>, temperature: f32) -> Tensor<B, 2> {
    let [rows, k] = z.dims();
    let shape = [rows, k, k];
    let raw = z.clone().detach();
    let max = raw.clone().max_dim(1); // [B, 1]
    let u = (z - max).div_scalar(2.0 * temperature); // [B, K]

    // sum_j max(u_j - t, 0)^2 falls with t and is 1 at the threshold: entry i lies above the
    // threshold iff the sum at u_i is below 1. No entry at or below -1 does, so those may move up to
    // -2, which keeps infinities out of the differences.
    let data = u.clone().detach().clamp_min(-2.0);
    let own = data.clone().unsqueeze_dim::<3>(2).expand(shape);
    let other = data.clone().unsqueeze_dim::<3>(1).expand(shape);
    let above = Activation::Relu.composed(other - own);
    let inside = (above.clone() * above).sum_dim(2).squeeze_dim::<2>(2).lower_elem(1.0);
    let outside = inside.clone().bool_not();

    // The root of that sum over the support, a quadratic in t.
    let size = inside.float().cast(u.dtype()).sum_dim(1);
    let support = u.clone().mask_fill(outside.clone(), 0.0);
    let mean = support.clone().sum_dim(1) / size.clone();
    let scatter = (support.clone() * support).sum_dim(1) - mean.clone() * mean.clone() * size.clone();
    let threshold = mean - ((-scatter + 1.0) / size).sqrt();
    let root = Activation::Relu.composed((u - threshold).mask_fill(outside, 0.0));
    let p = root.clone() * root;

    let invalid = raw.clone().is_nan().bool_or(raw.equal_elem(f32::INFINITY));
    let invalid = data.is_nan().bool_or(invalid).any_dim(1).expand([rows, k]);
    p.mask_fill(invalid, f32::NAN)
}
