//! The twenty actions, when each is allowed, and what each does.

use gatefold_env::StreamRng;

use super::hero::{Hero, MAX_NUTRITION};
use super::level::{Item, Level};
use super::outlook::Outlook;

/// What the hero can do in one turn. The index of an action is its place in this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Actions 0 to 7: a step north, then clockwise; a monster in the way is attacked.
    Step(u8),
    /// 8: one step on the shortest known way to the nearest unexplored edge, or, if none is left,
    /// to a dead end that has not been searched.
    Explore,
    /// 9: one step towards the nearest item seen (gold, food, potion, darts).
    Collect,
    /// 10: one step towards the stairs, once seen.
    SeekStairs,
    /// 11: strikes the adjacent monster with the fewest hit points.
    Attack,
    /// 12: one step towards the nearest monster in view.
    Approach,
    /// 13: one step away from the nearest monsters in view.
    Flee,
    /// 14: throws a dart at the nearest monster in a clear line.
    Throw,
    /// 15: eats a ration.
    Eat,
    /// 16: drinks a potion.
    Quaff,
    /// 17: searches the adjacent walls for secret doors.
    Search,
    /// 18: waits a turn, and heals if no monster is in view. Always allowed.
    Rest,
    /// 19: takes the stairs down.
    Descend,
}

/// Number of actions.
pub const NUM_ACTIONS: usize = 20;

impl Deed {
    /// The action with this index; panics from [`NUM_ACTIONS`] on.
    pub fn from_index(index: usize) -> Self {
        match index {
            0..8 => Self::Step(index as u8),
            8 => Self::Explore,
            9 => Self::Collect,
            10 => Self::SeekStairs,
            11 => Self::Attack,
            12 => Self::Approach,
            13 => Self::Flee,
            14 => Self::Throw,
            15 => Self::Eat,
            16 => Self::Quaff,
            17 => Self::Search,
            18 => Self::Rest,
            19 => Self::Descend,
            _ => panic!("action {index} of {NUM_ACTIONS}"),
        }
    }

    /// The index of this action.
    pub fn index(self) -> usize {
        match self {
            Self::Step(direction) => direction as usize,
            Self::Explore => 8,
            Self::Collect => 9,
            Self::SeekStairs => 10,
            Self::Attack => 11,
            Self::Approach => 12,
            Self::Flee => 13,
            Self::Throw => 14,
            Self::Eat => 15,
            Self::Quaff => 16,
            Self::Search => 17,
            Self::Rest => 18,
            Self::Descend => 19,
        }
    }

    /// Whether the action has an effect now.
    pub(super) fn is_allowed(self, hero: &Hero, outlook: &Outlook) -> bool {
        match self {
            Self::Step(direction) => outlook.moves >> direction & 1 == 1,
            Self::Explore => outlook.frontier.is_some(),
            Self::Collect => outlook.item.is_some(),
            Self::SeekStairs => outlook.stairs.is_some(),
            Self::Attack => outlook.weakest.is_some(),
            Self::Approach => outlook.approach.is_some(),
            Self::Flee => outlook.flee.is_some(),
            Self::Throw => outlook.target.is_some(),
            Self::Eat => hero.food > 0 && hero.nutrition < MAX_NUTRITION,
            Self::Quaff => hero.potions > 0,
            Self::Search => outlook.can_search,
            Self::Rest => true,
            Self::Descend => outlook.on_stairs,
        }
    }
}

/// Carries out the hero's part of a turn; true if the hero takes the stairs.
///
/// An action that is not allowed does nothing.
pub(super) fn perform(
    deed: Deed,
    level: &mut Level,
    hero: &mut Hero,
    outlook: &Outlook,
    rng: &mut StreamRng,
) -> bool {
    if !deed.is_allowed(hero, outlook) {
        return false;
    }
    let expect = "an allowed action has what it needs";
    match deed {
        Deed::Step(direction) => step(level, hero, direction, rng),
        Deed::Explore => step(level, hero, outlook.frontier.expect(expect).direction, rng),
        Deed::Collect => step(level, hero, outlook.item.expect(expect).direction, rng),
        Deed::SeekStairs => step(level, hero, outlook.stairs.expect(expect).direction, rng),
        Deed::Approach => step(level, hero, outlook.approach.expect(expect), rng),
        Deed::Flee => step(level, hero, outlook.flee.expect(expect), rng),
        Deed::Attack => strike(level, hero, outlook.weakest.expect(expect) as usize, rng),
        Deed::Throw => {
            hero.darts -= 1;
            strike(level, hero, outlook.target.expect(expect) as usize, rng);
        }
        Deed::Eat => hero.eat(),
        Deed::Quaff => hero.quaff(),
        Deed::Search => level.search(hero.pos),
        Deed::Rest if outlook.in_view == 0 => hero.rest(),
        Deed::Rest => {}
        Deed::Descend => return true,
    }
    false
}

/// Moves, or attacks what stands in the way.
fn step(level: &mut Level, hero: &mut Hero, direction: u8, rng: &mut StreamRng) {
    let to = hero.pos.step(direction);
    if let Some(index) = level.monster_at(to) {
        return strike(level, hero, index, rng);
    }
    level.extend_trail(hero.pos);
    hero.pos = to;
    match level.take_item(to) {
        Some(Item::Gold(pieces)) => hero.gold += u32::from(pieces),
        Some(Item::Food) => hero.food = hero.food.saturating_add(1),
        Some(Item::Potion) => hero.potions = hero.potions.saturating_add(1),
        Some(Item::Darts(darts)) => hero.darts = hero.darts.saturating_add(darts),
        None => {}
    }
}

/// One blow or dart at a monster; it wakes, and may be slain.
fn strike(level: &mut Level, hero: &mut Hero, index: usize, rng: &mut StreamRng) {
    let monster = &mut level.monsters[index];
    monster.awake = true;
    monster.hp -= hero.blow(rng);
    if monster.hp <= 0 {
        let slain = level.remove_monster(index);
        hero.gain_experience(slain.kind().xp);
    }
}
