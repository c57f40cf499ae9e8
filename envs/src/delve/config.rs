//! The options of delve.

use gatefold_env::EnvError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options under `[env]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DelveConfig {
    /// Length at which an episode is truncated, in steps. Range [1, 100000].
    #[schemars(range(min = 1, max = 100_000))]
    pub max_steps: u32,
    /// Depth of the dungeon, in levels; the last one has no stairs. Range [1, 5].
    #[schemars(range(min = 1, max = 5))]
    pub levels: u8,
    /// Multiplies the number of monsters on each level and of those that arrive, dimensionless; 0 makes a peaceful dungeon. Range [0, 2].
    #[schemars(range(min = 0.0, max = 2.0))]
    pub monsters: f32,
}

impl Default for DelveConfig {
    fn default() -> Self {
        Self { max_steps: 500, levels: 5, monsters: 1.0 }
    }
}

impl DelveConfig {
    /// Fails on an option out of range, naming it.
    pub fn validate(&self) -> Result<(), EnvError> {
        let checks = [
            ("max_steps", self.max_steps.to_string(), (1..=100_000).contains(&self.max_steps), "1 to 100000"),
            ("levels", self.levels.to_string(), (1..=5).contains(&self.levels), "1 to 5"),
            ("monsters", self.monsters.to_string(), (0.0..=2.0).contains(&self.monsters), "0 to 2"),
        ];
        for (key, value, ok, range) in checks {
            if !ok {
                let expected = format!("need {range}");
                return Err(EnvError::Option { key: key.to_string(), value, expected });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_out_of_range_is_named() {
        let default = DelveConfig::default();
        let cases = [
            (DelveConfig { max_steps: 0, ..default.clone() }, "max_steps = 0"),
            (DelveConfig { levels: 6, ..default.clone() }, "levels = 6"),
            (DelveConfig { monsters: f32::NAN, ..default.clone() }, "monsters = NaN"),
        ];
        assert!(default.validate().is_ok());
        for (config, expected) in cases {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
