//! The scripted policy: a list of habits, each of which can be switched off.

use gatefold_env::StreamRng;
use rand::RngExt;

use super::Delve;
use super::actions::Deed;

/// Which habits the scripted policy has. A missing one is replaced by the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scripted {
    /// Eats when hungry, quaffs or takes the stairs when in danger, rests when hurt.
    pub survival: bool,
    /// Throws, attacks and approaches; without it monsters are only fought when they block the way.
    pub combat: bool,
    /// Explores, searches dead ends, seeks stairs; without it the hero strolls about at random.
    pub exploration: bool,
}

impl Default for Scripted {
    fn default() -> Self {
        Self { survival: true, combat: true, exploration: true }
    }
}

impl Scripted {
    /// The action for the current state; draws only where the stroll is random.
    pub fn act(&self, game: &Delve, rng: &mut StreamRng) -> Deed {
        let habits = [
            self.survival.then(|| survive(game)).flatten(),
            self.combat.then(|| fight(game)).flatten(),
            self.survival.then(|| recover(game)).flatten(),
            game.allows(Deed::Collect).then_some(Deed::Collect),
            self.exploration.then(|| explore(game)).flatten(),
            game.allows(Deed::Descend).then_some(Deed::Descend),
        ];
        habits.into_iter().flatten().next().unwrap_or_else(|| stroll(game, rng))
    }
}

/// What cannot wait.
fn survive(game: &Delve) -> Option<Deed> {
    let (hero, outlook) = (&game.hero, &game.outlook);
    let in_danger = f32::from(hero.hp) < f32::from(outlook.danger) + 0.15 * f32::from(hero.max_hp);
    if hero.health() < 0.5 && in_danger && outlook.in_view > 0 {
        if game.allows(Deed::Quaff) {
            return Some(Deed::Quaff);
        }
        if outlook.on_stairs {
            return Some(Deed::Descend);
        }
    }
    if game.allows(Deed::Eat) {
        return Some(Deed::Eat);
    }
    None
}

fn fight(game: &Delve) -> Option<Deed> {
    let deeds = [Deed::Attack, Deed::Throw, Deed::Approach];
    deeds.into_iter().find(|&deed| game.allows(deed))
}

/// Heals before going on, unless hunger presses.
fn recover(game: &Delve) -> Option<Deed> {
    let (hero, outlook) = (&game.hero, &game.outlook);
    let wounded = hero.health() < 0.7;
    if outlook.in_view == 0 && wounded && hero.nutrition > 0 {
        return Some(Deed::Rest);
    }
    let starving = hero.nutrition == 0 && hero.hp < 6;
    (starving && game.allows(Deed::Quaff)).then_some(Deed::Quaff)
}

fn explore(game: &Delve) -> Option<Deed> {
    let out_of_time = game.turn * u32::from(game.levels) > u32::from(game.depth) * game.max_steps;
    if out_of_time {
        let down = [Deed::Descend, Deed::SeekStairs];
        if let Some(deed) = down.into_iter().find(|&deed| game.allows(deed)) {
            return Some(deed);
        }
    }
    if game.outlook.at_dead_end {
        return Some(Deed::Search);
    }
    [Deed::Explore, Deed::Descend, Deed::SeekStairs].into_iter().find(|&deed| game.allows(deed))
}

/// A random allowed step.
fn stroll(game: &Delve, rng: &mut StreamRng) -> Deed {
    let moves = game.outlook.moves;
    let count = moves.count_ones();
    if count == 0 {
        return Deed::Rest;
    }
    let pick = rng.random_range(0..count) as usize;
    let direction = (0..8).filter(|d| moves >> d & 1 == 1).nth(pick);
    Deed::Step(direction.expect("as many directions as bits"))
}
