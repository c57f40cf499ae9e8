//! Sparsemax: the Euclidean projection on the simplex (Martins & Astudillo 2016).

use burn::tensor::{Tensor, backend::Backend};

use crate::{Activation, AllMasked, OpsBackend};

/// Sparsemax of each row at a temperature: the projection of `u = (z - max z) / temperature`.
///
/// `p = max(u - t, 0)` with `t` such that `sum p = 1`. Its gradient is
/// `dz = 1_S (g - mean_{j in S} g_j) / temperature`, `S` the support. Finite for `|z|` up to 1e38;
/// an entry of `-inf` gets exactly 0; a row of only `-inf` is an error. A row with a NaN or `+inf` is
/// NaN. Ties share equally.
///
/// Shapes: `z` and the result `[rows, K]`. Panics unless `temperature > 0`.
pub fn sparsemax<B: OpsBackend>(z: Tensor<B, 2>, temperature: f32) -> Result<Tensor<B, 2>, AllMasked> {
    assert!(temperature > 0.0, "sparsemax: temperature {temperature}, need more than 0");
    match B::all_masked_row(&z) {
        Some(row) => Err(AllMasked { row }),
        None => Ok(B::sparsemax(z, temperature)),
    }
}

/// [`sparsemax`] by plain tensor operations; compares all pairs, so memory grows with `K^2`. A row of
/// only `-inf` is NaN.
pub fn composed<B: Backend>(z: Tensor<B, 2>, temperature: f32) -> Tensor<B, 2> {
    let [rows, k] = z.dims();
    let shape = [rows, k, k];
    let raw = z.clone().detach();
    let max = raw.clone().max_dim(1); // [B, 1]
    let u = (z - max).div_scalar(temperature); // [B, K]

    // Entry i is in the support iff 1 + n u_i > s, over the n entries j with u_j >= u_i, whose sum
    // is s. Only finite entries can be: no entry at or below -1 is.
    let data = u.clone().detach();
    let own = data.clone().unsqueeze_dim::<3>(2).expand(shape);
    let other = data.clone().unsqueeze_dim::<3>(1).expand(shape);
    let smaller = other.clone().lower(own);
    let sum = other.mask_fill(smaller.clone(), 0.0).sum_dim(2).squeeze_dim::<2>(2);
    let count = smaller.bool_not().float().cast(sum.dtype()).sum_dim(2).squeeze_dim::<2>(2);
    let inside = (data.clone() * count + 1.0).greater(sum).bool_and(data.clone().greater_elem(-1.0));
    let outside = inside.clone().bool_not();

    let size = inside.float().cast(u.dtype()).sum_dim(1);
    let threshold = (u.clone().mask_fill(outside.clone(), 0.0).sum_dim(1) - 1.0) / size;
    let p = Activation::Relu.composed((u - threshold).mask_fill(outside, 0.0));

    let invalid = raw.clone().is_nan().bool_or(raw.equal_elem(f32::INFINITY));
    let invalid = data.is_nan().bool_or(invalid).any_dim(1).expand([rows, k]);
    p.mask_fill(invalid, f32::NAN)
}
