//! The level as text, as far as the hero knows it.

use super::Delve;
use super::grid::{HEIGHT, Pos, WIDTH};
use super::level::Item;

/// The known map and a status line.
pub(super) fn render(game: &Delve) -> String {
    let mut text = String::with_capacity((WIDTH + 1) * (HEIGHT + 1) + 40);
    for y in 0..HEIGHT {
        let row: String = (0..WIDTH).map(|x| glyph(game, Pos::new(x, y))).collect();
        text.push_str(row.trim_end());
        text.push('\n');
    }
    let hero = &game.hero;
    text.push_str(&format!(
        "Depth {}  HP {}/{}  Level {}  XP {}  Gold {}  Food {}  Potions {}  Darts {}  Nutrition {}  Turn {}\n",
        game.depth,
        hero.hp.max(0),
        hero.max_hp,
        hero.level,
        hero.xp,
        hero.gold,
        hero.food,
        hero.potions,
        hero.darts,
        hero.nutrition,
        game.turn,
    ));
    text
}

fn glyph(game: &Delve, pos: Pos) -> char {
    let level = &game.level;
    if pos == game.hero.pos {
        return '@';
    }
    if !level.known.get(pos) {
        return ' ';
    }
    if let Some(index) = level.monster_at(pos).filter(|_| level.visible.get(pos)) {
        return level.monsters[index].kind().glyph;
    }
    if let Some((_, item)) = level.items.iter().find(|(at, _)| *at == pos) {
        return match item {
            Item::Gold(_) => '$',
            Item::Food => '%',
            Item::Potion => '!',
            Item::Darts(_) => ')',
        };
    }
    if level.stairs == Some(pos) {
        return '>';
    }
    match (level.doors.get(pos), level.corridors.get(pos), level.open.get(pos)) {
        (true, _, _) => '+',
        (_, true, _) => ',',
        (_, _, true) => '.',
        _ => '#',
    }
}
