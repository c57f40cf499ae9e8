//! An environment outside `envs/`, in one file, through the public facade.
//!
//! `cargo run --release --example coin -- env check coin`, and a file with `[env] name = "coin"`
//! trains on it: `cargo run --release --example coin -- train coin.toml`.

use gatefold::env::{
    Action, EnvEntry, EnvError, EnvSpec, Environment, NoOptions, ObservationView, StreamRng, Transition,
};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// The row of this environment.
pub const ENTRY: EnvEntry = EnvEntry::new::<Coin>("coin", "Name the side that a coin shows; best return 10");

/// A coin that shows heads or tails; naming the side earns 1, ten tosses are an episode.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Coin {
    heads: bool,
    right: u32,
}

impl Environment for Coin {
    type Config = NoOptions;

    fn new(_options: &NoOptions) -> Result<Self, EnvError> {
        Ok(Self { heads: false, right: 0 })
    }

    fn spec(&self) -> EnvSpec {
        EnvSpec { max_episode_steps: Some(10), ..EnvSpec::new(1, 2) }
    }

    fn reset(&mut self, rng: &mut StreamRng) {
        *self = Self { heads: rng.random(), right: 0 };
    }

    fn step(&mut self, action: Action, rng: &mut StreamRng) -> Transition {
        let right = (action.index() == 1) == self.heads;
        self.right += u32::from(right);
        self.heads = rng.random();
        let reward = if right { 1.0 } else { 0.0 };
        Transition { reward, score: f64::from(self.right), end: None }
    }

    fn observe(&self, view: &mut ObservationView<'_>) {
        view.features[0] = if self.heads { 1.0 } else { -1.0 };
    }
}

fn main() -> std::process::ExitCode {
    gatefold::run(&[ENTRY])
}
