//! Named settings that a file can start from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A set of settings between the defaults and the file's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// CleanRL's ppo.py: 4 environments x 128 steps, separate 2x64 tanh nets, learning rate to 0.
    Cleanrl,
    /// Short rollouts and a high rate to 0: CartPole in under a second. 16 environments x 32 steps, minibatch
    /// 128, 6 epochs.
    Quick,
    /// Stable-Baselines3's constants: 8 environments x 256 steps, minibatch 64, 10 epochs.
    Sb3Fast,
    /// The constants of the method's first version: the same coefficients in every phase and a hard
    /// switch from softmax to sparsemax after 1000 episodes.
    Seed,
    /// The graph encoder of the method's third version: hidden 256, full-width heads averaged.
    V3,
}

impl Preset {
    /// Every preset.
    pub const ALL: [Self; 5] = [Self::Cleanrl, Self::Quick, Self::Sb3Fast, Self::Seed, Self::V3];

    /// The name that a file writes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cleanrl => "cleanrl",
            Self::Quick => "quick",
            Self::Sb3Fast => "sb3-fast",
            Self::Seed => "seed",
            Self::V3 => "v3",
        }
    }

    /// The settings.
    pub(crate) fn table(self) -> toml::Table {
        let text = match self {
            Self::Cleanrl => include_str!("presets/cleanrl.toml"),
            Self::Quick => include_str!("presets/quick.toml"),
            Self::Sb3Fast => include_str!("presets/sb3-fast.toml"),
            Self::Seed => include_str!("presets/seed.toml"),
            Self::V3 => include_str!("presets/v3.toml"),
        };
        text.parse().expect("the presets in the binary are TOML; a test parses them")
    }
}
