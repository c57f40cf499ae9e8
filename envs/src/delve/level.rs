//! One level: terrain, items, monsters, and what the hero has seen of it.

use serde::{Deserialize, Serialize};

use super::grid::{Grid, HEIGHT, Pos, WIDTH};
use super::monsters::Monster;

/// What lies on the floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Item {
    /// So many gold pieces.
    Gold(u16),
    Food,
    Potion,
    /// So many darts.
    Darts(u8),
}

/// A room's interior; its walls are one cell further out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Room {
    pub(super) x0: u8,
    pub(super) y0: u8,
    pub(super) x1: u8,
    pub(super) y1: u8,
    /// Lit rooms are seen whole, dark ones only around the hero.
    pub(super) lit: bool,
}

impl Room {
    /// Whether `p` is in the room or in its walls (that is, in a doorway).
    pub(super) fn covers(&self, p: Pos) -> bool {
        let inside = |v: i8, low: u8, high: u8| v + 1 >= low as i8 && v <= high as i8 + 1;
        self.x1 > 0 && inside(p.x, self.x0, self.x1) && inside(p.y, self.y0, self.y1)
    }
}

/// Rooms of a level: three columns, two rows.
pub(super) const NUM_ROOMS: usize = 6;
/// Positions that a follower can track.
const TRAIL: usize = 16;

/// Items and monsters that a generated level has at most.
const MOST_ITEMS: usize = 12;
const MOST_MONSTERS: usize = 16;

/// Terrain, contents and the hero's knowledge of one level.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Level {
    /// Walkable cells; a secret door is not one of them until it is found.
    pub(super) open: Grid,
    pub(super) doors: Grid,
    pub(super) corridors: Grid,
    /// Doors that look like walls.
    pub(super) secret: Grid,
    pub(super) rooms: [Room; NUM_ROOMS],
    pub(super) stairs: Option<Pos>,
    pub(super) items: Vec<(Pos, Item)>,
    pub(super) item_grid: Grid,
    pub(super) monsters: Vec<Monster>,
    pub(super) occupied: Grid,
    /// Cells ever seen.
    pub(super) known: Grid,
    /// Cells seen right now.
    pub(super) visible: Grid,
    /// Cells searched for secret doors.
    pub(super) searched: Grid,
    trail: [Pos; TRAIL],
    trail_length: u8,
}

impl Level {
    /// An empty, solid level that keeps its buffers; they have room for all that a level may be given, so
    /// that later turns and levels allocate nothing.
    pub(super) fn wipe(&mut self) {
        let mut items = std::mem::take(&mut self.items);
        let mut monsters = std::mem::take(&mut self.monsters);
        items.clear();
        monsters.clear();
        items.reserve(MOST_ITEMS);
        monsters.reserve(MOST_MONSTERS);
        *self = Self { items, monsters, ..Self::default() };
    }

    pub(super) fn put_item(&mut self, pos: Pos, item: Item) {
        self.items.push((pos, item));
        self.item_grid.set(pos);
    }

    pub(super) fn take_item(&mut self, pos: Pos) -> Option<Item> {
        if !self.item_grid.get(pos) {
            return None;
        }
        let index =
            self.items.iter().position(|&(at, _)| at == pos).expect("the item grid mirrors the items");
        self.item_grid.clear(pos);
        Some(self.items.swap_remove(index).1)
    }

    pub(super) fn put_monster(&mut self, monster: Monster) {
        self.occupied.set(monster.pos);
        self.monsters.push(monster);
    }

    pub(super) fn move_monster(&mut self, index: usize, to: Pos) {
        self.occupied.clear(self.monsters[index].pos);
        self.occupied.set(to);
        self.monsters[index].pos = to;
    }

    pub(super) fn remove_monster(&mut self, index: usize) -> Monster {
        let monster = self.monsters.swap_remove(index);
        self.occupied.clear(monster.pos);
        monster
    }

    pub(super) fn monster_at(&self, pos: Pos) -> Option<usize> {
        if !self.occupied.get(pos) {
            return None;
        }
        self.monsters.iter().position(|m| m.pos == pos)
    }

    /// What is seen from `pos`: the eight neighbours, and the lit room around it.
    pub(super) fn look(&mut self, pos: Pos) {
        let (x, y) = (pos.x as usize, pos.y as usize);
        let seen = &mut self.visible;
        *seen = Grid::default();
        seen.fill(x - 1, y - 1, x + 1, y + 1);
        for room in self.rooms.iter().filter(|r| r.lit && r.covers(pos)) {
            let [x0, y0, x1, y1] = [room.x0, room.y0, room.x1, room.y1].map(usize::from);
            seen.fill(x0 - 1, y0 - 1, x1 + 1, y1 + 1);
        }
        for (known, seen) in self.known.0.iter_mut().zip(&self.visible.0) {
            *known |= seen;
        }
    }

    /// Searches the walls up to two cells from `pos`; the secret doors among them become doors.
    pub(super) fn search(&mut self, pos: Pos) {
        let span = |v: i8, end: usize| (v.max(2) as usize - 2, (v as usize + 2).min(end - 1));
        let ((x0, x1), (y0, y1)) = (span(pos.x, WIDTH), span(pos.y, HEIGHT));
        let mut reach = Grid::default();
        reach.fill(x0, y0, x1, y1);
        let found = self.secret.zip(&reach, |s, r| s & r);
        self.searched = self.searched.zip(&reach, |s, r| s | r);
        self.secret = self.secret.zip(&found, |s, f| s & !f);
        self.doors = self.doors.zip(&found, |d, f| d | f);
        self.open = self.open.zip(&found, |o, f| o | f);
    }

    /// Walkable cells that the hero knows of.
    pub(super) fn known_open(&self) -> Grid {
        self.known.zip(&self.open, |k, o| k & o)
    }

    /// Cells next to unknown ones, of the known walkable cells `open`.
    pub(super) fn frontier(&self, open: &Grid) -> Grid {
        let unknown: [u64; HEIGHT] = std::array::from_fn(|y| {
            let row = !self.known.0[y];
            row | row << 1 | row >> 1
        });
        let mut frontier = Grid::default();
        for y in 1..HEIGHT - 1 {
            frontier.0[y] = (unknown[y - 1] | unknown[y] | unknown[y + 1]) & open.0[y];
        }
        frontier
    }

    /// Corridor cells that lead nowhere and have not been searched, of the known walkable cells `open`.
    pub(super) fn dead_ends(&self, open: &Grid) -> Grid {
        let mut ends = Grid::default();
        for y in 1..HEIGHT - 1 {
            let row = open.0[y];
            let (n, s, w, e) = (open.0[y - 1], open.0[y + 1], row << 1, row >> 1);
            let several = n & s | w & e | (n | s) & (w | e);
            ends.0[y] = row & self.corridors.0[y] & !self.searched.0[y] & !several;
        }
        ends
    }

    /// Remembers where the hero has been, for those who follow.
    pub(super) fn extend_trail(&mut self, pos: Pos) {
        self.trail.copy_within(1.., 0);
        self.trail[TRAIL - 1] = pos;
        self.trail_length = (self.trail_length + 1).min(TRAIL as u8);
    }

    /// The hero's past positions, latest first.
    pub(super) fn trail(&self) -> impl Iterator<Item = Pos> + '_ {
        self.trail.iter().rev().take(self.trail_length as usize).copied()
    }
}
