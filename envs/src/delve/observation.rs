//! The observation vector: statistics, hints, and the window around the hero.
//!
//! | features | meaning |
//! |---|---|
//! | 22 | the hero's state and pack, the turn, the situation; each about [0, 1] |
//! | 12 | ways to the nearest unexplored edge, item and stairs: known, proximity, first step x, y |
//! | 18 | the two nearest monsters in view: present, direction x, y, proximity, strength, health, shoots, flees, guards |
//! | 196 | 7 x 7 window, four channels: walkable, unknown, monster strength, item (stairs: -1) |
//!
//! Everything comes from known cells and visible monsters; a test replaces all that lies behind the
//! fog and demands the same observation, bit for bit.

use gatefold_env::ObservationView;

use super::Delve;
use super::actions;
use super::grid::{DIRECTIONS, HEIGHT, Pos};
use super::hero::MAX_NUTRITION;
use super::level::Item;
use super::monsters::{Behaviour, MAX_DAMAGE, Monster};
use super::paths::Hint;

// The parts in front of the window.
const NUM_STATISTICS: usize = 22;
const NUM_HINTS: usize = 3 * 4;
const NUM_FOES: usize = 2 * 9;
/// Cells to each side of the hero in the window.
const RADIUS: i8 = 3;
const SIDE: usize = 2 * RADIUS as usize + 1;
const CELLS: usize = SIDE * SIDE;

/// Length of the observation vector.
pub const NUM_FEATURES: usize = NUM_STATISTICS + NUM_HINTS + NUM_FOES + 4 * CELLS;

/// Fills features one after the other.
struct Writer<'a> {
    features: &'a mut [f32],
    at: usize,
}

impl Writer<'_> {
    fn put<const N: usize>(&mut self, values: [f32; N]) {
        self.features[self.at..self.at + N].copy_from_slice(&values);
        self.at += N;
    }
}

/// Writes features and mask; `explored` is [`Delve::explored`].
pub(super) fn observe(game: &Delve, explored: f32, view: &mut ObservationView<'_>) {
    let mut writer = Writer { features: view.features, at: 0 };
    statistics(game, explored, &mut writer);
    for hint in [game.outlook.frontier, game.outlook.item, game.outlook.stairs] {
        writer.put(describe_hint(hint));
    }
    for index in game.outlook.nearest {
        let monster = index.map(|i| &game.level.monsters[i as usize]);
        writer.put(describe_monster(monster, game.hero.pos));
    }
    debug_assert_eq!(writer.at, NUM_FEATURES - 4 * CELLS);
    window(game, &mut writer.features[NUM_FEATURES - 4 * CELLS..]);
    view.mask.copy_from_slice(&actions::mask(&game.hero, &game.outlook));
}

/// Counts saturate softly: 0, 1/3, 1/2, 3/5, ... for a scale of 2.
fn soft(count: impl Into<f32>, scale: f32) -> f32 {
    let count = count.into();
    count / (count + scale)
}

fn flag(value: bool) -> f32 {
    f32::from(u8::from(value))
}

fn statistics(game: &Delve, explored: f32, writer: &mut Writer<'_>) {
    let (hero, outlook) = (&game.hero, &game.outlook);
    let max_hp = f32::from(hero.max_hp);
    writer.put([
        hero.health(),
        max_hp / 60.0,
        f32::from(hero.hurt) / max_hp,
        f32::from(hero.nutrition) / f32::from(MAX_NUTRITION),
        flag(hero.is_hungry()),
        flag(hero.nutrition == 0),
        soft(hero.gold as f32, 200.0),
        soft(hero.xp as f32, 100.0),
        f32::from(hero.level) / 8.0,
        f32::from(game.depth) / f32::from(game.levels),
        soft(hero.food, 2.0),
        soft(hero.potions, 2.0),
        soft(hero.darts, 4.0),
        game.turn as f32 / game.max_steps as f32,
    ]);
    writer.put([
        flag(outlook.on_stairs),
        flag(outlook.at_dead_end),
        flag(outlook.can_search),
        f32::from(outlook.in_view.min(4)) / 4.0,
        f32::from(outlook.adjacent.min(4)) / 4.0,
        (f32::from(outlook.danger) / max_hp).min(1.0),
        flag(outlook.target.is_some()),
        explored,
    ]);
}

fn describe_hint(hint: Option<Hint>) -> [f32; 4] {
    hint.map_or([0.0; 4], |hint| {
        let (dx, dy) = DIRECTIONS[hint.direction as usize];
        [1.0, hint.proximity(), f32::from(dx), f32::from(dy)]
    })
}

fn describe_monster(monster: Option<&Monster>, from: Pos) -> [f32; 9] {
    monster.map_or([0.0; 9], |monster| {
        let (dx, dy) = (f32::from(monster.pos.x - from.x), f32::from(monster.pos.y - from.y));
        let distance = f32::from(monster.pos.distance(from));
        let behaviour = monster.kind().behaviour;
        let strength = monster.threat();
        let shoots = flag(behaviour == Behaviour::Shoot);
        let flees = flag(behaviour == Behaviour::Flee);
        let guards = flag(behaviour == Behaviour::Guard);
        [1.0, dx / distance, dy / distance, 1.0 / distance, strength, monster.health(), shoots, flees, guards]
    })
}

/// The lowest eight bits, lowest first, as 0 and 1.
fn flags(bits: u64) -> [f32; SIDE + 1] {
    std::array::from_fn(|column| flag(bits as u32 & 1 << column != 0))
}

/// Four channels of 7 x 7 cells, row by row; beyond the border is known wall.
fn window(game: &Delve, cells: &mut [f32]) {
    let (level, here) = (&game.level, game.hero.pos);
    let (head, objects) = cells.split_at_mut(2 * CELLS);
    let (walkable, unknown) = head.split_at_mut(CELLS);
    let (monsters, items) = objects.split_at_mut(CELLS);
    for (row, y) in (here.y - RADIUS..=here.y + RADIUS).enumerate() {
        let inside = (0..HEIGHT as i8).contains(&y);
        let (known, open) =
            if inside { (level.known.0[y as usize], level.open.0[y as usize]) } else { (!0, 0) };
        // Shifted by the radius first, because the window may begin left of the map.
        let bits = |row: u64| (row << RADIUS) >> here.x;
        let (seen, hidden) = (bits(known & open), bits(!known & ((1 << super::grid::WIDTH) - 1)));
        let range = row * SIDE..(row + 1) * SIDE;
        walkable[range.clone()].copy_from_slice(&flags(seen)[..SIDE]);
        unknown[range].copy_from_slice(&flags(hidden)[..SIDE]);
    }
    let place = |pos: Pos| {
        let (column, row) = (pos.x - here.x + RADIUS, pos.y - here.y + RADIUS);
        let side = 0..SIDE as i8;
        (side.contains(&column) && side.contains(&row)).then(|| row as usize * SIDE + column as usize)
    };
    monsters.fill(0.0);
    if game.outlook.in_view > 0 {
        for monster in level.monsters.iter().filter(|m| level.visible.get(m.pos)) {
            if let Some(cell) = place(monster.pos) {
                monsters[cell] = f32::from(monster.kind().damage) / MAX_DAMAGE;
            }
        }
    }
    items.fill(0.0);
    for &(pos, item) in level.items.iter().filter(|(pos, _)| level.known.get(*pos)) {
        if let Some(cell) = place(pos) {
            items[cell] = match item {
                Item::Gold(_) => 1.0,
                Item::Potion => 0.8,
                Item::Food => 0.6,
                Item::Darts(_) => 0.4,
            };
        }
    }
    if let Some(cell) = level.stairs.filter(|&pos| level.known.get(pos)).and_then(place) {
        items[cell] = -1.0;
    }
}
