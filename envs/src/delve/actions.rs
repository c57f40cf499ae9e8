//! The twenty actions, when each is allowed, and what each does.

use gatefold_env::StreamRng;

use super::hero::Hero;
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
    /// 15: eats a ration, when there is room for it.
    Eat,
    /// 16: drinks a potion.
    Quaff,
    /// 17: searches the walls up to two cells away for secret doors; allowed next to a wall that has
    /// not been searched.
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
    #[inline(always)]
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
            Self::Eat => hero.food > 0 && hero.is_hungry(),
            Self::Quaff => hero.potions > 0 && hero.hp < hero.max_hp,
            Self::Search => outlook.can_search,
            Self::Rest => true,
            Self::Descend => outlook.on_stairs,
        }
    }
}

/// [`Deed::is_allowed`] of every action, in the order of the actions; written out, so that the compiler
/// knows each deed and nothing branches.
pub(super) fn mask(hero: &Hero, outlook: &Outlook) -> [bool; NUM_ACTIONS] {
    let may = |deed: Deed| deed.is_allowed(hero, outlook);
    [
        may(Deed::Step(0)),
        may(Deed::Step(1)),
        may(Deed::Step(2)),
        may(Deed::Step(3)),
        may(Deed::Step(4)),
        may(Deed::Step(5)),
        may(Deed::Step(6)),
        may(Deed::Step(7)),
        may(Deed::Explore),
        may(Deed::Collect),
        may(Deed::SeekStairs),
        may(Deed::Attack),
        may(Deed::Approach),
        may(Deed::Flee),
        may(Deed::Throw),
        may(Deed::Eat),
        may(Deed::Quaff),
        may(Deed::Search),
        may(Deed::Rest),
        may(Deed::Descend),
    ]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delve::{Delve, DelveConfig, Scripted};
    use gatefold_env::{Action, Environment, Purpose, stream};
    use rand::RngExt;

    /// Calls `see` on states of games played mostly by the scripted and at times by a random policy.
    fn on_states(mut see: impl FnMut(&Delve, &StreamRng)) {
        for seed in 0..12 {
            let mut rng = stream(seed, Purpose::Environment, 0);
            let config = DelveConfig { levels: 1 + seed as u8 % 3, ..DelveConfig::default() };
            let mut game = Delve::new(&config).unwrap();
            game.reset(&mut rng);
            for turn in 0..500 {
                see(&game, &rng);
                assert_eq!(game.outlook, Outlook::new(&game.level, &game.hero), "ways may be kept");
                let deed = if turn % 4 == 0 {
                    let allowed: Vec<_> =
                        (0..NUM_ACTIONS).filter(|&a| game.allows(Deed::from_index(a))).collect();
                    Deed::from_index(allowed[rng.random_range(0..allowed.len())])
                } else {
                    Scripted::default().act(&game, &mut rng)
                };
                assert!(game.allows(deed), "{deed:?}");
                if game.step(Action::Discrete(deed.index()), &mut rng).end.is_some() {
                    break;
                }
            }
        }
    }

    #[test]
    fn the_mask_allows_exactly_the_actions_that_have_an_effect() {
        let mut seen = [[0; 2]; NUM_ACTIONS];
        on_states(|game, rng| {
            for action in 0..NUM_ACTIONS {
                let deed = Deed::from_index(action);
                assert_eq!(deed.index(), action);
                let (mut level, mut hero, mut draws) = (game.level.clone(), game.hero, rng.clone());
                let descends = perform(deed, &mut level, &mut hero, &game.outlook, &mut draws);
                // A missed blow changes nothing but has been rolled for.
                let effect = descends || level != game.level || hero != game.hero || draws != *rng;
                let allowed = game.allows(deed);
                assert_eq!(mask(&game.hero, &game.outlook)[action], allowed, "{deed:?}");
                seen[action][usize::from(allowed)] += 1;
                match deed {
                    Deed::Rest => assert!(allowed, "waiting is always allowed"),
                    _ => assert_eq!(effect, allowed, "{deed:?} {}", game.render().unwrap()),
                }
            }
        });
        for (action, counts) in seen.iter().enumerate() {
            let deed = Deed::from_index(action);
            assert!(counts[1] > 0, "{deed:?} was never allowed");
            assert!(counts[0] > 0 || deed == Deed::Rest, "{deed:?} was never forbidden");
        }
    }

    #[test]
    fn travelling_takes_the_first_step_of_the_way_and_fighting_hits_the_monster_meant() {
        let check = |rows: &[&str], deed: Deed, expected: &str| {
            let mut game = Delve::from_map(&DelveConfig::default(), rows, true).unwrap();
            assert!(game.allows(deed), "{deed:?} in {rows:?}");
            let mut rng = stream(5, Purpose::Environment, 0);
            perform(deed, &mut game.level, &mut game.hero, &game.outlook, &mut rng);
            let (hero, monsters) = (game.hero.pos, game.level.monsters.len());
            let got = format!("{},{} {} {} {}", hero.x, hero.y, game.hero.gold, game.hero.darts, monsters);
            assert_eq!(got, expected, "{deed:?} in {rows:?}");
        };
        let cases: [(&[&str], Deed, &str); 6] = [
            (&["#####", "#@.$#", "#####"], Deed::Collect, "2,1 0 3 0"),
            (&["#####", "#@$.#", "#####"], Deed::Step(2), "2,1 10 3 0"),
            (&["#####", "#@.>#", "#####"], Deed::SeekStairs, "2,1 0 3 0"),
            (&["######", "#@..k#", "######"], Deed::Approach, "2,1 0 3 1"),
            (&["######", "#.@.k#", "######"], Deed::Flee, "1,1 0 3 1"),
            (&["######", "#@..b#", "######"], Deed::Throw, "1,1 0 2 0"),
        ];
        for (rows, deed, expected) in cases {
            check(rows, deed, expected);
        }
    }
}
