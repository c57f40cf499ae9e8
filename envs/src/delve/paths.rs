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

/// Direction of each cell of a block; the centre (4) has none. Straight steps come first below.
const DIRECTION_OF_BLOCK: [u8; 9] = [7, 0, 1, 6, 8, 2, 5, 4, 3];
const STRAIGHT: u16 = 0b010_101_010;

/// The nearest cell of each goal set, `from` excluded, over `open` cells with eight neighbours.
///
/// One flood serves all goals; it keeps only distances modulo 3, which is enough to walk back,
/// because neighbouring cells differ by at most one.
pub(super) fn nearest<const N: usize>(from: Pos, open: &Grid, goals: [&Grid; N]) -> [Option<Hint>; N] {
    let mut hints = [None; N];
    let mut left = *open;
    left.clear(from);
    let union = |hints: &[Option<Hint>; N]| {
        let mut wanted = Grid::default();
        for (goal, hint) in goals.iter().zip(hints) {
            if hint.is_none() {
                wanted = wanted.zip(goal, |w, g| w | g);
            }
        }
        wanted
    };
    let mut wanted = union(&hints).zip(&left, |w, l| w & l);
    let mut wave = [0u64; HEIGHT + 2];
    wave[from.y as usize + 1] = 1 << from.x;
    let mut layers = [Grid::default(); 3];
    layers[0].set(from);
    let mut distance = 0u8;
    while !wanted.is_empty() && distance < u8::MAX {
        distance += 1;
        let alive = spread(&mut wave, &mut left, &mut layers[distance as usize % 3]);
        if !alive {
            break;
        }
        let reached = Grid(std::array::from_fn(|y| wave[y + 1]));
        if reached.zip(&wanted, |r, w| r & w).is_empty() {
            continue;
        }
        for (goal, hint) in goals.iter().zip(&mut hints) {
            let hit = reached.zip(goal, |r, g| r & g);
            if hint.is_none()
                && let Some(cell) = hit.cells().next()
            {
                *hint = Some(Hint { distance, direction: first_step(cell, distance, &layers) });
            }
        }
        wanted = union(&hints).zip(&left, |w, l| w & l);
    }
    hints
}

/// Moves the wave one step over the cells that are left; false once it is empty.
fn spread(wave: &mut [u64; HEIGHT + 2], left: &mut Grid, layer: &mut Grid) -> bool {
    let mut wide = [0u64; HEIGHT + 2];
    for (wide, row) in wide.iter_mut().zip(wave.iter()) {
        *wide = row | row << 1 | row >> 1;
    }
    let mut any = 0;
    for y in 0..HEIGHT {
        let new = (wide[y] | wide[y + 1] | wide[y + 2]) & left.0[y];
        left.0[y] ^= new;
        layer.0[y] |= new;
        wave[y + 1] = new;
        any |= new;
    }
    any != 0
}

/// Walks back from a goal to the flood's start; the direction of the last step, reversed.
fn first_step(goal: Pos, distance: u8, layers: &[Grid; 3]) -> u8 {
    let mut cell = goal;
    let mut back = 8;
    for d in (0..distance).rev() {
        let block = layers[d as usize % 3].block(cell) & !(1 << 4);
        let straight = block & STRAIGHT;
        let pick = if straight != 0 { straight } else { block };
        back = DIRECTION_OF_BLOCK[pick.trailing_zeros() as usize];
        cell = cell.step(back);
    }
    (back + 4) % 8
}

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
