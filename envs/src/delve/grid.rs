//! Positions, directions and bit grids of the 40 x 20 map.

use serde::{Deserialize, Serialize};

/// Columns of a level.
pub(super) const WIDTH: usize = 40;
/// Rows of a level.
pub(super) const HEIGHT: usize = 20;

/// A cell; walkable ones are never on the border, so all eight neighbours exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Pos {
    pub(super) x: i8,
    pub(super) y: i8,
}

/// Steps in the order of the move actions: north, then clockwise.
pub(super) const DIRECTIONS: [(i8, i8); 8] =
    [(0, -1), (1, -1), (1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1)];

impl Pos {
    pub(super) fn new(x: usize, y: usize) -> Self {
        Self { x: x as i8, y: y as i8 }
    }

    /// The neighbour in one of the eight [`DIRECTIONS`].
    pub(super) fn step(self, direction: u8) -> Self {
        let (dx, dy) = DIRECTIONS[direction as usize & 7];
        Self { x: self.x + dx, y: self.y + dy }
    }

    /// King's moves between two cells.
    pub(super) fn distance(self, other: Self) -> u8 {
        (self.x - other.x).unsigned_abs().max((self.y - other.y).unsigned_abs())
    }

    /// The direction that points most directly to `other`; `None` at the same cell.
    pub(super) fn towards(self, other: Self) -> Option<u8> {
        let step = ((other.x - self.x).signum(), (other.y - self.y).signum());
        DIRECTIONS.iter().position(|&d| d == step).map(|d| d as u8)
    }

    /// Whether `other` lies on one of the eight straight lines through this cell.
    pub(super) fn in_line(self, other: Self) -> bool {
        let (dx, dy) = ((self.x - other.x).abs(), (self.y - other.y).abs());
        dx == 0 || dy == 0 || dx == dy
    }
}

/// One bit per cell: bit `x` of row `y`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Grid(pub(super) [u64; HEIGHT]);

impl Grid {
    pub(super) fn get(&self, p: Pos) -> bool {
        self.0[p.y as usize] >> p.x & 1 == 1
    }

    pub(super) fn set(&mut self, p: Pos) {
        self.0[p.y as usize] |= 1 << p.x;
    }

    pub(super) fn clear(&mut self, p: Pos) {
        self.0[p.y as usize] &= !(1 << p.x);
    }

    /// Sets the rectangle with both corners included.
    pub(super) fn fill(&mut self, x0: usize, y0: usize, x1: usize, y1: usize) {
        let bits = ((1u64 << (x1 - x0 + 1)) - 1) << x0;
        for row in &mut self.0[y0..=y1] {
            *row |= bits;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().fold(0, |all, row| all | row) == 0
    }

    pub(super) fn count(&self) -> u32 {
        self.0.iter().map(|row| row.count_ones()).sum()
    }

    /// The 3 x 3 block around `p` (not on the border): bit `3 * (dy + 1) + dx + 1`.
    pub(super) fn block(&self, p: Pos) -> u16 {
        let (x, y) = (p.x as usize - 1, p.y as usize);
        let three = |row: u64| (row >> x & 7) as u16;
        three(self.0[y - 1]) | three(self.0[y]) << 3 | three(self.0[y + 1]) << 6
    }

    /// Combines two grids row by row.
    pub(super) fn zip(&self, other: &Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self(std::array::from_fn(|y| f(self.0[y], other.0[y])))
    }

    /// The cells set, row by row.
    pub(super) fn cells(&self) -> impl Iterator<Item = Pos> + '_ {
        self.0.iter().enumerate().flat_map(|(y, &row)| {
            let mut left = row;
            std::iter::from_fn(move || {
                (left != 0).then(|| {
                    let x = left.trailing_zeros() as usize;
                    left &= left - 1;
                    Pos::new(x, y)
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_holds_the_neighbours_in_reading_order() {
        let mut grid = Grid::default();
        let centre = Pos::new(5, 7);
        let bit = |p: Pos| 3 * (p.y - 6) + p.x - 4;
        for direction in 0..8 {
            grid = Grid::default();
            let cell = centre.step(direction);
            grid.set(cell);
            assert_eq!(grid.block(centre), 1 << bit(cell));
            assert_eq!(centre.towards(cell), Some(direction));
            assert_eq!(grid.cells().collect::<Vec<_>>(), [cell]);
        }
        grid.fill(4, 6, 6, 8);
        assert_eq!((grid.block(centre), grid.count()), (0x1ff, 9));
    }
}
