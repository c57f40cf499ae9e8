//! The monsters' turns: one function per behaviour.

use gatefold_env::StreamRng;
use rand::RngExt;

use super::grid::Pos;
use super::hero::Hero;
use super::level::Level;
use super::monsters::{ACTION_ENERGY, Behaviour};

/// How far an archer shoots.
const RANGE: u8 = 6;
/// How far a guard strays from its post.
const WARD: u8 = 3;

/// Every monster spends the energy it has; the hero may die of it.
pub(super) fn monsters_turn(level: &mut Level, hero: &mut Hero, rng: &mut StreamRng) {
    for index in 0..level.monsters.len() {
        let monster = &mut level.monsters[index];
        monster.energy += monster.kind().speed;
        while level.monsters[index].energy >= ACTION_ENERGY {
            level.monsters[index].energy -= ACTION_ENERGY;
            act(level, hero, index, rng);
        }
    }
}

/// One action of one monster. A sleeper in the hero's sight wakes with a chance of one third.
fn act(level: &mut Level, hero: &mut Hero, index: usize, rng: &mut StreamRng) {
    let monster = level.monsters[index];
    if !monster.awake {
        let notices = level.visible.get(monster.pos) && rng.random_range(0..3u8) == 0;
        level.monsters[index].awake = notices;
        return;
    }
    match monster.kind().behaviour {
        Behaviour::Wander => wander(level, hero, index, rng),
        Behaviour::Chase => chase(level, hero, index, rng),
        Behaviour::Guard => guard(level, hero, index, rng),
        Behaviour::Shoot => shoot(level, hero, index, rng),
        Behaviour::Flee if 2 * monster.hp < monster.kind().hp => flee(level, hero, index, rng),
        Behaviour::Flee => chase(level, hero, index, rng),
    }
}

fn wander(level: &mut Level, hero: &mut Hero, index: usize, rng: &mut StreamRng) {
    let pos = level.monsters[index].pos;
    if pos.distance(hero.pos) == 1 && rng.random_range(0..2u8) == 0 {
        return hit(level, hero, index, rng);
    }
    let to = pos.step(rng.random_range(0..8u8));
    if is_free(level, hero, to) {
        level.move_monster(index, to);
    }
}

fn chase(level: &mut Level, hero: &mut Hero, index: usize, rng: &mut StreamRng) {
    let pos = level.monsters[index].pos;
    if pos.distance(hero.pos) == 1 {
        return hit(level, hero, index, rng);
    }
    if level.visible.get(pos) {
        return approach(level, hero, index, hero.pos, |_| true);
    }
    let track = level.trail().find(|t| t.distance(pos) <= 1);
    match track {
        Some(to) if is_free(level, hero, to) => level.move_monster(index, to),
        Some(_) => {}
        None => approach(level, hero, index, hero.pos, |_| true),
    }
}

fn guard(level: &mut Level, hero: &mut Hero, index: usize, rng: &mut StreamRng) {
    let monster = level.monsters[index];
    let trespass = hero.pos.distance(monster.post) <= WARD && level.visible.get(monster.pos);
    if monster.pos.distance(hero.pos) == 1 {
        hit(level, hero, index, rng);
    } else if trespass {
        approach(level, hero, index, hero.pos, |to| to.distance(monster.post) <= WARD);
    } else {
        approach(level, hero, index, monster.post, |_| true);
    }
}

fn shoot(level: &mut Level, hero: &mut Hero, index: usize, rng: &mut StreamRng) {
    let pos = level.monsters[index].pos;
    let distance = pos.distance(hero.pos);
    if distance == 1 && rng.random_range(0..3u8) == 0 {
        return flee(level, hero, index, rng);
    }
    if distance <= RANGE && level.visible.get(pos) && has_clear_line(level, pos, hero.pos) {
        return hit(level, hero, index, rng);
    }
    chase(level, hero, index, rng);
}

fn flee(level: &mut Level, hero: &mut Hero, index: usize, rng: &mut StreamRng) {
    let pos = level.monsters[index].pos;
    let away = (0..8).map(|d| pos.step(d)).filter(|&to| is_free(level, hero, to));
    let best = away.max_by_key(|to| (to.distance(hero.pos), spread_out(*to, hero.pos)));
    match best {
        Some(to) if to.distance(hero.pos) > pos.distance(hero.pos) => level.move_monster(index, to),
        _ if pos.distance(hero.pos) == 1 => hit(level, hero, index, rng),
        _ => {}
    }
}

/// Straight-line separation, to choose among cells at the same king's distance.
fn spread_out(a: Pos, b: Pos) -> u8 {
    (a.x - b.x).unsigned_abs() + (a.y - b.y).unsigned_abs()
}

fn hit(level: &mut Level, hero: &mut Hero, index: usize, rng: &mut StreamRng) {
    let kind = level.monsters[index].kind();
    if rng.random_range(0..100u32) < kind.accuracy {
        hero.suffer(rng.random_range(1..=kind.damage));
    }
}

/// One step towards `goal`, straight or around one corner, where `allowed` says so.
fn approach(level: &mut Level, hero: &Hero, index: usize, goal: Pos, allowed: impl Fn(Pos) -> bool) {
    let pos = level.monsters[index].pos;
    let Some(direct) = pos.towards(goal) else { return };
    let step = [0, 1, 7, 2, 6].map(|turn| pos.step((direct + turn) % 8));
    if let Some(&to) = step.iter().find(|&&to| is_free(level, hero, to) && allowed(to)) {
        level.move_monster(index, to);
    }
}

fn is_free(level: &Level, hero: &Hero, pos: Pos) -> bool {
    level.open.get(pos) && !level.occupied.get(pos) && pos != hero.pos
}

/// Whether a missile flies from `from` to `to`: one of eight directions, nothing in between.
pub(super) fn has_clear_line(level: &Level, from: Pos, to: Pos) -> bool {
    if !from.in_line(to) {
        return false;
    }
    let Some(direction) = from.towards(to) else { return false };
    let mut cell = from.step(direction);
    while cell != to {
        if !level.open.get(cell) || level.occupied.get(cell) {
            return false;
        }
        cell = cell.step(direction);
    }
    true
}
