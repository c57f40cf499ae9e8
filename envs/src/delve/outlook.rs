//! What the hero can see and do: the one reading of the world that mask, observation, activations
//! and scripted policy share. It is computed once per turn, from known cells and visible monsters
//! only, so nothing behind the fog reaches any of them.

use serde::{Deserialize, Serialize};

use super::behaviour::has_clear_line;
use super::grid::Pos;
use super::hero::Hero;
use super::level::Level;
use super::paths::{Hint, nearest};

/// How far the hero throws.
const THROW_RANGE: u8 = 6;

/// Options and threats of the current turn. Monsters are indices into the level's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Outlook {
    /// Way to the nearest unexplored edge, or to an unsearched dead end if no edge is left.
    pub(super) frontier: Option<Hint>,
    /// Way to the nearest item seen.
    pub(super) item: Option<Hint>,
    /// Way to the stairs; `None` while standing on them.
    pub(super) stairs: Option<Hint>,
    pub(super) on_stairs: bool,
    /// Whether an unsearched wall is next to the hero.
    pub(super) can_search: bool,
    /// Whether the hero stands at the end of a corridor that leads nowhere.
    pub(super) at_dead_end: bool,
    /// Walkable neighbours, one bit per direction.
    pub(super) moves: u8,
    /// Monsters in view.
    pub(super) in_view: u8,
    /// Monsters next to the hero.
    pub(super) adjacent: u8,
    /// The nearest monsters in view, nearest first.
    pub(super) nearest: [Option<u8>; 2],
    /// The adjacent monster with the fewest hit points.
    pub(super) weakest: Option<u8>,
    /// The nearest monster in a clear line and in range, if there are darts.
    pub(super) target: Option<u8>,
    /// Step that brings the nearest monster nearer, if it is not adjacent.
    pub(super) approach: Option<u8>,
    /// Step that brings the hero further away from the nearest monsters.
    pub(super) flee: Option<u8>,
    /// Sum of the strongest hits of the monsters in view.
    pub(super) danger: i16,
}

/// Direction of each bit of a block, and the eight bits in the order of the directions.
const BLOCK_OF_DIRECTION: [u8; 8] = [1, 2, 5, 8, 7, 6, 3, 0];

impl Outlook {
    /// Reads the level as the hero sees it.
    pub(super) fn new(level: &Level, hero: &Hero) -> Self {
        let here = hero.pos;
        let mut outlook = Self { on_stairs: level.stairs == Some(here), ..Self::default() };
        let open = level.open.block(here);
        for (direction, bit) in BLOCK_OF_DIRECTION.iter().enumerate() {
            outlook.moves |= ((open >> bit & 1) as u8) << direction;
        }
        outlook.can_search = !open & !level.searched.block(here) & 0x1ff != 0;
        outlook.ways(level, here);
        outlook.monsters(level, hero);
        outlook
    }

    fn ways(&mut self, level: &Level, here: Pos) {
        let known = level.known_open();
        let mut edge = level.frontier();
        if edge.is_empty() {
            edge = level.dead_ends();
            self.at_dead_end = edge.get(here);
        }
        let items = known.zip(&level.item_grid, |k, i| k & i);
        let mut stairs = super::grid::Grid::default();
        if let Some(pos) = level.stairs.filter(|&pos| known.get(pos)) {
            stairs.set(pos);
        }
        [self.frontier, self.item, self.stairs] = nearest(here, &known, [&edge, &items, &stairs]);
    }

    fn monsters(&mut self, level: &Level, hero: &Hero) {
        if level.visible.zip(&level.occupied, |v, o| v & o).is_empty() {
            return;
        }
        let here = hero.pos;
        let distance =
            |index: Option<u8>| index.map_or(u8::MAX, |i| level.monsters[i as usize].pos.distance(here));
        for (index, monster) in level.monsters.iter().enumerate() {
            if !level.visible.get(monster.pos) {
                continue;
            }
            let (index, far) = (Some(index as u8), monster.pos.distance(here));
            self.in_view += 1;
            self.danger += monster.kind().damage;
            if far < distance(self.nearest[0]) {
                self.nearest = [index, self.nearest[0]];
            } else if far < distance(self.nearest[1]) {
                self.nearest[1] = index;
            }
            if far == 1 {
                self.adjacent += 1;
                let hp = |i: u8| level.monsters[i as usize].hp;
                if self.weakest.is_none_or(|weakest| monster.hp < hp(weakest)) {
                    self.weakest = index;
                }
            }
            let aimed = hero.darts > 0 && far <= THROW_RANGE && far < distance(self.target);
            if aimed && has_clear_line(level, here, monster.pos) {
                self.target = index;
            }
        }
        let first = &level.monsters[self.nearest[0].expect("a monster is in view") as usize];
        if self.adjacent == 0 {
            self.approach = self.step_towards(level, here, first.pos);
        }
        self.flee = self.step_away(level, here);
    }

    /// The straight step, or one beside it, that comes nearer to `goal` over free known cells.
    fn step_towards(&self, level: &Level, here: Pos, goal: Pos) -> Option<u8> {
        let direct = here.towards(goal)?;
        [0, 1, 7]
            .map(|turn| (direct + turn) % 8)
            .into_iter()
            .find(|&d| self.is_free(level, here, d) && here.step(d).distance(goal) < here.distance(goal))
    }

    /// The step that leaves the most room to the nearest monster, if any leaves more than now.
    fn step_away(&self, level: &Level, here: Pos) -> Option<u8> {
        let room = |pos: Pos| {
            let threats = self.nearest.iter().flatten().map(|&i| level.monsters[i as usize].pos);
            threats.map(|monster| monster.distance(pos)).min().unwrap_or(u8::MAX)
        };
        let mut best = (room(here), None);
        for direction in (0..8).filter(|&d| self.is_free(level, here, d)) {
            let gained = room(here.step(direction));
            if gained > best.0 {
                best = (gained, Some(direction));
            }
        }
        best.1
    }

    fn is_free(&self, level: &Level, here: Pos, direction: u8) -> bool {
        self.moves >> direction & 1 == 1 && !level.occupied.get(here.step(direction))
    }
}
