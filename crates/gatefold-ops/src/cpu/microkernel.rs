//! The innermost loop of the matrix product: one tile of C, kept in registers.
//!
//! Every kernel computes, for each element of the tile on its own, `c = init; c += a_k * b_k` for
//! ascending k and nothing else. So an element's bits depend neither on the size of the tile nor on
//! its place in it, and the fused levels agree with each other. One call computes several tiles, one below
//! the other: between calls the multipliers would wait for the last sums of a tile.

#![allow(unsafe_code)]

use super::{level::Level, prefetch::Soon};

/// Columns of one panel of B.
pub(crate) const PANEL: usize = 16;

/// Tiles one below the other, each some rows of A times some neighbouring panels of B.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// How many tiles.
    pub(crate) count: usize,
    /// Length of the sums.
    pub(crate) k: usize,
    /// First element of A, with its strides.
    pub(crate) a: *const f32,
    pub(crate) a_row: usize,
    pub(crate) a_col: usize,
    /// First element of B; a row of a panel is `PANEL` neighbours.
    pub(crate) b: *const f32,
    pub(crate) b_row: usize,
    /// Distance between panels of B.
    pub(crate) b_panel: usize,
    /// What the sums start from; a row stride of 0 repeats one row.
    pub(crate) init: *const f32,
    pub(crate) init_row: usize,
    /// Where the result goes; panels are `PANEL` apart.
    pub(crate) c: *mut f32,
    pub(crate) c_row: usize,
    /// What to ask for meanwhile.
    pub(crate) soon: Soon,
}

/// A height of tile, and the panels it takes at once where there are that many.
pub(crate) type Shape = (usize, usize);

/// The shapes of tile that a level has for a product of so many full panels, highest first; fewer rows
/// need more panels to keep the multipliers busy.
///
/// The 32 registers of AVX-512 have room for the sums of four panels. As many loads as multiplications can be
/// done in a cycle, and this takes fewest: 6 rows of four panels need 10 for 24, 12 rows of one 13 for 12.
fn shapes(level: Level, panels: usize) -> &'static [Shape] {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 if panels > 1 => &[(6, 4), (5, 4), (4, 4), (3, 4), (2, 4), (1, 4)],
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => &[(12, 1), (8, 1), (4, 1), (3, 1), (2, 1), (1, 1)],
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => &[(6, 1), (5, 1), (4, 1), (3, 2), (2, 2), (1, 4)],
        Level::Portable => &[(4, 1), (2, 1), (1, 1)],
    }
}

/// How many panels a tile of a shape takes where `full` ones are left; 1 also of a last one that is not full.
pub(crate) fn at_once(level: Level, (_, most): Shape, full: usize) -> usize {
    match (level, full) {
        // One alone would be slow at the height that is for four.
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512, 5) if most == 4 => 3,
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512, _) => full.clamp(1, most),
        _ if full >= most => most,
        _ => 1,
    }
}

/// The shapes that cover so many rows, each with how many tiles of it.
///
/// Where there are tiles one row lower than the highest, some of these leave no rest, which would keep the
/// multipliers less busy.
pub(crate) fn cover(level: Level, rows: usize, panels: usize) -> impl Iterator<Item = (Shape, usize)> {
    let shapes = shapes(level, panels);
    let highest = shapes[0].0;
    let lower = rows.next_multiple_of(highest) - rows;
    let all = (rows + lower) / highest;
    let mut left = rows;
    shapes.iter().map_while(move |&(height, panels)| {
        if left == 0 {
            return None;
        }
        let neighbours = height == highest && shapes[1].0 + 1 == highest;
        let tiles = if neighbours && lower <= all { all - lower } else { left / height };
        left -= tiles * height;
        Some(((height, panels), tiles))
    })
}

/// How many lines a tile asks for, of memory that is wanted soon; where fewer are left, also of what lies behind it,
/// which nothing reads.
pub(crate) fn lines_meanwhile(level: Level, k: usize) -> usize {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => k,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => k / x86::UNROLL,
        Level::Portable => 0,
    }
}

impl Tile {
    /// The tile below one of `rows` rows. Pointers may wrap past the last one, where nothing is read.
    #[inline(always)]
    fn below(self, rows: usize) -> Self {
        Self {
            a: self.a.wrapping_add(rows * self.a_row),
            init: self.init.wrapping_add(rows * self.init_row),
            c: self.c.wrapping_add(rows * self.c_row),
            ..self
        }
    }
}

/// Computes tiles of a height of the level's [`shapes`], and its panels or one.
///
/// # Safety
/// The machine has the level's features; all pointers are valid for the tiles' rows, panels of
/// `PANEL` columns and k; C does not overlap A and B, and init only as C itself.
pub(crate) unsafe fn run(level: Level, shape: Shape, tile: Tile) {
    // SAFETY: passed on from the caller.
    unsafe {
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 if tile.soon.lines > 0 => x86::avx512_of::<true>(shape)(tile),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => x86::avx512_of::<false>(shape)(tile),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 if tile.soon.lines > 0 => x86::avx2_of::<true>(shape)(tile),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => x86::avx2_of::<false>(shape)(tile),
            Level::Portable => match shape.0 {
                4 => portable::<4>(tile),
                2 => portable::<2>(tile),
                _ => portable::<1>(tile),
            },
        }
    }
}

/// # Safety
/// As [`run`].
unsafe fn portable<const ROWS: usize>(mut t: Tile) {
    for _ in 0..t.count {
        let mut sums = [[0.0f32; PANEL]; ROWS];
        // SAFETY: the caller vouches for all pointers.
        unsafe {
            for (r, row) in sums.iter_mut().enumerate() {
                *row = t.init.add(r * t.init_row).cast::<[f32; PANEL]>().read();
            }
            for k in 0..t.k {
                let b = t.b.add(k * t.b_row).cast::<[f32; PANEL]>().read();
                for (r, row) in sums.iter_mut().enumerate() {
                    let a = *t.a.add(r * t.a_row + k * t.a_col);
                    for j in 0..PANEL {
                        row[j] += a * b[j];
                    }
                }
            }
            for (r, row) in sums.iter().enumerate() {
                t.c.add(r * t.c_row).cast::<[f32; PANEL]>().write(*row);
            }
        }
        t = t.below(ROWS);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::{
        arch::x86_64::*,
        sync::atomic::{Ordering, compiler_fence},
    };

    use super::{PANEL, Shape, Tile, lines_meanwhile};
    use crate::cpu::{level::Level, prefetch::LINE};

    /// Steps of k between two jumps: a loop of many short rounds ends in a mispredicted one.
    pub(super) const UNROLL: usize = 4;

    type Kernel = unsafe fn(Tile);

    /// The kernel of a shape, which asks for what is wanted `SOON` or does not look at it.
    pub(super) fn avx2_of<const SOON: bool>(shape: Shape) -> Kernel {
        match shape {
            (6, 1) => avx2::<6, 1, SOON>,
            (5, 1) => avx2::<5, 1, SOON>,
            (4, 1) => avx2::<4, 1, SOON>,
            (3, 2) => avx2::<3, 2, SOON>,
            (3, _) => avx2::<3, 1, SOON>,
            (2, 2) => avx2::<2, 2, SOON>,
            (2, _) => avx2::<2, 1, SOON>,
            (1, 4) => avx2::<1, 4, SOON>,
            _ => avx2::<1, 1, SOON>,
        }
    }

    /// # Safety
    /// As [`super::run`].
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2<const ROWS: usize, const PANELS: usize, const SOON: bool>(mut t: Tile) {
        for _ in 0..t.count {
            let mut sums = [[[_mm256_setzero_ps(); 2]; PANELS]; ROWS];
            // SAFETY: the caller vouches for all pointers.
            unsafe {
                for r in 0..ROWS {
                    for p in 0..PANELS {
                        let init = t.init.add(r * t.init_row + p * PANEL);
                        sums[r][p] = [_mm256_loadu_ps(init), _mm256_loadu_ps(init.add(8))];
                    }
                }
                let (mut a, mut b) = (t.a, t.b);
                let mut step = || {
                    let mut row = [[_mm256_setzero_ps(); 2]; PANELS];
                    for p in 0..PANELS {
                        let b = b.add(p * t.b_panel);
                        row[p] = [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8))];
                    }
                    for r in 0..ROWS {
                        let x = _mm256_broadcast_ss(&*a.add(r * t.a_row));
                        for p in 0..PANELS {
                            sums[r][p][0] = _mm256_fmadd_ps(x, row[p][0], sums[r][p][0]);
                            sums[r][p][1] = _mm256_fmadd_ps(x, row[p][1], sums[r][p][1]);
                        }
                    }
                    a = a.wrapping_add(t.a_col);
                    b = b.wrapping_add(t.b_row);
                };
                let (mut soon, soon_step) = (t.soon.first(), if t.soon.lines > 0 { LINE } else { 0 });
                for _ in 0..t.k / UNROLL {
                    if SOON {
                        _mm_prefetch::<_MM_HINT_T1>(soon.cast());
                        soon = soon.wrapping_add(soon_step);
                    }
                    for _ in 0..UNROLL {
                        step();
                    }
                }
                for _ in 0..t.k % UNROLL {
                    step();
                }
                for r in 0..ROWS {
                    for p in 0..PANELS {
                        let c = t.c.add(r * t.c_row + p * PANEL);
                        _mm256_storeu_ps(c, sums[r][p][0]);
                        _mm256_storeu_ps(c.add(8), sums[r][p][1]);
                    }
                }
            }
            if SOON {
                t.soon = t.soon.after(lines_meanwhile(Level::Avx2, t.k));
            }
            t = t.below(ROWS);
        }
    }

    /// As [`avx2_of`].
    pub(super) fn avx512_of<const SOON: bool>((height, panels): Shape) -> Kernel {
        const fn row<const ROWS: usize, const SOON: bool>() -> [Kernel; 4] {
            [
                avx512::<ROWS, 1, SOON>,
                avx512::<ROWS, 2, SOON>,
                avx512::<ROWS, 3, SOON>,
                avx512::<ROWS, 4, SOON>,
            ]
        }
        let rows = const {
            [
                row::<1, SOON>(),
                row::<2, SOON>(),
                row::<3, SOON>(),
                row::<4, SOON>(),
                row::<5, SOON>(),
                row::<6, SOON>(),
            ]
        };
        match height {
            12 => avx512::<12, 1, SOON>,
            8 => avx512::<8, 1, SOON>,
            _ => rows[height - 1][panels - 1],
        }
    }

    /// # Safety
    /// As [`super::run`].
    #[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
    unsafe fn avx512<const ROWS: usize, const PANELS: usize, const SOON: bool>(mut t: Tile) {
        for _ in 0..t.count {
            let mut sums = [[_mm512_setzero_ps(); PANELS]; ROWS];
            // SAFETY: the caller vouches for all pointers.
            unsafe {
                for r in 0..ROWS {
                    for p in 0..PANELS {
                        sums[r][p] = _mm512_loadu_ps(t.init.add(r * t.init_row + p * PANEL));
                    }
                }
                let Tile { k, mut a, a_row, a_col, mut b, b_row, b_panel, .. } = t;
                let (mut soon, soon_step) = (t.soon.first(), if t.soon.lines > 0 { LINE } else { 0 });
                for _ in 0..k {
                    if SOON {
                        _mm_prefetch::<_MM_HINT_T1>(soon.cast());
                        soon = soon.wrapping_add(soon_step);
                    }
                    let mut row = [_mm512_setzero_ps(); PANELS];
                    for p in 0..PANELS {
                        row[p] = _mm512_loadu_ps(b.add(p * b_panel));
                    }
                    for r in 0..ROWS {
                        let x = _mm512_set1_ps(*a.add(r * a_row));
                        for p in 0..PANELS {
                            sums[r][p] = _mm512_fmadd_ps(x, row[p], sums[r][p]);
                        }
                    }
                    a = a.wrapping_add(a_col);
                    b = b.wrapping_add(b_row);
                    // Else several rounds' multipliers are loaded first, more than there are registers.
                    compiler_fence(Ordering::SeqCst);
                }
                for r in 0..ROWS {
                    for p in 0..PANELS {
                        _mm512_storeu_ps(t.c.add(r * t.c_row + p * PANEL), sums[r][p]);
                    }
                }
            }
            if SOON {
                t.soon = t.soon.after(lines_meanwhile(Level::Avx512, t.k));
            }
            t = t.below(ROWS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_all_rows_and_leave_no_low_rest_of_many() {
        #[cfg(target_arch = "x86_64")]
        let levels = [Level::Portable, Level::Avx2, Level::Avx512];
        #[cfg(not(target_arch = "x86_64"))]
        let levels = [Level::Portable];
        for level in levels {
            for (rows, panels) in (0..300).flat_map(|rows| [0, 1, 2, 4, 5].map(|panels| (rows, panels))) {
                let covered: usize =
                    cover(level, rows, panels).map(|((height, _), tiles)| height * tiles).sum();
                assert_eq!(covered, rows, "{level:?}");
            }
        }
        #[cfg(target_arch = "x86_64")]
        for (rows, level, panels) in
            (20..300).flat_map(|rows| [(rows, Level::Avx2, 1), (rows, Level::Avx512, 2)])
        {
            let mut lowest = cover(level, rows, panels).filter(|&(_, tiles)| tiles > 0);
            assert!(lowest.all(|((height, _), _)| height >= 5), "{rows}");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn panels_are_taken_four_at_once_and_none_is_left_alone() {
        let taken = |level, shape, full: usize| {
            let mut left = full;
            std::iter::from_fn(|| {
                let panels = (left > 0).then(|| at_once(level, shape, left))?;
                left -= panels;
                Some(panels)
            })
            .collect::<Vec<_>>()
        };
        let wide = |full| taken(Level::Avx512, (6, 4), full);
        assert_eq!([wide(2), wide(3), wide(4)], [vec![2], vec![3], vec![4]]);
        assert_eq!([wide(5), wide(6), wide(9)], [vec![3, 2], vec![4, 2], vec![4, 3, 2]]);
        assert_eq!(taken(Level::Avx2, (3, 2), 3), [2, 1]);
        assert_eq!(at_once(Level::Avx512, (6, 4), 0), 1, "a part of a panel");
    }
}
