//! Level generation: six rooms in a 3 x 2 raster, a spanning tree of corridors, and what fills them.
//!
//! Corridors run only in the gaps between rooms and never touch one another, so the level is
//! connected exactly as the tree (and its extra edges) says. A leaf of the tree may become a vault:
//! its door is secret, its corridor looks like a dead end, and it holds more gold.

use gatefold_env::StreamRng;
use rand::RngExt;

use super::grid::Pos;
use super::level::{Item, Level, NUM_ROOMS, Room};
use super::monsters::{Behaviour, KINDS, Monster};

/// Left edges of the three columns of sectors, and the right end.
const COLUMNS: [usize; 4] = [0, 13, 26, 39];
/// Height of a row of sectors.
const SECTOR_HEIGHT: usize = 10;

/// Neighbouring rooms: four side by side, three one above the other.
const PAIRS: [(usize, usize); 7] = [(0, 1), (1, 2), (3, 4), (4, 5), (0, 3), (1, 4), (2, 5)];

/// What a level is made for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    /// 1 for the first level.
    pub(super) depth: u8,
    /// The last level has no stairs.
    pub(super) last: bool,
    /// Multiplies the number of monsters.
    pub(super) monsters: f32,
}

/// Fills `level` anew; returns where the hero arrives.
pub(super) fn generate(level: &mut Level, request: Request, rng: &mut StreamRng) -> Pos {
    level.wipe();
    for index in 0..NUM_ROOMS {
        level.rooms[index] = room(index, request.depth, rng);
        let [x0, y0, x1, y1] = bounds(&level.rooms[index]);
        level.open.fill(x0, y0, x1, y1);
    }
    let (links, degree) = spanning_links(rng);
    let start = rng.random_range(0..NUM_ROOMS);
    let goal = (start + rng.random_range(1..NUM_ROOMS)) % NUM_ROOMS;
    let vault = (0..NUM_ROOMS).find(|&r| r != start && r != goal && degree[r] == 1);
    let vault = vault.filter(|_| rng.random_bool(0.7));
    for (&(a, b), _) in PAIRS.iter().zip(links).filter(|(_, linked)| *linked) {
        connect(level, a, b, vault, rng);
    }
    let arrival = floor(level, start, rng);
    if !request.last {
        level.stairs = Some(floor(level, goal, rng));
    }
    furnish(level, request.depth, vault, rng);
    populate(level, request, start, goal, vault, rng);
    arrival
}

fn bounds(room: &Room) -> [usize; 4] {
    [room.x0, room.y0, room.x1, room.y1].map(usize::from)
}

/// A room inside its sector, two cells clear of the sector's edges.
fn room(index: usize, depth: u8, rng: &mut StreamRng) -> Room {
    let (left, top) = (COLUMNS[index % 3], index / 3 * SECTOR_HEIGHT);
    let (width, height) = (rng.random_range(4..=9usize), rng.random_range(3..=6usize));
    let x0 = left + rng.random_range(2..=11 - width);
    let y0 = top + rng.random_range(2..=8 - height);
    let lit = rng.random_range(0..10u8) >= depth.saturating_sub(1);
    Room { x0: x0 as u8, y0: y0 as u8, x1: (x0 + width - 1) as u8, y1: (y0 + height - 1) as u8, lit }
}

/// A random spanning tree of the raster with up to two further links, and each room's degree.
fn spanning_links(rng: &mut StreamRng) -> ([bool; PAIRS.len()], [u8; NUM_ROOMS]) {
    let mut order: [usize; PAIRS.len()] = std::array::from_fn(|i| i);
    for i in (1..order.len()).rev() {
        order.swap(i, rng.random_range(0..=i));
    }
    let mut extra = rng.random_range(0..=2u8);
    let mut group: [usize; NUM_ROOMS] = std::array::from_fn(|i| i);
    let (mut links, mut degree) = ([false; PAIRS.len()], [0; NUM_ROOMS]);
    for pair in order {
        let (a, b) = PAIRS[pair];
        let (from, to) = (group[a], group[b]);
        if from == to {
            if extra == 0 {
                continue;
            }
            extra -= 1;
        }
        group.iter_mut().filter(|g| **g == from).for_each(|g| *g = to);
        links[pair] = true;
        degree[a] += 1;
        degree[b] += 1;
    }
    (links, degree)
}

/// Digs the corridor between two neighbouring rooms, with a door at either end.
fn connect(level: &mut Level, a: usize, b: usize, vault: Option<usize>, rng: &mut StreamRng) {
    let ([ax0, ay0, ax1, ay1], [bx0, by0, bx1, by1]) = (bounds(&level.rooms[a]), bounds(&level.rooms[b]));
    let side_by_side = b == a + 1;
    let (from, to) = if side_by_side {
        ((ax1 + 1, rng.random_range(ay0..=ay1)), (bx0 - 1, rng.random_range(by0..=by1)))
    } else {
        ((rng.random_range(ax0..=ax1), ay1 + 1), (rng.random_range(bx0..=bx1), by0 - 1))
    };
    for (room, (x, y)) in [(a, from), (b, to)] {
        let door = Pos::new(x, y);
        if vault == Some(room) {
            level.secret.set(door);
        } else {
            level.doors.set(door);
            level.open.set(door);
        }
    }
    // The corridor turns in the gap between the sectors: two columns or two rows wide.
    let turn = rng.random_range(0..2);
    let (turn, (u0, v0), (u1, v1)) = if side_by_side {
        (COLUMNS[b % 3] - 1 + turn, from, to)
    } else {
        (SECTOR_HEIGHT - 1 + turn, (from.1, from.0), (to.1, to.0))
    };
    let mut dig = |u: usize, v: usize| {
        let cell = if side_by_side { Pos::new(u, v) } else { Pos::new(v, u) };
        level.corridors.set(cell);
        level.open.set(cell);
    };
    (u0 + 1..=turn).for_each(|u| dig(u, v0));
    (v0.min(v1)..=v0.max(v1)).for_each(|v| dig(turn, v));
    (turn..u1).for_each(|u| dig(u, v1));
}

fn floor(level: &Level, room: usize, rng: &mut StreamRng) -> Pos {
    let [x0, y0, x1, y1] = bounds(&level.rooms[room]);
    Pos::new(rng.random_range(x0..=x1), rng.random_range(y0..=y1))
}

/// A cell of the room without item, monster or stairs; `None` if a crowded room is hit too often.
fn empty_floor(level: &Level, room: usize, rng: &mut StreamRng) -> Option<Pos> {
    let taken = |&pos: &Pos| level.item_grid.get(pos) || level.occupied.get(pos) || level.stairs == Some(pos);
    (0..20).map(|_| floor(level, room, rng)).find(|pos| !taken(pos))
}

/// Gold and supplies; deeper levels are richer.
fn furnish(level: &mut Level, depth: u8, vault: Option<usize>, rng: &mut StreamRng) {
    let any_room = |rng: &mut StreamRng| rng.random_range(0..NUM_ROOMS);
    let pile = |rng: &mut StreamRng| rng.random_range(2..=5u16) * (5 + u16::from(depth));
    let put = |level: &mut Level, room: usize, item: Item, rng: &mut StreamRng| {
        if let Some(pos) = empty_floor(level, room, rng) {
            level.put_item(pos, item);
        }
    };
    for _ in 0..rng.random_range(4..=5u8) {
        let (room, item) = (any_room(rng), Item::Gold(pile(rng)));
        put(level, room, item, rng);
    }
    if let Some(room) = vault {
        for _ in 0..2 {
            let item = Item::Gold(2 * pile(rng));
            put(level, room, item, rng);
        }
    }
    if rng.random_bool(0.7) {
        put(level, any_room(rng), Item::Food, rng);
    }
    for _ in 0..rng.random_range(0..=2u8) {
        put(level, any_room(rng), Item::Potion, rng);
    }
    if rng.random_bool(0.5) {
        let darts = rng.random_range(2..=4u8);
        put(level, any_room(rng), Item::Darts(darts), rng);
    }
}

/// Monsters outside the first room; guards stand by the stairs and in the vault.
fn populate(
    level: &mut Level,
    request: Request,
    start: usize,
    goal: usize,
    vault: Option<usize>,
    rng: &mut StreamRng,
) {
    let wanted = f32::from(3 + request.depth.min(4)) * request.monsters;
    let extra = rng.random_bool(f64::from(wanted.fract()));
    for _ in 0..wanted as u32 + u32::from(extra) {
        let kind = random_kind(request.depth, rng);
        let room = match (KINDS[kind as usize].behaviour, vault) {
            (Behaviour::Guard, Some(vault)) => vault,
            (Behaviour::Guard, None) => goal,
            _ => (start + rng.random_range(1..NUM_ROOMS)) % NUM_ROOMS,
        };
        if room != start
            && let Some(pos) = empty_floor(level, room, rng)
        {
            level.put_monster(Monster::new(kind, pos));
        }
    }
}

/// A kind that lives at `depth`, all equally likely.
pub(super) fn random_kind(depth: u8, rng: &mut StreamRng) -> u8 {
    let lives_here = |kind: &u8| {
        let (first, last) = KINDS[*kind as usize].depths;
        (first..=last).contains(&depth)
    };
    let count = (0..KINDS.len() as u8).filter(lives_here).count();
    let pick = rng.random_range(0..count);
    (0..KINDS.len() as u8).filter(lives_here).nth(pick).expect("every level has its monsters")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delve::grid::{DIRECTIONS, Grid};

    fn levels() -> impl Iterator<Item = (Level, Pos, u8)> {
        (0..1000).flat_map(|seed| {
            let mut rng = gatefold_env::stream(seed, gatefold_env::Purpose::Environment, 0);
            (1..=5).map(move |depth| {
                let mut level = Level::default();
                let request = Request { depth, last: depth == 5, monsters: 1.0 };
                let arrival = generate(&mut level, request, &mut rng);
                (level, arrival, depth)
            })
        })
    }

    /// Cells reached from `start` over `open`, by a plain queue.
    fn reached(open: &Grid, start: Pos) -> Grid {
        let (mut seen, mut queue) = (Grid::default(), vec![start]);
        seen.set(start);
        while let Some(cell) = queue.pop() {
            for (dx, dy) in DIRECTIONS {
                let next = Pos { x: cell.x + dx, y: cell.y + dy };
                if open.get(next) && !seen.get(next) {
                    seen.set(next);
                    queue.push(next);
                }
            }
        }
        seen
    }

    #[test]
    fn every_level_is_connected_and_its_stairs_need_no_secret_door() {
        let mut vaults = 0;
        for (level, arrival, depth) in levels() {
            let plain = reached(&level.open, arrival);
            assert_eq!(level.stairs.is_some(), depth < 5);
            assert!(level.stairs.is_none_or(|stairs| plain.get(stairs)));
            let everything = level.open.zip(&level.secret, |o, s| o | s);
            assert_eq!(reached(&everything, arrival), everything);
            vaults += usize::from(!level.secret.is_empty());
            assert_eq!(plain == level.open, level.secret.is_empty(), "a secret door hides something");
        }
        assert!((1500..4500).contains(&vaults), "{vaults} vaults on 5000 levels");
    }

    #[test]
    fn every_level_keeps_its_border_solid_and_its_things_on_the_floor() {
        for (level, arrival, depth) in levels() {
            let border = |p: Pos| p.x <= 0 || p.y <= 0 || p.x >= 39 || p.y >= 19;
            assert!(!level.open.cells().any(border));
            let floor = level.open.zip(&level.corridors.zip(&level.doors, |c, d| c | d), |o, x| o & !x);
            assert!(floor.get(arrival));
            assert!(level.items.iter().all(|&(pos, _)| floor.get(pos) && level.item_grid.get(pos)));
            assert!(level.monsters.iter().all(|m| floor.get(m.pos) && level.occupied.get(m.pos)));
            assert_eq!(level.items.len() as u32, level.item_grid.count());
            assert_eq!(level.monsters.len() as u32, level.occupied.count());
            let start_room = level.rooms.iter().find(|r| r.covers(arrival)).unwrap();
            assert!(level.monsters.iter().all(|m| !start_room.covers(m.pos)));
            assert!(level.monsters.iter().all(|m| {
                let (first, last) = m.kind().depths;
                (first..=last).contains(&depth)
            }));
        }
    }
}
