//! The hero: hit points, hunger, gold, experience and what is carried.

use gatefold_env::StreamRng;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::grid::Pos;

/// A full stomach, in turns of food.
pub(super) const MAX_NUTRITION: i16 = 400;
/// What one ration gives.
const RATION: i16 = 150;
/// Nutrition up to which the hero is hungry: there is room for a ration.
const HUNGRY: i16 = MAX_NUTRITION - RATION;

/// The hero's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hero {
    pub(super) pos: Pos,
    pub(super) hp: i16,
    pub(super) max_hp: i16,
    /// Turns until starvation sets in.
    pub(super) nutrition: i16,
    pub(super) gold: u32,
    pub(super) xp: u32,
    pub(super) level: u8,
    pub(super) food: u8,
    pub(super) potions: u8,
    pub(super) darts: u8,
    /// Hit points lost in the last turn.
    pub(super) hurt: i16,
}

impl Hero {
    pub(super) fn new(pos: Pos) -> Self {
        Self {
            pos,
            hp: 18,
            max_hp: 18,
            nutrition: 300,
            gold: 0,
            xp: 0,
            level: 1,
            food: 1,
            potions: 1,
            darts: 3,
            hurt: 0,
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.hp <= 0
    }

    /// Hit points as a fraction of the maximum; 0 when dead.
    pub(super) fn health(&self) -> f32 {
        f32::from(self.hp.max(0)) / f32::from(self.max_hp)
    }

    /// Experience needed for the next level: 20, 40, 80, ...
    pub(super) fn next_level_at(&self) -> u32 {
        20 << (self.level - 1).min(20)
    }

    /// Adds experience; a new level brings hit points, accuracy and damage.
    pub(super) fn gain_experience(&mut self, xp: u32) {
        self.xp += xp;
        while self.xp >= self.next_level_at() {
            self.level += 1;
            self.max_hp += 6;
            self.hp += 6;
        }
    }

    /// Damage of one blow, 0 for a miss; thrown darts are struck the same way.
    pub(super) fn blow(&self, rng: &mut StreamRng) -> i16 {
        let accuracy = 75 + 3 * u32::from(self.level.min(7));
        if rng.random_range(0..100u32) >= accuracy {
            return 0;
        }
        rng.random_range(1..=6i16) + i16::from(self.level) - 1
    }

    pub(super) fn suffer(&mut self, damage: i16) {
        self.hp -= damage;
        self.hurt += damage;
    }

    fn heal(&mut self, points: i16) {
        self.hp = (self.hp + points).min(self.max_hp);
    }

    /// Whether there is room for a ration.
    pub(super) fn is_hungry(&self) -> bool {
        self.nutrition <= HUNGRY
    }

    pub(super) fn eat(&mut self) {
        self.food -= 1;
        self.nutrition += RATION;
    }

    pub(super) fn quaff(&mut self) {
        self.potions -= 1;
        self.heal(6 + self.max_hp / 2);
    }

    /// One turn of undisturbed rest.
    pub(super) fn rest(&mut self) {
        self.heal(1 + self.max_hp / 10);
    }

    /// What every turn brings to the living: hunger, starvation, slow healing.
    pub(super) fn upkeep(&mut self, turn: u32) {
        if self.is_dead() {
            return;
        }
        if self.nutrition == 0 {
            self.suffer(1);
            return;
        }
        self.nutrition -= 1;
        if turn.is_multiple_of(16 - u32::from(self.level.min(10))) {
            self.heal(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_heals_the_dead() {
        let mut hero = Hero::new(Pos::new(1, 1));
        hero.suffer(hero.hp);
        (1..=16).for_each(|turn| hero.upkeep(turn));
        assert!(hero.is_dead());
    }

    #[test]
    fn an_empty_stomach_costs_a_hit_point_each_turn() {
        let mut hero = Hero::new(Pos::new(1, 1));
        hero.nutrition = 1;
        hero.upkeep(1);
        assert_eq!((hero.nutrition, hero.hp, hero.hurt), (0, 18, 0));
        hero.upkeep(2);
        assert_eq!((hero.nutrition, hero.hp, hero.hurt), (0, 17, 1));
        hero.eat();
        hero.upkeep(3);
        assert_eq!((hero.nutrition, hero.hp, hero.food), (RATION - 1, 17, 0));
    }

    #[test]
    fn experience_raises_the_level_and_with_it_hit_points_and_damage() {
        let mut hero = Hero::new(Pos::new(1, 1));
        hero.gain_experience(19);
        assert_eq!((hero.level, hero.max_hp), (1, 18));
        hero.gain_experience(21);
        assert_eq!((hero.level, hero.max_hp, hero.hp), (3, 30, 30));
        let mut rng = gatefold_env::stream(1, gatefold_env::Purpose::Environment, 0);
        let blows: Vec<_> = (0..300).map(|_| hero.blow(&mut rng)).filter(|&b| b > 0).collect();
        assert_eq!((blows.iter().min(), blows.iter().max()), (Some(&3), Some(&8)));
    }

    #[test]
    fn a_potion_heals_half_of_the_maximum_and_six_but_never_beyond() {
        let mut hero = Hero { hp: 2, potions: 2, ..Hero::new(Pos::new(1, 1)) };
        hero.quaff();
        assert_eq!((hero.hp, hero.potions), (17, 1));
        hero.quaff();
        assert_eq!((hero.hp, hero.max_hp, hero.potions), (18, 18, 0));
    }
}
