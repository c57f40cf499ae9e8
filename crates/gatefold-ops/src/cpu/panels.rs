//! The right side of a matrix product in panels of 16 columns.
//!
//! Packing pads the last panel, and transposes. For a few rows it costs more than it saves: then full panels are
//! read where they lie.

#![allow(unsafe_code)]

use std::ops::Range;

use super::{
    level::{Level, level},
    microkernel::PANEL,
    prefetch::Soon,
    scratch::Scratch,
};

/// A matrix as a view: element (i, j) is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
    /// Of the left side of a product: what comes after it.
    pub(super) soon: Soon,
}

impl<'a> Matrix<'a> {
    /// A row-major matrix.
    pub(crate) fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a matrix of {rows} x {cols}");
        Self { data, rows, cols, row_stride: cols, col_stride: 1, soon: Soon::default() }
    }

    /// With memory to ask for while a product of which this is the left side is computed.
    pub(crate) fn before(self, soon: Soon) -> Self {
        Self { soon, ..self }
    }

    /// Some of its rows.
    pub(crate) fn some_rows(self, rows: Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "rows {rows:?} of {}", self.rows);
        let first = (rows.start * self.row_stride).min(self.data.len());
        Self { data: &self.data[first..], rows: rows.len(), ..self }
    }

    /// The transpose.
    pub(crate) fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// B, ready for multiplication.
pub(crate) struct Panels<'a> {
    /// Full panels are read from here if they were not packed.
    direct: Option<Matrix<'a>>,
    packed: Scratch,
    pub(super) k: usize,
    pub(super) n: usize,
}

impl<'a> Panels<'a> {
    /// Prepares B for a product with `rows` rows of A.
    pub(crate) fn new(b: Matrix<'a>, rows: usize) -> Self {
        let (k, n) = (b.rows, b.cols);
        let stays_in_cache = k * n <= 4096;
        // Where a tile takes four panels at once, what it reads lies together anyway.
        let few = if level() == Level::Avx512 { 64 } else { 31 };
        let direct = b.col_stride == 1 && (rows <= few || stays_in_cache);
        let first = if direct { n / PANEL } else { 0 };
        let count = n.div_ceil(PANEL) - first;
        let mut packed = Scratch::new(count * k * PANEL);
        if k > 0 {
            for (p, panel) in packed.chunks_exact_mut(k * PANEL).enumerate() {
                pack(b, (first + p) * PANEL, panel);
            }
        }
        Self { direct: direct.then_some(b), packed, k, n }
    }

    /// Where panel `p` begins, its row stride, and the distance to the next panel.
    pub(super) fn panel(&self, p: usize) -> (*const f32, usize, usize) {
        let direct = if self.direct.is_some() { self.n / PANEL } else { 0 };
        match self.direct {
            Some(b) if p < direct => (b.data[p * PANEL..].as_ptr(), b.row_stride, PANEL),
            _ => {
                let size = self.k * PANEL;
                (self.packed[(p - direct) * size..].as_ptr(), PANEL, size)
            }
        }
    }
}

/// Copies the panel of columns from `first` on; columns beyond the last become 0.
fn pack(b: Matrix<'_>, first: usize, panel: &mut [f32]) {
    let width = PANEL.min(b.cols - first);
    if b.col_stride == 1 {
        for (k, row) in panel.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
            let from = &b.data[k * b.row_stride + first..];
            match from.first_chunk() {
                Some(whole) if width == PANEL => *row = *whole,
                _ => {
                    row[..width].copy_from_slice(&from[..width]);
                    row[width..].fill(0.0);
                }
            }
        }
    } else {
        let (columns, rows) = pack_blocks(b, first, width, panel);
        for k in if columns == PANEL { rows } else { 0 }..b.rows {
            let row = &mut panel[k * PANEL..(k + 1) * PANEL];
            for j in if k < rows { columns } else { 0 }..width {
                row[j] = b.data[(first + j) * b.col_stride + k * b.row_stride];
            }
            if width < PANEL {
                row[width..].fill(0.0);
            }
        }
    }
}

/// Transposes what it can of a panel and returns how many of its first columns and of their first rows
/// that was.
fn pack_blocks(b: Matrix<'_>, first: usize, width: usize, panel: &mut [f32]) -> (usize, usize) {
    #[cfg(target_arch = "x86_64")]
    if b.row_stride == 1 && level() != Level::Portable {
        let (columns, rows) = (width / 8 * 8, b.rows / 4 * 4);
        if columns > 0 && rows > 0 {
            let from = &b.data[first * b.col_stride..][..(columns - 1) * b.col_stride + rows];
            let to = &mut panel[..rows * PANEL];
            // SAFETY: every other level has AVX2, and the slices hold these columns and rows.
            unsafe {
                match (level(), columns) {
                    (Level::Avx512, PANEL) => turn::panel(from.as_ptr(), b.col_stride, rows, to.as_mut_ptr()),
                    _ => (0..columns).step_by(8).for_each(|j| {
                        let from = from[j * b.col_stride..].as_ptr();
                        turn::half_panel(from, b.col_stride, rows, to[j..].as_mut_ptr());
                    }),
                }
            }
        }
        return (columns, rows);
    }
    let _ = (b, first, width, panel);
    (0, 0)
}

/// Transposition. Four elements at a time go from memory to where their row will end in a vector, which
/// leaves shuffles within fours.
#[cfg(target_arch = "x86_64")]
mod turn {
    use std::arch::x86_64::*;

    use super::PANEL;

    /// Four rows from four vectors that have, lane by lane, four numbers of a column each.
    macro_rules! store_rows {
        ($to:expr, $columns:expr, $unpacklo:ident, $unpackhi:ident, $shuffle:ident, $store:ident) => {
            let (to, [a, b, c, d]) = ($to, $columns);
            let (ab, cd) = ($unpacklo(a, b), $unpacklo(c, d));
            $store(to, $shuffle::<0x44>(ab, cd));
            $store(to.add(PANEL), $shuffle::<0xEE>(ab, cd));
            let (ab, cd) = ($unpackhi(a, b), $unpackhi(c, d));
            $store(to.add(2 * PANEL), $shuffle::<0x44>(ab, cd));
            $store(to.add(3 * PANEL), $shuffle::<0xEE>(ab, cd));
        };
    }

    /// Rows of `PANEL` elements from as many columns.
    ///
    /// # Safety
    /// The machine has AVX-512; `rows`, a multiple of 4, can be read of each column and written.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn panel(from: *const f32, column: usize, rows: usize, to: *mut f32) {
        // SAFETY: the caller vouches for all pointers.
        unsafe {
            for k in (0..rows).step_by(4) {
                let four = |j: usize| _mm_loadu_ps(from.add(j * column + k));
                let mut sixteen = [_mm512_setzero_ps(); 4]; // `map` would pass vectors through memory
                for j in 0..4 {
                    let x = _mm512_castps128_ps512(four(j));
                    let x = _mm512_insertf32x4::<1>(x, four(j + 4));
                    let x = _mm512_insertf32x4::<2>(x, four(j + 8));
                    sixteen[j] = _mm512_insertf32x4::<3>(x, four(j + 12));
                }
                store_rows!(
                    to.add(k * PANEL),
                    sixteen,
                    _mm512_unpacklo_ps,
                    _mm512_unpackhi_ps,
                    _mm512_shuffle_ps,
                    _mm512_storeu_ps
                );
            }
        }
    }

    /// As [`panel`], 8 columns.
    ///
    /// # Safety
    /// As [`panel`], with AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn half_panel(from: *const f32, column: usize, rows: usize, to: *mut f32) {
        // SAFETY: the caller vouches for all pointers.
        unsafe {
            for k in (0..rows).step_by(4) {
                let four = |j: usize| _mm_loadu_ps(from.add(j * column + k));
                let mut eight = [_mm256_setzero_ps(); 4];
                for j in 0..4 {
                    eight[j] = _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(four(j)), four(j + 4));
                }
                store_rows!(
                    to.add(k * PANEL),
                    eight,
                    _mm256_unpacklo_ps,
                    _mm256_unpackhi_ps,
                    _mm256_shuffle_ps,
                    _mm256_storeu_ps
                );
            }
        }
    }
}
