//! Small worlds drawn as text, for tests and what-if studies.

use gatefold_env::EnvError;

use super::grid::{HEIGHT, Pos, WIDTH};
use super::hero::Hero;
use super::level::{Item, Level, Room};
use super::monsters::{KINDS, Monster};
use super::outlook::Outlook;
use super::{Delve, DelveConfig};

impl Delve {
    /// A game on one drawn level, placed in the map's upper left corner.
    ///
    /// `#` or space wall, `.` floor, `,` corridor, `+` door, `?` secret door, `>` stairs, `$` 10
    /// gold, `%` food, `!` potion, `)` 3 darts, `@` the hero, and the monsters' letters (awake).
    /// Floor is lit as one room from its upper left to its lower right corner if `lit`.
    ///
    /// Fails on an unknown letter, a missing hero or a walkable cell on the border.
    pub fn from_map(config: &DelveConfig, rows: &[&str], lit: bool) -> Result<Self, EnvError> {
        let mut level = Level::default();
        let mut start = None;
        let fault = |value: String, expected: &str| EnvError::Option {
            key: "map".to_string(),
            value,
            expected: expected.to_string(),
        };
        let mut room = Room { x0: WIDTH as u8, y0: HEIGHT as u8, x1: 0, y1: 0, lit };
        for (y, row) in rows.iter().enumerate() {
            for (x, letter) in row.chars().enumerate() {
                if matches!(letter, '#' | ' ') {
                    continue;
                }
                if !(1..WIDTH - 1).contains(&x) || !(1..HEIGHT - 1).contains(&y) {
                    return Err(fault(format!("`{letter}` at {x}, {y}"), "the border must be wall"));
                }
                let pos = Pos::new(x, y);
                level.open.set(pos);
                match letter {
                    ',' => level.corridors.set(pos),
                    '+' => level.doors.set(pos),
                    '?' => {
                        level.secret.set(pos);
                        level.open.clear(pos);
                    }
                    _ => {
                        room.x0 = room.x0.min(x as u8);
                        room.y0 = room.y0.min(y as u8);
                        room.x1 = room.x1.max(x as u8);
                        room.y1 = room.y1.max(y as u8);
                    }
                }
                match letter {
                    '.' | ',' | '+' | '?' => {}
                    '@' => start = Some(pos),
                    '>' => level.stairs = Some(pos),
                    '$' => level.put_item(pos, Item::Gold(10)),
                    '%' => level.put_item(pos, Item::Food),
                    '!' => level.put_item(pos, Item::Potion),
                    ')' => level.put_item(pos, Item::Darts(3)),
                    _ => {
                        let kind = KINDS.iter().position(|k| k.glyph == letter);
                        let kind = kind.ok_or_else(|| fault(format!("`{letter}`"), "an unknown letter"))?;
                        level.put_monster(Monster { awake: true, ..Monster::new(kind as u8, pos) });
                    }
                }
            }
        }
        let start = start.ok_or_else(|| fault(rows.join("/"), "need one `@`"))?;
        level.rooms[0] = room;
        level.look(start);
        let hero = Hero::new(start);
        let outlook = Outlook::new(&level, &hero);
        let mut game = <Self as gatefold_env::Environment>::new(config)?;
        (game.level, game.hero, game.outlook) = (level, hero, outlook);
        Ok(game)
    }
}
