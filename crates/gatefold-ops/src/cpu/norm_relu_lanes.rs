//! Layer normalisation, ReLU and residual of rows of `N` vectors, four rows at once.
//!
//! What is summed over a row takes one register for four rows. A row's bits depend on the row alone.

// N vectors of a row

use std::mem::MaybeUninit;

use super::{
    gat_four::{eights, eights_mut},
    lanes::{Lanes, Quad, Vector, vectorised_wide},
    norm_relu_kernel::Residual,
};
use crate::norm_relu::EPSILON;

/// Rows taken at once.
pub(super) const ROWS: usize = 4;

/// Rows of which sums over a row are found before any of them is needed: adding up within a register takes
/// long, and others can be worked on meanwhile.
const GROUP: usize = 4 * ROWS;

/// Two numbers of each of four rows: mean and reciprocal standard deviation, or means of the gradient.
type OfRows = [[f32; ROWS]; 2];

/// The pairs of numbers in `xs`.
#[inline(always)]
fn of_rows(xs: &[f32]) -> &[OfRows] {
    xs.as_chunks().0.as_chunks().0
}

/// As [`of_rows`], to be written.
#[inline(always)]
fn of_rows_mut(xs: &mut [f32]) -> &mut [OfRows] {
    xs.as_chunks_mut().0.as_chunks_mut().0
}

/// Mean and reciprocal standard deviation of each of four rows.
#[inline(always)]
fn moments_of<L: Lanes, const N: usize>(x: [&[[f32; 8]]; ROWS]) -> OfRows {
    let share = L::Quad::splat(1.0 / (8 * N) as f32);
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
    L::sums(sums).mul(share).store(&mut mean);
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
    let variance = L::sums(sums).mul(share).add(L::Quad::splat(EPSILON));
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

vectorised_wide! {
    /// `y = residual + relu(LayerNorm(x) * gain + bias)` for some rows, all of which it sets; `moments` takes mean
    /// and reciprocal standard deviation of each.
    pub(super) fn forward<const N: usize>(
        x: &[f32], residual: Residual<'_>, gain: &[f32], bias: &[f32], moments: &mut [f32],
        y: &mut [MaybeUninit<f32>],
    ) = forward_body by N
}

#[inline(always)]
fn forward_body<W: Vector, const N: usize>(
    x: &[f32],
    residual: Residual<'_>,
    gain: &[f32],
    bias: &[f32],
    moments: &mut [f32],
    y: &mut [MaybeUninit<f32>],
) {
    let (x, parameters) = (eights(x), [&eights(gain)[..N], &eights(bias)[..N]]);
    let moments = of_rows_mut(moments);
    for (block, moments) in moments.iter_mut().enumerate() {
        *moments = moments_of::<W::Lanes, N>(rows_from::<N>(x, block * ROWS));
    }
    let (y, _) = y.as_chunks_mut();
    let blocks = y.chunks_mut(ROWS * N).zip(x.chunks(ROWS * N));
    for (block, ((y, x), &moments)) in blocks.zip(moments.iter()).enumerate() {
        // Known to be four nearly always, so that the loop over them is no loop.
        match y.len() / N {
            ROWS => add_normed::<W, N>(ROWS, x, residual, block, moments, parameters, y),
            rows => add_normed::<W, N>(rows, x, residual, block, moments, parameters, y),
        }
    }
}

/// The forward pass of a block. Column by column, so that what all rows share is read once.
#[inline(always)]
fn add_normed<W: Vector, const N: usize>(
    rows: usize,
    x: &[[f32; 8]],
    residual: Residual<'_>,
    block: usize,
    [mean, scale]: OfRows,
    [gain, bias]: [&[[f32; 8]]; 2],
    y: &mut [[MaybeUninit<f32>; 8]],
) {
    let (x, y) = (&x[..rows * N], &mut y[..rows * N]);
    let mut added = [&x[..N]; ROWS];
    for r in 0..rows {
        added[r] = &eights(residual.row(block * ROWS + r, 8 * N))[..N];
    }
    for v in (0..N).step_by(W::EIGHTS) {
        let (weight, offset) = (W::load(&gain[v..]), W::load(&bias[v..]));
        for r in 0..rows {
            let at = r * N + v;
            let normed = W::load(&x[at..]).sub(W::splat(mean[r])).mul(W::splat(scale[r]));
            let out = normed.mul_add(weight, offset);
            out.where_above_zero(out).add(W::load(&added[r][v..])).set(&mut y[at..]);
        }
    }
}

vectorised_wide! {
    /// The backward pass, with the moments of the forward pass: fills `d_x`, adds to `d_gain` and `d_bias`.
    pub(super) fn backward<const N: usize>(
        x: &[f32], moments: &[f32], gain: &[f32], bias: &[f32], g: &[f32], d_x: &mut [f32],
        d_gain: &mut [f32], d_bias: &mut [f32],
    ) = backward_body by N
}

#[inline(always)]
fn backward_body<W: Vector, const N: usize>(
    x: &[f32],
    moments: &[f32],
    gain: &[f32],
    bias: &[f32],
    g: &[f32],
    d_x: &mut [f32],
    d_gain: &mut [f32],
    d_bias: &mut [f32],
) {
    let (x, gain, bias) = (eights(x), &eights(gain)[..N], &eights(bias)[..N]);
    let (d_gain, d_bias) = (&mut eights_mut(d_gain)[..N], &mut eights_mut(d_bias)[..N]);
    let moments = of_rows(moments).chunks(GROUP / ROWS);
    let groups = eights_mut(d_x).chunks_mut(GROUP * N).zip(eights(g).chunks(GROUP * N));
    for ((d_x, g), (x, moments)) in groups.zip(x.chunks(GROUP * N).zip(moments)) {
        let mut means = [[[0.0; ROWS]; 2]; GROUP / ROWS];
        let blocks = d_x.chunks_mut(ROWS * N).zip(g.chunks(ROWS * N)).zip(x.chunks(ROWS * N));
        for (((d_x, g), x), (&moments, means)) in blocks.zip(moments.iter().zip(&mut means)) {
            let parameters = [gain, bias];
            let gradients = [&mut *d_gain, &mut *d_bias];
            *means = match d_x.len() / N {
                ROWS => normed_back::<W::Lanes, N>(ROWS, x, moments, parameters, g, d_x, gradients),
                rows => normed_back::<W::Lanes, N>(rows, x, moments, parameters, g, d_x, gradients),
            };
        }
        let blocks = d_x.chunks_mut(ROWS * N).zip(x.chunks(ROWS * N));
        for ((d_x, x), ([mean, scale], [mean_d, mean_product])) in blocks.zip(moments.iter().zip(&means)) {
            for (r, (d_x, x)) in d_x.chunks_exact_mut(N).zip(x.chunks_exact(N)).enumerate() {
                let of_row = [mean[r], scale[r], mean_d[r], mean_product[r]];
                take_means::<W, N>(x, of_row, d_x);
            }
        }
    }
}

/// The gradient of a row from that of the normed one in `d_x`: less its mean and that of its products.
#[inline(always)]
fn take_means<W: Vector, const N: usize>(x: &[[f32; 8]], of_row: [f32; 4], d_x: &mut [[f32; 8]]) {
    let (x, d_x) = (&x[..N], &mut d_x[..N]);
    let [mean, scale] = [W::splat(of_row[0]), W::splat(of_row[1])];
    let [mean_d, mean_product] = [W::splat(of_row[2]), W::splat(of_row[3])];
    for v in (0..N).step_by(W::EIGHTS) {
        let normed = W::load(&x[v..]).sub(mean).mul(scale);
        let d = W::load(&d_x[v..]).sub(mean_d).sub(normed.mul(mean_product));
        d.mul(scale).store(&mut d_x[v..]);
    }
}

/// Fills `d_x` with the gradient of the normed rows and adds to those of the parameters; the mean of each
/// row of it, and of its products with the normed row. Column by column, as in [`add_normed`].
#[inline(always)]
fn normed_back<L: Lanes, const N: usize>(
    rows: usize,
    x: &[[f32; 8]],
    [mean, scale]: OfRows,
    [gain, bias]: [&[[f32; 8]]; 2],
    g: &[[f32; 8]],
    d_x: &mut [[f32; 8]],
    [d_gain, d_bias]: [&mut [[f32; 8]]; 2],
) -> OfRows {
    let (x, g, d_x) = (&x[..rows * N], &g[..rows * N], &mut d_x[..rows * N]);
    let (mut sums, mut products) = ([L::splat(0.0); ROWS], [L::splat(0.0); ROWS]);
    for v in 0..N {
        let (weight, offset) = (L::load(&gain[v]), L::load(&bias[v]));
        let (mut of_gain, mut of_bias) = (L::load(&d_gain[v]), L::load(&d_bias[v]));
        for r in 0..rows {
            let normed = L::load(&x[r * N + v]).sub(L::splat(mean[r])).mul(L::splat(scale[r]));
            let out = normed.mul_add(weight, offset);
            let passed = out.where_above_zero(L::load(&g[r * N + v]));
            of_gain = passed.mul_add(normed, of_gain);
            of_bias = passed.add(of_bias);
            let d = passed.mul(weight);
            d.store(&mut d_x[r * N + v]);
            sums[r] = sums[r].add(d);
            products[r] = d.mul_add(normed, products[r]);
        }
        of_gain.store(&mut d_gain[v]);
        of_bias.store(&mut d_bias[v]);
    }
    let share = L::Quad::splat(1.0 / (8 * N) as f32);
    let mut means = [[0.0; ROWS]; 2];
    L::sums(sums).mul(share).store(&mut means[0]);
    L::sums(products).mul(share).store(&mut means[1]);
    means
}
