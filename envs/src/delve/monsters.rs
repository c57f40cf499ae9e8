//! The bestiary: what each kind of monster is and how it behaves.

use serde::{Deserialize, Serialize};

use super::grid::Pos;

/// How a monster spends its turns once it is awake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Flutters about; bites half of the time when it happens to be next to the hero.
    Wander,
    /// Runs to the hero and hits; follows the hero's trail when out of sight.
    Chase,
    /// Strikes whoever comes near its post, and stays near it.
    Guard,
    /// Shoots along straight lines, and closes in otherwise.
    Shoot,
    /// Chases while healthy, runs away below half its hit points.
    Flee,
}

/// One row of the bestiary.
#[derive(Debug)]
pub(super) struct Kind {
    /// The letter it is drawn with.
    pub(super) glyph: char,
    pub(super) behaviour: Behaviour,
    /// First and last level it lives on.
    pub(super) depths: (u8, u8),
    pub(super) hp: i16,
    /// Damage of a hit is 1 to this.
    pub(super) damage: i16,
    /// Chance to hit, percent.
    pub(super) accuracy: u32,
    /// Energy per turn; an action costs [`ACTION_ENERGY`].
    pub(super) speed: u8,
    /// Experience for slaying it.
    pub(super) xp: u32,
}

/// What one action of a monster costs; the hero acts once per turn.
pub(super) const ACTION_ENERGY: u8 = 12;

const fn kind(
    glyph: char,
    behaviour: Behaviour,
    depths: (u8, u8),
    hp: i16,
    damage: i16,
    accuracy: u32,
    speed: u8,
    xp: u32,
) -> Kind {
    Kind { glyph, behaviour, depths, hp, damage, accuracy, speed, xp }
}

/// Bat, jackal, kobold, archer, sentinel, wolf, ogre.
pub(super) static KINDS: [Kind; 7] = [
    //    behaviour          levels hp dmg hit% speed xp
    kind('b', Behaviour::Wander, (1, 3), 3, 2, 60, 18, 5),
    kind('j', Behaviour::Chase, (1, 2), 5, 3, 60, 15, 7),
    kind('k', Behaviour::Flee, (1, 4), 8, 4, 60, 12, 10),
    kind('a', Behaviour::Shoot, (2, 5), 8, 3, 50, 12, 12),
    kind('s', Behaviour::Guard, (2, 5), 14, 6, 50, 12, 16),
    kind('w', Behaviour::Chase, (3, 5), 10, 4, 55, 15, 14),
    kind('O', Behaviour::Chase, (4, 5), 20, 7, 55, 10, 20),
];

/// The strongest hit of any kind; scales threats to [0, 1].
pub(super) const MAX_DAMAGE: f32 = 7.0;

/// One monster on the level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Monster {
    /// Index into [`KINDS`].
    pub(super) kind: u8,
    pub(super) pos: Pos,
    pub(super) hp: i16,
    pub(super) energy: u8,
    pub(super) awake: bool,
    /// Where a guard belongs.
    pub(super) post: Pos,
}

impl Monster {
    /// A monster at its post, asleep unless it never sleeps.
    pub(super) fn new(kind: u8, pos: Pos) -> Self {
        let row = &KINDS[kind as usize];
        let awake = row.behaviour == Behaviour::Wander;
        Self { kind, pos, hp: row.hp, energy: 0, awake, post: pos }
    }

    pub(super) fn kind(&self) -> &'static Kind {
        &KINDS[self.kind as usize]
    }

    /// Remaining hit points as a fraction.
    pub(super) fn health(&self) -> f32 {
        f32::from(self.hp) / f32::from(self.kind().hp)
    }

    /// How hard it can hit, in [0, 1].
    pub(super) fn threat(&self) -> f32 {
        f32::from(self.kind().damage) / MAX_DAMAGE
    }
}
