//! The monsters' turns: one function per behaviour.

use gatefold_env::StreamRng;
use rand::RngExt;

use super::grid::{Grid, Pos};
use super::hero::Hero;
use super::level::Level;
use super::monsters::{ACTION_ENERGY, Behaviour};
use super::paths::nearest;

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
    let hunt = || {
        let mut prey = Grid::default();
        prey.set(hero.pos);
        nearest(pos, &level.open, [&prey])[0].map(|hint| pos.step(hint.direction))
    };
    if let Some(to) = track.or_else(hunt).filter(|&to| is_free(level, hero, to)) {
        level.move_monster(index, to);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delve::{Delve, DelveConfig};
    use gatefold_env::{Purpose, stream};

    /// What became of the first monster after some turns in which the hero only waits.
    struct Watched {
        /// Where it was after each turn.
        places: Vec<Pos>,
        /// Hit points the hero lost.
        damage: i16,
    }

    fn watch(rows: &[&str], lit: bool, hp: i16, turns: usize) -> Watched {
        let mut game = Delve::from_map(&DelveConfig::default(), rows, lit).unwrap();
        let mut rng = stream(9, Purpose::Environment, 0);
        game.level.monsters[0].hp = hp.min(game.level.monsters[0].hp);
        let mut places = Vec::new();
        for _ in 0..turns {
            monsters_turn(&mut game.level, &mut game.hero, &mut rng);
            places.push(game.level.monsters[0].pos);
        }
        Watched { places, damage: game.hero.hurt }
    }

    const HALL: [&str; 7] = [
        "##############",
        "#............#",
        "#............#",
        "#@..........M#",
        "#............#",
        "#............#",
        "##############",
    ];

    fn hall(glyph: &str) -> Vec<String> {
        HALL.iter().map(|row| row.replace('M', glyph)).collect()
    }

    fn watch_hall(glyph: &str, hp: i16, turns: usize) -> Watched {
        let rows = hall(glyph);
        watch(&rows.iter().map(String::as_str).collect::<Vec<_>>(), true, hp, turns)
    }

    const HERO: Pos = Pos { x: 1, y: 3 };

    #[test]
    fn a_chaser_runs_up_and_bites() {
        for glyph in ["j", "w", "O", "k"] {
            let seen = watch_hall(glyph, i16::MAX, 30);
            let distances: Vec<_> = seen.places.iter().map(|p| p.distance(HERO)).collect();
            assert!(distances.is_sorted_by(|a, b| a >= b) && distances[29] == 1, "{glyph}: {distances:?}");
            assert!(seen.damage > 0, "{glyph}");
        }
    }

    #[test]
    fn a_bat_flutters_about_without_pursuing() {
        let seen = watch_hall("b", i16::MAX, 200);
        let columns: Vec<_> = seen.places.iter().map(|p| p.x).collect();
        assert!(columns.iter().max() > columns.iter().min());
        let near = seen.places.iter().filter(|p| p.distance(HERO) == 1).count();
        assert!(near < 60, "next to the hero in {near} of 200 turns");
        assert!(watch(&["####", "#@b#", "####"], true, i16::MAX, 30).damage > 0, "but it bites who is near");
    }

    #[test]
    fn a_guard_keeps_to_its_post_unless_somebody_comes_near() {
        let far = watch_hall("s", i16::MAX, 30);
        assert!(far.places.iter().all(|&p| p == Pos { x: 12, y: 3 }) && far.damage == 0);
        let near = watch(&["######", "#@..s#", "######"], true, i16::MAX, 30);
        assert!(near.damage > 0, "it strikes a trespasser");
        let mut game = Delve::from_map(
            &DelveConfig::default(),
            &hall("s").iter().map(|r| &r[..]).collect::<Vec<_>>(),
            true,
        )
        .unwrap();
        let away = Pos { x: 6, y: 1 };
        game.level.move_monster(0, away);
        let mut rng = stream(9, Purpose::Environment, 0);
        (0..10).for_each(|_| monsters_turn(&mut game.level, &mut game.hero, &mut rng));
        assert_eq!(game.level.monsters[0].pos, Pos { x: 12, y: 3 }, "it returns to its post");
    }

    #[test]
    fn an_archer_shoots_along_free_lines_only() {
        // One turn, many throws of the dice: the archer hits from afar sooner or later, or never.
        let shoots = |rows: &[&str]| {
            let game = Delve::from_map(&DelveConfig::default(), rows, true).unwrap();
            (0..30).any(|seed| {
                let mut rng = stream(seed, Purpose::Environment, 0);
                let (mut level, mut hero) = (game.level.clone(), game.hero);
                monsters_turn(&mut level, &mut hero, &mut rng);
                hero.hurt > 0
            })
        };
        let cases: [(&[&str], bool); 6] = [
            (&["########", "#@....a#", "########"], true),
            (&["#######", "#@....#", "#.....#", "#..a..#", "#######"], true),
            (&["#######", "#@....#", "#.....#", "#...a.#", "#######"], false),
            (&["#######", "#@....#", "#.....#", "#.....#", "#...a.#", "#######"], true),
            (&["########", "#@..s.a#", "########"], false),
            (&["###########", "#@.......a#", "###########"], false),
        ];
        for (rows, expected) in cases {
            assert_eq!(shoots(rows), expected, "{rows:?}");
        }
    }

    #[test]
    fn a_hurt_coward_runs_away_and_bites_only_when_cornered() {
        let seen = watch(&["##########", "#@.k.....#", "##########"], true, 3, 20);
        assert_eq!((seen.places[19], seen.damage), (Pos::new(8, 1), 0));
        assert!(watch(&["####", "#@k#", "####"], true, 3, 20).damage > 0);
    }

    #[test]
    fn a_chaser_out_of_sight_follows_the_trail() {
        let rows = ["#########", "#j,,,,,,#", "#######,#", "#@,,,,,,#", "#########"];
        let mut game = Delve::from_map(&DelveConfig::default(), &rows, false).unwrap();
        let mut rng = stream(9, Purpose::Environment, 0);
        let way = [2, 3, 4, 5, 6].map(|x| Pos::new(x, 1));
        let rest = [Pos::new(7, 2), Pos::new(6, 3), Pos::new(5, 3), Pos::new(4, 3), Pos::new(3, 3)];
        way.into_iter().chain(rest).chain([Pos::new(2, 3)]).for_each(|p| game.level.extend_trail(p));
        for _ in 0..12 {
            monsters_turn(&mut game.level, &mut game.hero, &mut rng);
        }
        assert_eq!(game.level.monsters[0].pos.distance(game.hero.pos), 1);
    }
}
