//! `delve`: a small roguelike in which survival, combat and exploration all matter.
//!
//! Five generated levels of 40 x 20 cells with rooms, corridors, doors, secret vaults and fog of
//! war. The hero has hit points, hunger, experience and a pack; monsters wander, chase, guard, shoot
//! or flee. The score is `gold + experience + 50 per level descended`; the reward is a tenth of its
//! change. Death terminates, the step limit truncates. There is no reward for dying or living as
//! such: a dead hero earns nothing more.
//!
//! | file | idea |
//! |---|---|
//! | `grid`, `paths` | bit grids, and shortest ways found by flooding them |
//! | `level`, `generation` | what a level holds and what is known of it; how one is made |
//! | `hero`, `monsters`, `behaviour` | who acts, and the monsters' turns |
//! | `outlook`, `actions` | what can be seen and done; the mask and the hero's turn |
//! | `observation`, `knowledge` | features, and activations of the knowledge graph |
//! | `scripted`, `rendering`, `scenario` | the scripted policy, pictures, drawn maps |
//!
//! ```
//! use gatefold_env::{Purpose, stream};
//! use gatefold_envs::delve::{Delve, DelveConfig, Scripted};
//! use gatefold_env::Environment;
//!
//! let mut rng = stream(7, Purpose::Environment, 0);
//! let mut game = Delve::new(&DelveConfig::default())?;
//! game.reset(&mut rng);
//! let deed = Scripted::default().act(&game, &mut rng);
//! let transition = game.step(gatefold_env::Action::Discrete(deed.index()), &mut rng);
//! assert_eq!(transition.score, game.score() as f64);
//! assert!(game.render().unwrap().contains('@'));
//! # Ok::<(), gatefold_env::EnvError>(())
//! ```

mod actions;
mod behaviour;
mod config;
mod generation;
mod grid;
mod hero;
mod knowledge;
mod level;
mod monsters;
mod observation;
mod outlook;
mod paths;
mod rendering;
mod scenario;
mod scripted;

use gatefold_env::{
    Action, EnvEntry, EnvError, EnvSpec, Environment, EpisodeEnd, ObservationView, StreamRng, Transition,
};
use rand::RngExt;
use serde::{Deserialize, Serialize};

pub use actions::{Deed, NUM_ACTIONS};
pub use config::DelveConfig;
pub use observation::NUM_FEATURES;
pub use scripted::Scripted;

use generation::Request;
use hero::Hero;
use level::Level;
use monsters::Monster;
use outlook::Outlook;

/// The row of this environment in the table.
pub const ENTRY: EnvEntry = EnvEntry::new::<Delve>(
    "delve",
    "A roguelike of five levels: explore, fight, survive; the flagship with a knowledge graph",
);

/// Score for each level descended.
const DEPTH_BONUS: u32 = 50;
/// Score points per unit of reward.
const REWARD_SCALE: f32 = 10.0;
/// One turn in so many brings a hunter.
const ARRIVAL_PERIOD: f64 = 60.0;
/// Monsters on a level beyond which no more arrive.
const MAX_MONSTERS: usize = 12;
/// Walkable cells of a level large enough to count as wholly explored.
const TYPICAL_CELLS: f32 = 250.0;

/// One game.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delve {
    levels: u8,
    max_steps: u32,
    monsters: f32,
    level: Level,
    depth: u8,
    hero: Hero,
    turn: u32,
    outlook: Outlook,
}

impl Delve {
    /// Gold, experience and a bonus for each level descended.
    pub fn score(&self) -> u32 {
        self.hero.gold + self.hero.xp + DEPTH_BONUS * u32::from(self.depth - 1)
    }

    /// Gold carried.
    pub fn gold(&self) -> u32 {
        self.hero.gold
    }

    /// Experience earned.
    pub fn experience(&self) -> u32 {
        self.hero.xp
    }

    /// The level the hero is on, from 1.
    pub fn depth(&self) -> u8 {
        self.depth
    }

    /// Hit points left; not positive when dead.
    pub fn hit_points(&self) -> i16 {
        self.hero.hp
    }

    /// Whether the mask allows `deed` now.
    pub fn allows(&self, deed: Deed) -> bool {
        deed.is_allowed(&self.hero, &self.outlook)
    }

    /// Share of a typical level's walkable cells that has been seen.
    fn explored(&self) -> f32 {
        (self.level.known_open().count() as f32 / TYPICAL_CELLS).min(1.0)
    }

    /// Generates the level at the current depth and puts the hero there.
    fn enter(&mut self, rng: &mut StreamRng) {
        let request = Request { depth: self.depth, last: self.depth == self.levels, monsters: self.monsters };
        self.hero.pos = generation::generate(&mut self.level, request, rng);
    }

    /// Now and then a hunter arrives through a door that the hero does not see.
    fn welcome(&mut self, rng: &mut StreamRng) {
        if !rng.random_bool(f64::from(self.monsters) / ARRIVAL_PERIOD) {
            return;
        }
        let kind = generation::random_kind(self.depth, rng);
        let level = &mut self.level;
        let doors = level.doors.zip(&level.visible, |d, v| d & !v).zip(&level.occupied, |d, o| d & !o);
        if !doors.is_empty() && level.monsters.len() < MAX_MONSTERS {
            let pick = rng.random_range(0..doors.count()) as usize;
            let pos = doors.cells().nth(pick).expect("as many cells as counted");
            level.put_monster(Monster { awake: true, ..Monster::new(kind, pos) });
        }
    }

    /// Sees, and takes stock of what can be done.
    fn take_stock(&mut self) {
        self.outlook = Outlook::new(&self.level, &self.hero);
    }
}

/// Share of the hit points below which the hero's situation counts as one of low hit points.
const LOW_HEALTH: f32 = 1.0 / 3.0;

impl Environment for Delve {
    type Config = DelveConfig;

    fn new(config: &DelveConfig) -> Result<Self, EnvError> {
        config.validate()?;
        Ok(Self {
            levels: config.levels,
            max_steps: config.max_steps,
            monsters: config.monsters,
            level: Level::default(),
            depth: 1,
            hero: Hero::new(grid::Pos::new(1, 1)),
            turn: 0,
            outlook: Outlook::default(),
        })
    }

    fn spec(&self) -> EnvSpec {
        EnvSpec {
            masked: true,
            graph: Some(knowledge::graph()),
            max_episode_steps: Some(self.max_steps),
            ..EnvSpec::new(NUM_FEATURES, NUM_ACTIONS)
        }
    }

    fn reset(&mut self, rng: &mut StreamRng) {
        self.depth = 1;
        self.turn = 0;
        self.hero = Hero::new(grid::Pos::new(1, 1));
        self.enter(rng);
        self.level.look(self.hero.pos);
        self.take_stock();
    }

    fn step(&mut self, action: Action, rng: &mut StreamRng) -> Transition {
        let before = self.score();
        let deed = Deed::from_index(action.index());
        self.turn += 1;
        self.hero.hurt = 0;
        let here = self.hero.pos;
        let descends = actions::perform(deed, &mut self.level, &mut self.hero, &self.outlook, rng);
        if descends {
            self.depth += 1;
            self.enter(rng);
        }
        let moved = descends || self.hero.pos != here;
        if moved {
            self.level.look(self.hero.pos);
        }
        behaviour::monsters_turn(&mut self.level, &mut self.hero, rng);
        self.hero.upkeep(self.turn);
        self.welcome(rng);
        if moved || deed == Deed::Search {
            self.take_stock();
        } else {
            self.outlook = self.outlook.with_same_ways(&self.level, &self.hero);
        }
        Transition {
            reward: (self.score() - before) as f32 / REWARD_SCALE,
            score: f64::from(self.score()),
            end: self.hero.is_dead().then_some(EpisodeEnd::Terminated),
        }
    }

    fn observe(&self, view: &mut ObservationView<'_>) {
        let explored = self.explored();
        observation::observe(self, explored, view);
        knowledge::activate(self, explored, view.activations);
    }

    fn scripted(&self, rng: &mut StreamRng) -> Option<Action> {
        Some(Action::Discrete(Scripted::default().act(self, rng).index()))
    }

    fn regimes() -> &'static [&'static str] {
        &["low hit points", "monster adjacent", "exploring", "other"]
    }

    /// The first that holds: less than a third of the hit points; a monster on a neighbouring cell; no
    /// monster in view and a way to unexplored ground; anything else.
    fn regime(&self) -> usize {
        if self.hero.health() < LOW_HEALTH {
            0
        } else if self.outlook.adjacent > 0 {
            1
        } else if self.outlook.in_view == 0 && self.outlook.frontier.is_some() {
            2
        } else {
            3
        }
    }

    fn render(&self) -> Option<String> {
        Some(rendering::render(self))
    }
}
