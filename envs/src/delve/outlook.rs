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
    /// Step that brings the hero further away from the nearest monster in view, whichever that is then.
    pub(super) flee: Option<u8>,
    /// Sum of the strongest hits of the monsters in view.
    pub(super) danger: i16,
}

/// Direction of each bit of a block, and the eight bits in the order of the directions.
const BLOCK_OF_DIRECTION: [u8; 8] = [1, 2, 5, 8, 7, 6, 3, 0];

impl Outlook {
    /// Reads the level as the hero sees it.
    pub(super) fn new(level: &Level, hero: &Hero) -> Self {
        let mut ways = Self::default();
        ways.ways(level, hero.pos);
        ways.with_same_ways(level, hero)
    }

    /// [`new`](Self::new) after a turn in which the hero has not moved and found nothing: ways stay as
    /// they are.
    pub(super) fn with_same_ways(&self, level: &Level, hero: &Hero) -> Self {
        let here = hero.pos;
        let Self { frontier, item, stairs, at_dead_end, .. } = *self;
        let ways = Self { frontier, item, stairs, at_dead_end, ..Self::default() };
        let mut outlook = Self { on_stairs: level.stairs == Some(here), ..ways };
        let open = level.open.block(here);
        for (direction, bit) in BLOCK_OF_DIRECTION.iter().enumerate() {
            outlook.moves |= ((open >> bit & 1) as u8) << direction;
        }
        outlook.can_search = !open & !level.searched.block(here) & 0x1ff != 0;
        outlook.monsters(level, hero);
        outlook
    }

    fn ways(&mut self, level: &Level, here: Pos) {
        let known = level.known_open();
        let mut edge = level.frontier(&known);
        if edge.is_empty() {
            edge = level.dead_ends(&known);
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
        let threats = level.monsters.iter().map(|m| m.pos).filter(|&pos| level.visible.get(pos));
        let room = |pos: Pos| threats.clone().map(|monster| monster.distance(pos)).min();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delve::grid::{HEIGHT, WIDTH};
    use crate::delve::level::Item;
    use crate::delve::monsters::{KINDS, Monster};
    use crate::delve::{Delve, DelveConfig, Scripted};
    use gatefold_env::{Action, Environment, ObservationBatch, Purpose, StreamRng, stream};
    use rand::RngExt;

    /// The same game with other terrain, items, monsters and stairs behind the fog.
    fn scrambled(game: &Delve, rng: &mut StreamRng) -> Delve {
        let mut other = game.clone();
        let level = &mut other.level;
        for y in 1..HEIGHT - 1 {
            let unknown = !level.known.0[y] & ((1 << (WIDTH - 1)) - 2);
            let noise = |rng: &mut StreamRng| rng.random::<u64>() & unknown;
            level.open.0[y] ^= noise(rng);
            level.corridors.0[y] ^= noise(rng);
            level.doors.0[y] ^= noise(rng);
            level.searched.0[y] ^= noise(rng);
            level.secret.0[y] ^= rng.random::<u64>() & !level.open.0[y] & ((1 << (WIDTH - 1)) - 2);
        }
        let mut anywhere = || Pos::new(rng.random_range(1..WIDTH - 1), rng.random_range(1..HEIGHT - 1));
        let spots: Vec<Pos> = (0..60).map(|_| anywhere()).collect();
        let (mut free, known) = (spots.into_iter(), level.known);
        let mut hidden = || free.find(|&pos| !known.get(pos)).unwrap_or(Pos::new(0, 0));
        if level.stairs.is_some_and(|pos| !known.get(pos)) {
            level.stairs = Some(hidden());
        }
        level.items.retain(|(pos, _)| known.get(*pos));
        level.items.push((hidden(), Item::Potion));
        level.item_grid = Default::default();
        level.items.iter().for_each(|&(pos, _)| level.item_grid.set(pos));
        let visible = level.visible;
        level.monsters.retain(|m| visible.get(m.pos));
        for kind in 0..KINDS.len() as u8 {
            level.monsters.push(Monster::new(kind, hidden()));
        }
        level.occupied = Default::default();
        level.monsters.iter().for_each(|m| level.occupied.set(m.pos));
        other.take_stock();
        other
    }

    #[test]
    fn nothing_behind_the_fog_reaches_observation_activations_mask_script_or_picture() {
        let (mut compared, mut differing) = (0, 0);
        for seed in 0..20 {
            let mut rng = stream(seed, Purpose::Environment, 0);
            let mut game = Delve::new(&DelveConfig::default()).unwrap();
            let observe = |game: &Delve| {
                let mut batch = ObservationBatch::new(&game.spec(), 1);
                game.observe(&mut batch.as_mut().row(0));
                batch
            };
            game.reset(&mut rng);
            for turn in 0..300 {
                let other = scrambled(&game, &mut rng);
                differing += usize::from(other.level.open != game.level.open);
                assert_eq!(observe(&other), observe(&game), "seed {seed}, turn {turn}");
                assert_eq!(other.render(), game.render());
                let deed = Scripted::default().act(&game, &mut rng.clone());
                assert_eq!(Scripted::default().act(&other, &mut rng.clone()), deed);
                compared += 1;
                if game.step(Action::Discrete(deed.index()), &mut rng).end.is_some() {
                    break;
                }
            }
        }
        assert!(compared > 3000 && differing == compared, "{differing} of {compared} worlds differed");
    }

    #[test]
    fn the_outlook_of_small_maps_is_what_one_would_say() {
        let outlook =
            |rows: &[&str], lit| Delve::from_map(&DelveConfig::default(), rows, lit).unwrap().outlook;
        let fight = outlook(&["#######", "#..O..#", "#..@j.#", "#..b..#", "#######"], true);
        assert_eq!((fight.in_view, fight.adjacent, fight.weakest), (3, 3, Some(2)));
        assert_eq!(
            (fight.danger, fight.approach, fight.flee),
            (12, None, None),
            "every step stays next to one of them"
        );
        let caught = outlook(&["######", "#....#", "#..@j#", "#....#", "######"], true);
        assert!(matches!(caught.flee, Some(5..=7)), "{caught:?}");
        let shot = outlook(&["########", "#@.j.a.#", "########"], true);
        assert_eq!((shot.target, shot.approach), (Some(0), Some(2)));
        let end = outlook(&["#####", "#,,@#", "#####"], false);
        assert!(end.can_search && end.frontier.is_some() && !end.at_dead_end);
        let end = outlook(&["####", "#,@#", "####"], false);
        assert!(!end.at_dead_end, "the other cell's far side is still unknown");
        let alone = outlook(&["###", "#@#", "###"], true);
        assert_eq!((alone.moves, alone.frontier, alone.item, alone.stairs), (0, None, None, None));
    }
}
