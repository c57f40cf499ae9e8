//! The loops of layer normalisation, ReLU and residual, row by row.
//!
//! Common widths are taken by [`super::norm_relu_lanes`], four rows at once.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use super::{
    level::{mul_add, multiversion},
    math::{LANES, dot, fold_lanes},
    norm_relu_lanes::{self, ROWS},
    scratch::Scratch,
    unset::Part,
};
use crate::norm_relu::EPSILON;

/// `sum_i f(x_i)` in [`LANES`] partial sums.
#[inline(always)]
fn sum_of(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for l in 0..LANES {
            lanes[l] += f(chunk[l]);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += f(x);
    }
    fold_lanes(lanes)
}

/// Where the mean of a row is among the moments; its reciprocal standard deviation is [`ROWS`] behind.
#[inline(always)]
fn moments_at(row: usize) -> usize {
    row / ROWS * 2 * ROWS + row % ROWS
}

/// Mean and reciprocal standard deviation of a row.
#[inline(always)]
fn moments_of(x: &[f32]) -> (f32, f32) {
    let mean = sum_of(x, |x| x) / x.len() as f32;
    let variance = sum_of(x, |x| (x - mean) * (x - mean)) / x.len() as f32;
    (mean, 1.0 / (variance + EPSILON).sqrt())
}

/// How many numbers the moments of so many rows are: mean and reciprocal standard deviation of each, those
/// of four rows together.
pub(super) const fn num_moments(rows: usize) -> usize {
    2 * rows.next_multiple_of(ROWS)
}

/// The rows that norms are added to.
#[derive(Clone, Copy)]
pub(super) struct Residual<'a> {
    rows: &'a [f32],
    /// Which of the rows each is; all of them in order, if it does not say.
    picked: Option<&'a [u32]>,
}

impl<'a> Residual<'a> {
    /// All of these rows.
    pub(super) fn all(rows: &'a [f32]) -> Self {
        Self { rows, picked: None }
    }

    /// Some of these rows.
    pub(super) fn picked(rows: &'a [f32], picked: &'a [u32]) -> Self {
        Self { rows, picked: Some(picked) }
    }

    /// The `row`th of them, all of which are `width` wide.
    #[inline(always)]
    pub(super) fn row(&self, row: usize, width: usize) -> &'a [f32] {
        let row = self.picked.map_or(row, |picked| picked[row] as usize);
        &self.rows[row * width..][..width]
    }
}

/// `y = residual + relu(LayerNorm(x) * gamma + beta)` for some rows, and their moments.
pub(super) fn forward_rows(
    x: &[f32],
    residual: Residual<'_>,
    gamma: &[f32],
    beta: &[f32],
    moments: &mut [f32],
    y: Part<'_>,
) {
    let forward = match gamma.len() {
        32 => norm_relu_lanes::forward::<4>,
        64 => norm_relu_lanes::forward::<8>,
        128 => norm_relu_lanes::forward::<16>,
        _ => forward_any,
    };
    assert_eq!(x.len(), y.len(), "numbers of rows before and after");
    assert!(y.len().is_multiple_of(gamma.len()), "{} numbers in rows of {}", y.len(), gamma.len());
    assert!(moments.len() >= num_moments(y.len() / gamma.len()), "room for the moments of all rows");
    // SAFETY: every kernel sets all rows of `y`, as there are rows of `x`, and room for moments, for all of them.
    unsafe { y.set_by(|y| forward(x, residual, gamma, beta, moments, y)) };
}

multiversion! {
    fn forward_any(
        x: &[f32], residual: Residual<'_>, gamma: &[f32], beta: &[f32], moments: &mut [f32],
        y: &mut [MaybeUninit<f32>],
    ) = forward_body
}

#[inline(always)]
fn forward_body<const FMA: bool>(
    x: &[f32],
    residual: Residual<'_>,
    gamma: &[f32],
    beta: &[f32],
    moments: &mut [f32],
    y: &mut [MaybeUninit<f32>],
) {
    let width = gamma.len();
    let beta = &beta[..width];
    for (row, (x, y)) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).enumerate() {
        let residual = &residual.row(row, width)[..width];
        let (mean, scale) = moments_of(x);
        let at = moments_at(row);
        (moments[at], moments[at + ROWS]) = (mean, scale);
        let (x, y) = (&x[..width], &mut y[..width]);
        for i in 0..width {
            let out = mul_add::<FMA>((x[i] - mean) * scale, gamma[i], beta[i]);
            y[i].write(residual[i] + if out <= 0.0 { 0.0 } else { out });
        }
    }
}

/// The backward pass, with the moments of the forward pass: fills `d_x`, adds to `d_gamma` and `d_beta`.
pub(super) fn backward_rows(
    x: &[f32],
    moments: &[f32],
    gamma: &[f32],
    beta: &[f32],
    g: &[f32],
    d_x: &mut [f32],
    d_gamma: &mut [f32],
    d_beta: &mut [f32],
) {
    match gamma.len() {
        32 => norm_relu_lanes::backward::<4>(x, moments, gamma, beta, g, d_x, d_gamma, d_beta),
        64 => norm_relu_lanes::backward::<8>(x, moments, gamma, beta, g, d_x, d_gamma, d_beta),
        128 => norm_relu_lanes::backward::<16>(x, moments, gamma, beta, g, d_x, d_gamma, d_beta),
        _ => backward_any(x, moments, gamma, beta, g, d_x, d_gamma, d_beta),
    }
}

multiversion! {
    fn backward_any(
        x: &[f32], moments: &[f32], gamma: &[f32], beta: &[f32], g: &[f32],
        d_x: &mut [f32], d_gamma: &mut [f32], d_beta: &mut [f32],
    ) = backward_body
}

#[inline(always)]
fn backward_body<const FMA: bool>(
    x: &[f32],
    moments: &[f32],
    gamma: &[f32],
    beta: &[f32],
    g: &[f32],
    d_x: &mut [f32],
    d_gamma: &mut [f32],
    d_beta: &mut [f32],
) {
    let width = gamma.len();
    let (beta, d_gamma, d_beta) = (&beta[..width], &mut d_gamma[..width], &mut d_beta[..width]);
    let mut normed = Scratch::new(width);
    let rows = x.chunks_exact(width).zip(g.chunks_exact(width)).zip(d_x.chunks_exact_mut(width));
    for (row, ((x, g), d_x)) in rows.enumerate() {
        let at = moments_at(row);
        let (mean, scale) = (moments[at], moments[at + ROWS]);
        let (x, g, d_x, normed) = (&x[..width], &g[..width], &mut d_x[..width], &mut normed[..width]);
        for i in 0..width {
            normed[i] = (x[i] - mean) * scale;
            let out = mul_add::<FMA>(normed[i], gamma[i], beta[i]);
            let passed = if out <= 0.0 { 0.0 } else { g[i] };
            d_gamma[i] = mul_add::<FMA>(passed, normed[i], d_gamma[i]);
            d_beta[i] += passed;
            d_x[i] = passed * gamma[i];
        }
        let mean_d = sum_of(d_x, |d| d) / width as f32;
        let mean_dn = dot::<FMA>(d_x, normed) / width as f32;
        for i in 0..width {
            d_x[i] = scale * (d_x[i] - mean_d - normed[i] * mean_dn);
        }
    }
}
