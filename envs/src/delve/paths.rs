//! Shortest known paths, found by flooding bit grids.

use serde::{Deserialize, Serialize};

use super::grid::{Grid, HEIGHT, Pos};

/// How far the nearest goal is and where to step first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hint {
    pub(super) distance: u8,
    pub(super) direction: u8,
}

impl Hint {
    /// 1 next to the goal, falling towards 0.
    pub(super) fn proximity(self) -> f32 {
        1.0 / f32::from(self.distance)
    }
}

/// The nearest cell of each goal set, `from` excluded, over `open` cells with eight neighbours.
///
/// One flood serves all goals; it keeps only distances modulo 3, which is enough to walk back,
/// because neighbouring cells differ by at most one. The walks come last, so that they overlap.
pub(super) fn nearest<const N: usize>(from: Pos, open: &Grid, goals: [&Grid; N]) -> [Option<Hint>; N] {
    pulp::Arch::new().dispatch(Search { from, open, goals })
}

/// A search for [`nearest`], compiled for every level of the processor's instructions.
struct Search<'a, const N: usize> {
    from: Pos,
    open: &'a Grid,
    goals: [&'a Grid; N],
}

impl<const N: usize> pulp::WithSimd for Search<'_, N> {
    type Output = [Option<Hint>; N];

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _simd: S) -> Self::Output {
        let mut flood = Flood::new(self.from, self.open);
        let mut found: [Option<(Pos, u8)>; N] = [None; N];
        let mut wanted = [0; ROWS];
        while flood.not_reached(&self.goals, &found, &mut wanted) {
            loop {
                match flood.spread(&wanted) {
                    Front::Dry => return flood.hints(found),
                    Front::Short => {}
                    Front::Arrived => break,
                }
            }
            for (goal, found) in self.goals.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
                *found = flood.arrival(goal).map(|cell| (cell, flood.distance));
            }
        }
        flood.hints(found)
    }
}

/// Rows that one turn of the flood's inner loop moves.
const GROUP: usize = 4;
/// A grid's rows, and empty ones below for the last group.
const ROWS: usize = HEIGHT + GROUP + 1;
type Rows = [u64; ROWS];

/// A flood on its way.
struct Flood {
    /// Open cells not reached yet.
    left: Rows,
    /// Cells reached in the last step.
    wave: Rows,
    /// Rows between which the wave is: few, and the rest of the map is not looked at.
    first: usize,
    last: usize,
    /// Cells reached, by distance modulo 3.
    layers: [Rows; 3],
    distance: u8,
}

/// What a step of the flood came to.
enum Front {
    /// Nothing is left to reach, or not within 255 steps.
    Dry,
    /// New cells, but no goal.
    Short,
    /// A goal, or several.
    Arrived,
}

impl Flood {
    #[inline(always)]
    fn new(from: Pos, open: &Grid) -> Self {
        let (empty, y) = ([0; ROWS], from.y as usize);
        let mut flood = Self { left: empty, wave: empty, first: y, last: y, layers: [empty; 3], distance: 0 };
        for y in 0..HEIGHT {
            flood.left[y] = open.0[y];
        }
        let start = 1 << from.x;
        flood.wave[y] = start;
        flood.layers[0][y] = start;
        flood.left[y] &= !start;
        flood
    }

    /// Sets `wanted` to the cells not reached yet of all goals that no arrival is known of; whether there
    /// are any.
    #[inline(always)]
    fn not_reached<const N: usize>(
        &self,
        goals: &[&Grid; N],
        found: &[Option<(Pos, u8)>; N],
        wanted: &mut Rows,
    ) -> bool {
        if found.iter().all(Option::is_some) {
            return false;
        }
        // All rows of a goal, or none.
        let masks = found.map(|found| if found.is_none() { !0 } else { 0 });
        let mut any = 0;
        for y in 0..HEIGHT {
            let rows = goals.iter().zip(masks).fold(0, |rows, (goal, mask)| rows | goal.0[y] & mask);
            wanted[y] = rows & self.left[y];
            any |= wanted[y];
        }
        any != 0
    }

    /// Moves the wave one step over the cells that are left.
    #[inline(always)]
    fn spread(&mut self, wanted: &Rows) -> Front {
        if self.distance == u8::MAX {
            return Front::Dry;
        }
        self.distance += 1;
        let layer = &mut self.layers[self.distance as usize % 3];
        let wide = |row: u64| row | row << 1 | row >> 1;
        // The map's border is solid, so there is a row above and a row below the wave.
        let (mut y, end) = (self.first - 1, self.last + 1);
        let (mut above, mut here) = (0, 0);
        let (mut hits, mut moved) = (0, 0);
        while y <= end {
            let wave = &mut self.wave[y..y + GROUP + 1];
            let (left, layer) = (&mut self.left[y..y + GROUP], &mut layer[y..y + GROUP]);
            let wanted = &wanted[y..y + GROUP];
            for i in 0..GROUP {
                let below = wide(wave[i + 1]);
                let new = (above | here | below) & left[i];
                wave[i] = new;
                left[i] ^= new;
                layer[i] |= new;
                hits |= new & wanted[i];
                moved |= new;
                (above, here) = (here, below);
            }
            y += GROUP;
        }
        // The wave enters at most one row more, and one row fewer is looked at where it has left one.
        let empty = |y: usize| usize::from(self.wave[y] == 0);
        let (first, last) = (self.first, self.last);
        self.first = first - 1 + empty(first - 1) * (1 + empty(first));
        self.last = last + 1 - empty(last + 1) * (1 + empty(last));
        match (moved, hits) {
            (0, _) => Front::Dry,
            (_, 0) => Front::Short,
            _ => Front::Arrived,
        }
    }

    /// Where the wave reaches `goal`, if it does: the first such cell in reading order.
    #[inline(always)]
    fn arrival(&self, goal: &Grid) -> Option<Pos> {
        let hit = |y: usize| self.wave[y] & goal.0[y];
        let y = (self.first..=self.last).find(|&y| hit(y) != 0)?;
        Some(Pos::new(hit(y).trailing_zeros() as usize, y))
    }

    /// The hints to the cells found, with their distances.
    #[inline(always)]
    fn hints<const N: usize>(&self, found: [Option<(Pos, u8)>; N]) -> [Option<Hint>; N] {
        let mut hints = [None; N];
        for (hint, found) in hints.iter_mut().zip(found) {
            if let Some((cell, distance)) = found {
                *hint = Some(Hint { distance, direction: self.first_step(cell, distance) });
            }
        }
        hints
    }

    /// Walks back from a cell at this distance to the flood's start; the direction of the last step,
    /// reversed.
    #[inline(always)]
    fn first_step(&self, goal: Pos, distance: u8) -> u8 {
        let (mut cell, mut next) = (goal, goal);
        for d in (0..distance).rev() {
            let (dx, dy) = BACK[block(&self.layers[d as usize % 3], cell)];
            (next, cell) = (cell, Pos { x: cell.x + dx, y: cell.y + dy });
        }
        cell.towards(next).expect("a flood spreads to neighbours")
    }
}

/// The 3 x 3 block around `p`, see [`Grid::block`].
#[inline(always)]
fn block(rows: &Rows, p: Pos) -> usize {
    let (x, y) = (p.x as usize - 1, p.y as usize);
    let three = |row: u64| (row >> x & 7) as usize;
    three(rows[y - 1]) | three(rows[y]) << 3 | three(rows[y + 1]) << 6
}

/// The step into a block's occupied cells, its centre left out: straight ones first, then in reading order.
static BACK: [(i8, i8); 512] = {
    const ORDER: [usize; 8] = [1, 3, 5, 7, 0, 2, 6, 8];
    let mut steps = [(0, 0); 512];
    let mut block = 0;
    while block < 512 {
        let mut k = 8;
        while k > 0 {
            k -= 1;
            if block >> ORDER[k] & 1 == 1 {
                steps[block] = ((ORDER[k] % 3) as i8 - 1, (ORDER[k] / 3) as i8 - 1);
            }
        }
        block += 1;
    }
    steps
};

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(rows: &[&str], mark: char) -> Grid {
        let mut grid = Grid::default();
        for (y, row) in rows.iter().enumerate() {
            for (x, c) in row.chars().enumerate() {
                if c == mark || (mark == '.' && c != '#') {
                    grid.set(Pos::new(x, y));
                }
            }
        }
        grid
    }

    #[test]
    fn the_hint_is_the_length_and_first_step_of_a_shortest_path() {
        let hint = |rows: &[&str]| {
            let start = grid(rows, '@').cells().next().expect("the map shows the hero");
            let [hint] = nearest(start, &grid(rows, '.'), [&grid(rows, 'g')]);
            hint.map(|h| (h.distance, h.direction))
        };
        assert_eq!(hint(&["######", "#@..g#", "######"]), Some((3, 2)));
        assert_eq!(hint(&["######", "#@#.g#", "#.#.##", "##.###", "######"]), Some((4, 4)));
        assert_eq!(hint(&["######", "#@#.g#", "######"]), None);
        assert_eq!(hint(&["######", "#....#", "#@##.#", "####g#", "######"]), Some((4, 1)));
        assert_eq!(hint(&["######", "#g.@g#", "######"]), Some((1, 2)), "the nearer of two");
        assert_eq!(hint(&["####", "#@g#", "####"].map(|row| &row[..2])), None, "no goal");
    }

    #[test]
    fn following_the_hints_arrives_after_exactly_the_distance() {
        use rand::RngExt;
        let mut rng = gatefold_env::stream(3, gatefold_env::Purpose::Environment, 0);
        for _ in 0..200 {
            let mut open = Grid::default();
            for y in 1..HEIGHT - 1 {
                open.0[y] = (rng.random::<u64>() | rng.random::<u64>()) & ((1 << 39) - 2);
            }
            let cells: Vec<_> = open.cells().collect();
            let mut pick = || cells[rng.random_range(0..cells.len())];
            let (mut here, mut goal) = (pick(), Grid::default());
            (0..3).for_each(|_| goal.set(pick()));
            let Some(mut left) = nearest(here, &open, [&goal])[0].map(|h| h.distance) else { continue };
            while left > 0 {
                let hint = nearest(here, &open, [&goal])[0].unwrap();
                assert_eq!(hint.distance, left);
                here = here.step(hint.direction);
                assert!(open.get(here));
                left -= 1;
            }
            assert!(goal.get(here));
        }
    }
}
