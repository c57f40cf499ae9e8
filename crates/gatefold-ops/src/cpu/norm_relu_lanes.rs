//! Layer normalisation, ReLU and residual of rows of `N` vectors, four rows at once.
//!
//! What is summed over a row takes one register for four rows. A row's bits depend on the row alone:
//! the last few are joined by rows of which nothing is written.

// N vectors of a row

use super::{
    gat_four::{eights, eights_mut},
    lanes::{Lanes, Quad, vectorised},
};
use crate::norm_relu::EPSILON;

/// Rows taken at once.
const ROWS: usize = 4;

/// Mean and reciprocal standard deviation of each of four rows.
#[inline(always)]
fn moments<L: Lanes, const N: usize>(x: [&[[f32; 8]]; ROWS]) -> [[f32; ROWS]; 2] {
    let width = L::Quad::splat((8 * N) as f32);
    let mut sums = [L::splat(0.0); ROWS];
    for r in 0..ROWS {
        let x = &x[r][..N];
        // Two sums, so that additions need not wait for each other.
        let mut odd = L::load(&x[1]);
        sums[r] = L::load(&x[0]);
        for v in 1..N / 2 {
            sums[r] = sums[r].add(L::load(&x[2 * v]));
            odd = odd.add(L::load(&x[2 * v + 1]));
        }
        sums[r] = sums[r].add(odd);
    }
    let mut mean = [0.0; ROWS];
    L::sums(sums).div(width).store(&mut mean);
    for r in 0..ROWS {
        let (x, mean) = (&x[r][..N], L::splat(mean[r]));
        let mut odd = L::splat(0.0);
        sums[r] = L::splat(0.0);
        for v in 0..N / 2 {
            let [a, b] = [L::load(&x[2 * v]).sub(mean), L::load(&x[2 * v + 1]).sub(mean)];
            sums[r] = a.mul_add(a, sums[r]);
            odd = b.mul_add(b, odd);
        }
        sums[r] = sums[r].add(odd);
    }
    let mut scale = [0.0; ROWS];
    let variance = L::sums(sums).div(width).add(L::Quad::splat(EPSILON));
    L::Quad::splat(1.0).div(variance.sqrt()).store(&mut scale);
    [mean, scale]
}

/// Rows from `first` on; beyond the last, the last again.
#[inline(always)]
fn rows_from<const N: usize>(x: &[[f32; 8]], first: usize) -> [&[[f32; 8]]; ROWS] {
    let last = x.len() / N - 1;
    let mut rows = [&x[..N]; ROWS];
    for r in 0..ROWS {
        rows[r] = &x[(first + r).min(last) * N..][..N];
    }
    rows
}

vectorised! {
    /// `y += relu(LayerNorm(x) * gain + bias)` for some rows.
    pub(super) fn forward<const N: usize>(x: &[f32], gain: &[f32], bias: &[f32], y: &mut [f32]) = forward_body
}

#[inline(always)]
fn forward_body<L: Lanes, const N: usize>(x: &[f32], gain: &[f32], bias: &[f32], y: &mut [f32]) {
    let (x, gain, bias) = (eights(x), &eights(gain)[..N], &eights(bias)[..N]);
    for (block, y) in eights_mut(y).chunks_mut(ROWS * N).enumerate() {
        let x = rows_from::<N>(x, block * ROWS);
        let [mean, scale] = moments::<L, N>(x);
        for (r, y) in y.chunks_exact_mut(N).enumerate() {
            let (x, mean, scale) = (&x[r][..N], L::splat(mean[r]), L::splat(scale[r]));
            for v in 0..N {
                let normed = L::load(&x[v]).sub(mean).mul(scale);
                let out = normed.mul_add(L::load(&gain[v]), L::load(&bias[v]));
                out.where_above_zero(out).add(L::load(&y[v])).store(&mut y[v]);
            }
        }
    }
}

vectorised! {
    /// The backward pass: fills `d_x`, adds to `d_gain` and `d_bias`.
    pub(super) fn backward<const N: usize>(
        x: &[f32], gain: &[f32], bias: &[f32], g: &[f32], d_x: &mut [f32], d_gain: &mut [f32],
        d_bias: &mut [f32],
    ) = backward_body
}

#[inline(always)]
fn backward_body<L: Lanes, const N: usize>(
    x: &[f32],
    gain: &[f32],
    bias: &[f32],
    g: &[f32],
    d_x: &mut [f32],
    d_gain: &mut [f32],
    d_bias: &mut [f32],
) {
    let (x, gain, bias) = (eights(x), &eights(gain)[..N], &eights(bias)[..N]);
    let (d_gain, d_bias) = (&mut eights_mut(d_gain)[..N], &mut eights_mut(d_bias)[..N]);
    let width = L::Quad::splat((8 * N) as f32);
    let blocks = eights_mut(d_x).chunks_mut(ROWS * N).zip(eights(g).chunks(ROWS * N)).enumerate();
    for (block, (d_x, g)) in blocks {
        let x = rows_from::<N>(x, block * ROWS);
        let [mean, scale] = moments::<L, N>(x);
        let (mut sums, mut products) = ([L::splat(0.0); ROWS], [L::splat(0.0); ROWS]);
        for (r, (d_x, g)) in d_x.chunks_exact_mut(N).zip(g.chunks_exact(N)).enumerate() {
            let (x, mean, scale) = (&x[r][..N], L::splat(mean[r]), L::splat(scale[r]));
            let (mut sum, mut product) = (L::splat(0.0), L::splat(0.0));
            for v in 0..N {
                let normed = L::load(&x[v]).sub(mean).mul(scale);
                let weight = L::load(&gain[v]);
                let out = normed.mul_add(weight, L::load(&bias[v]));
                let passed = out.where_above_zero(L::load(&g[v]));
                passed.mul_add(normed, L::load(&d_gain[v])).store(&mut d_gain[v]);
                passed.add(L::load(&d_bias[v])).store(&mut d_bias[v]);
                let d = passed.mul(weight);
                d.store(&mut d_x[v]);
                sum = sum.add(d);
                product = d.mul_add(normed, product);
            }
            (sums[r], products[r]) = (sum, product);
        }
        let (mut mean_d, mut mean_product) = ([0.0; ROWS], [0.0; ROWS]);
        L::sums(sums).div(width).store(&mut mean_d);
        L::sums(products).div(width).store(&mut mean_product);
        for (r, d_x) in d_x.chunks_exact_mut(N).enumerate() {
            let (x, mean, scale) = (&x[r][..N], L::splat(mean[r]), L::splat(scale[r]));
            let (mean_d, mean_product) = (L::splat(mean_d[r]), L::splat(mean_product[r]));
            for v in 0..N {
                let normed = L::load(&x[v]).sub(mean).mul(scale);
                let d = L::load(&d_x[v]).sub(mean_d).sub(normed.mul(mean_product));
                d.mul(scale).store(&mut d_x[v]);
            }
        }
    }
}
