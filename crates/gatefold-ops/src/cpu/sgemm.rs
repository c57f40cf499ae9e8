//! The matrix product of the fused kernels: `C = init + A B`, one order of summation for all shapes.
//!
//! A may have any strides, B comes in panels, so that `x W`, `g W^T` and `x^T g` are one code. Every element
//! of C is summed over ascending k in one accumulator, so its bits depend on its row of A and its column of B
//! alone.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use super::{
    level::Level,
    microkernel::{self, PANEL, Tile},
    panels::{Matrix, Panels},
    prefetch::Soon,
    scratch::Scratch,
    unset::{Part, assume_set},
};

/// What the sums start from.
#[derive(Clone, Copy)]
pub(crate) enum Init<'a> {
    /// 0.
    Zero,
    /// One row for all rows of C: a bias.
    Row(&'a [f32]),
    /// A matrix of C's shape.
    Rows(&'a [f32]),
    /// What C holds: sums that go on.
    Held,
}

/// Rows of C that are finished together, while they and their rows of A are in cache: so many that the 64 of
/// other kernels' blocks are one.
const HOT_ROWS: usize = 66;

/// `c = init + A B`, row-major; `finish` gets every block of finished rows (an activation).
pub(crate) fn gemm(
    level: Level,
    a: Matrix<'_>,
    b: &Panels<'_>,
    init: Init<'_>,
    c: &mut [f32],
    finish: impl Fn(&mut [f32]),
) {
    // SAFETY: `MaybeUninit<f32>` lies in memory as `f32` does; C is set before and stays so.
    unsafe {
        let c = &mut *(std::ptr::from_mut(c) as *mut [MaybeUninit<f32>]);
        set_product(level, a, b, init, c, finish);
    }
}

/// [`gemm`] into memory that is not set yet, from anything but [`Init::Held`].
pub(crate) fn gemm_unset<'a>(
    level: Level,
    a: Matrix<'_>,
    b: &Panels<'_>,
    init: Init<'_>,
    c: Part<'a>,
    finish: impl Fn(&mut [f32]),
) -> &'a mut [f32] {
    assert!(!matches!(init, Init::Held), "memory that is not set holds nothing");
    // SAFETY: a product sets every element, and reads none that it did not set.
    unsafe { c.set_by(|c| set_product(level, a, b, init, c, finish)) }
}

/// Sets every element of `c`.
///
/// # Safety
/// With [`Init::Held`] every element is set before.
unsafe fn set_product(
    level: Level,
    a: Matrix<'_>,
    b: &Panels<'_>,
    init: Init<'_>,
    c: &mut [MaybeUninit<f32>],
    finish: impl Fn(&mut [f32]),
) {
    let (rows, n) = (a.rows, b.n);
    assert_eq!(a.cols, b.k, "inner sizes of a matrix product");
    assert_eq!(c.len(), rows * n, "size of the result of a matrix product");
    if rows == 0 || n == 0 {
        return;
    }
    if b.k > 0 {
        let last = (rows - 1) * a.row_stride + (b.k - 1) * a.col_stride;
        assert!(last < a.data.len(), "the last element of A is in its data");
    }
    match init {
        Init::Row(row) => assert_eq!(row.len(), n, "length of the first row of sums"),
        Init::Rows(matrix) => assert_eq!(matrix.len(), rows * n, "size of the first sums"),
        Init::Zero | Init::Held => {}
    }
    let mut soon = a.soon;
    for (block, c) in c.chunks_mut(HOT_ROWS * n).enumerate() {
        let mut row = 0;
        for (shape, tiles) in microkernel::cover(level, c.len() / n, n / PANEL) {
            if tiles == 0 {
                continue;
            }
            let (height, mut p) = (shape.0, 0);
            while p * PANEL < n {
                let panels = microkernel::at_once(level, shape, n / PANEL - p);
                let shape = (height, panels, tiles);
                // SAFETY: `level` is one this machine has; A and init were checked above, B has its
                // panels by construction, the tiles' rows are rows of C, set if they are read.
                unsafe { tiles_at(level, shape, a, b, init, c, (block * HOT_ROWS, row, p), soon) };
                soon = soon.after(tiles * microkernel::lines_meanwhile(level, b.k));
                p += panels;
            }
            row += tiles * height;
        }
        assert_eq!(row * n, c.len(), "rows that tiles cover");
        // SAFETY: the tiles cover the block, as asserted.
        finish(unsafe { assume_set(c) });
    }
}

/// Up to so many columns a product is computed as its transpose: a panel would be mostly padding.
const NARROW: usize = 8;

/// Whether [`narrow`] is the faster way to a product of these sizes.
pub(crate) fn is_narrow(rows: usize, columns: usize) -> bool {
    columns <= NARROW && rows >= 8
}

/// [`gemm`] for few columns, with the same bits: rows of A lie side by side in the lanes.
pub(crate) fn narrow(level: Level, a: Matrix<'_>, b: Matrix<'_>, init: Init<'_>, c: &mut [f32]) {
    let (rows, n) = (a.rows, b.cols);
    assert_eq!(c.len(), rows * n, "size of the result of a matrix product");
    let mut turned = Scratch::new(rows * n); // C^T
    if rows == 0 || n == 0 {
        return;
    }
    for (j, column) in turned.chunks_exact_mut(rows).enumerate() {
        match init {
            Init::Zero => column.fill(0.0),
            Init::Row(row) => column.fill(row[j]),
            Init::Rows(first) => {
                column.iter_mut().zip(first.chunks_exact(n)).for_each(|(sum, row)| *sum = row[j])
            }
            Init::Held => column.iter_mut().zip(c.chunks_exact(n)).for_each(|(sum, row)| *sum = row[j]),
        }
    }
    gemm(level, b.t(), &Panels::new(a.t(), n), Init::Held, &mut turned, |_| {});
    for (j, column) in turned.chunks_exact(rows).enumerate() {
        for (row, &sum) in c.chunks_exact_mut(n).zip(column) {
            row[j] = sum;
        }
    }
}

/// Tiles of C one below the other, from row `at` of its block on, at panel `p`; a panel that C has only
/// part of goes through a buffer, tile by tile.
///
/// # Safety
/// `level` is one this machine has; the tiles' rows and panels exist; C is set if it is held.
unsafe fn tiles_at(
    level: Level,
    (height, panels, count): (usize, usize, usize),
    a: Matrix<'_>,
    b: &Panels<'_>,
    init: Init<'_>,
    c: &mut [MaybeUninit<f32>],
    (block_row, at, p): (usize, usize, usize),
    soon: Soon,
) {
    const ZEROS: [f32; 4 * PANEL] = [0.0; 4 * PANEL];
    let (b_data, b_row, b_panel) = b.panel(p);
    let n = b.n;
    let width = (n - p * PANEL).min(panels * PANEL);
    let mut tile = Tile {
        count,
        k: b.k,
        a: a.data.as_ptr().wrapping_add((block_row + at) * a.row_stride),
        a_row: a.row_stride,
        a_col: a.col_stride,
        b: b_data,
        b_row,
        b_panel,
        init: ZEROS.as_ptr(),
        init_row: 0,
        c: c[at * n + p * PANEL..].as_mut_ptr().cast(),
        c_row: n,
        soon,
    };
    if width == panels * PANEL {
        match init {
            Init::Zero => {}
            Init::Row(row) => tile.init = row[p * PANEL..].as_ptr(),
            Init::Rows(matrix) => {
                (tile.init, tile.init_row) = (matrix[(block_row + at) * n + p * PANEL..].as_ptr(), n);
            }
            Init::Held => (tile.init, tile.init_row) = (tile.c, n),
        }
        // SAFETY: the caller vouches for the tiles; C has `count * height` rows and these columns.
        unsafe { microkernel::run(level, (height, panels), tile) };
        return;
    }
    let mut buffer = [0.0f32; 12 * PANEL];
    let mut start = [0.0f32; PANEL];
    if let Init::Row(row) = init {
        start[..width].copy_from_slice(&row[p * PANEL..]);
    }
    (tile.count, tile.init, tile.c_row) = (1, start.as_ptr(), PANEL);
    for at in (at..).step_by(height).take(count) {
        let part = |row: usize| (at + row) * n + p * PANEL..(at + row + 1) * n;
        for (row, buffer) in buffer.chunks_exact_mut(PANEL).take(height).enumerate() {
            match init {
                Init::Zero | Init::Row(_) => break,
                Init::Rows(matrix) => {
                    buffer[..width].copy_from_slice(&matrix[block_row * n..][part(row)]);
                }
                // SAFETY: the caller vouches for what is held.
                Init::Held => buffer[..width].copy_from_slice(unsafe { assume_set(&mut c[part(row)]) }),
            }
            tile.init_row = PANEL;
        }
        tile.c = buffer.as_mut_ptr();
        if tile.init_row > 0 {
            tile.init = tile.c;
        }
        // SAFETY: as above, with the buffer for C; no tile is higher than 12 rows.
        unsafe { microkernel::run(level, (height, panels), tile) };
        for (row, buffer) in buffer.chunks_exact(PANEL).take(height).enumerate() {
            for (to, &sum) in c[part(row)].iter_mut().zip(buffer) {
                to.write(sum);
            }
        }
        tile.a = tile.a.wrapping_add(height * a.row_stride);
        tile.soon = tile.soon.after(microkernel::lines_meanwhile(level, b.k));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{
        level::{level, mul_add},
        unset::Unset,
    };

    fn numbers(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        std::iter::repeat_with(next).take(len).collect()
    }

    fn product(level: Level, a: Matrix<'_>, b: Matrix<'_>, init: Init<'_>) -> Vec<f32> {
        let mut c = vec![f32::NAN; a.rows * b.cols];
        gemm(level, a, &Panels::new(b, a.rows), init, &mut c, |_| {});
        c
    }

    /// The definition: one accumulator per element, ascending k.
    fn naive<const FMA: bool>(a: Matrix<'_>, b: Matrix<'_>, bias: &[f32]) -> Vec<f32> {
        let at = |m: Matrix<'_>, i: usize, j: usize| m.data[i * m.row_stride + j * m.col_stride];
        (0..a.rows * b.cols)
            .map(|e| {
                let (i, j) = (e / b.cols, e % b.cols);
                (0..a.cols).fold(bias[j], |c, k| mul_add::<FMA>(at(a, i, k), at(b, k, j), c))
            })
            .collect()
    }

    const SHAPES: [(usize, usize, usize); 12] = [
        (1, 1, 1),
        (1, 64, 64),
        (2, 5, 33),
        (3, 7, 16),
        (5, 4, 70),
        (6, 16, 17),
        (12, 3, 2),
        (31, 130, 40),
        (47, 64, 64),
        (64, 4, 1),
        (65, 70, 100),
        (101, 0, 9),
    ];

    #[test]
    fn every_element_has_the_bits_of_its_definition_in_all_three_layouts() {
        for (m, k, n) in SHAPES {
            let (x, w, bias) = (numbers(m * k, 1), numbers(k * n, 2), numbers(n, 3));
            let layouts = [
                (Matrix::new(&x, m, k), Matrix::new(&w, k, n)),
                (Matrix::new(&x, m, k), Matrix::new(&w, n, k).t()),
                (Matrix::new(&x, k, m).t(), Matrix::new(&w, k, n)),
            ];
            for (a, b) in layouts {
                let expected = naive::<false>(a, b, &bias);
                assert_eq!(product(Level::Portable, a, b, Init::Row(&bias)), expected, "{m} {k} {n}");
                if level() != Level::Portable {
                    let expected = naive::<true>(a, b, &bias);
                    assert_eq!(product(level(), a, b, Init::Row(&bias)), expected, "{m} {k} {n}");
                }
            }
        }
    }

    #[test]
    fn a_narrow_product_and_one_that_goes_on_have_the_bits_of_the_definition() {
        for (m, k, n) in [(8, 64, 2), (64, 64, 1), (50, 7, 8), (9, 3, 5), (70, 20, 33)] {
            let (x, w, bias) = (numbers(m * k, 1), numbers(k * n, 2), numbers(n, 3));
            let (a, b) = (Matrix::new(&x, m, k), Matrix::new(&w, k, n));
            let expected = product(level(), a, b, Init::Row(&bias));
            let mut got = vec![f32::NAN; m * n];
            narrow(level(), a, b, Init::Row(&bias), &mut got);
            assert_eq!(got, expected, "{m} {k} {n}");

            // The first sums of both ways, then the last ones on top of them.
            let (front, back) = (k / 2, k - k / 2);
            let columns = |from: usize, count: usize| -> Vec<f32> {
                x.chunks(k).flat_map(|row| row[from..from + count].to_vec()).collect()
            };
            let (x1, x2) = (columns(0, front), columns(front, back));
            let (a1, a2) = (Matrix::new(&x1, m, front), Matrix::new(&x2, m, back));
            let (b1, b2) = (Matrix::new(&w[..front * n], front, n), Matrix::new(&w[front * n..], back, n));
            let mut sums = product(level(), a1, b1, Init::Row(&bias));
            let (mut narrow_sums, mut narrow_from) = (sums.clone(), vec![f32::NAN; m * n]);
            narrow(level(), a2, b2, Init::Rows(&sums), &mut narrow_from);
            narrow(level(), a2, b2, Init::Held, &mut narrow_sums);
            assert_eq!((&narrow_from, &narrow_sums), (&expected, &expected), "{m} {k} {n}");

            let (mut unset, panels) = (Unset::new(m * n), Panels::new(b2, m));
            gemm_unset(level(), a2, &panels, Init::Rows(&sums), unset.whole(), |_| {});
            gemm(level(), a2, &panels, Init::Held, &mut sums, |_| {});
            assert_eq!((unset.finish(), sums), (expected.clone(), expected), "{m} {k} {n}");
        }
    }

    #[test]
    fn what_comes_after_a_product_changes_no_bit_of_it() {
        let next = numbers(1000, 9);
        for (m, k, n) in SHAPES {
            let (x, w) = (numbers(m * k, 1), numbers(k * n, 2));
            let (a, b) = (Matrix::new(&x, m, k), Matrix::new(&w, k, n));
            let mut c = vec![f32::NAN; m * n];
            // Fewer lines than a tile asks for, some more, and none.
            for wanted in [40, 1000, 0] {
                let soon = Soon::of(&next[..wanted]);
                gemm(level(), a.before(soon), &Panels::new(b, m), Init::Zero, &mut c, |_| {});
                assert_eq!(c, product(level(), a, b, Init::Zero), "{m} {k} {n} {wanted}");
            }
        }
    }

    #[test]
    fn sums_without_a_bias_start_from_zero() {
        let (x, w) = (numbers(14, 1), numbers(63, 2));
        let (a, b) = (Matrix::new(&x, 2, 7), Matrix::new(&w, 7, 9));
        assert_eq!(product(level(), a, b, Init::Zero), product(level(), a, b, Init::Row(&[0.0; 9])));
    }

    #[test]
    fn every_finished_row_is_handed_on_once() {
        let (x, w) = (numbers(100 * 3, 1), numbers(3 * 5, 2));
        let mut c = vec![0.0; 100 * 5];
        let b = Panels::new(Matrix::new(&w, 3, 5), 100);
        gemm(level(), Matrix::new(&x, 100, 3), &b, Init::Zero, &mut c, |rows| {
            rows.iter_mut().for_each(|y| *y += 10.0);
        });
        let plain = product(level(), Matrix::new(&x, 100, 3), Matrix::new(&w, 3, 5), Init::Zero);
        assert!(c.iter().zip(plain).all(|(&c, p)| c == p + 10.0));
    }
}
