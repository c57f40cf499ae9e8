//! Which keys a resumed run may change.

use std::path::Path;

use sha2::{Digest, Sha256};
use toml::{Table, Value};

use crate::config::ExperimentConfig;
use crate::error::RunError;
use crate::layers::to_table;
use crate::overrides::{Override, leaves, lookup};

/// Keys, or whole tables, that do not shape the state a checkpoint holds.
pub const CHANGEABLE: [&str; 9] = [
    "about",
    "preset",
    "run.name",
    "run.total_steps",
    "run.target_return",
    "run.stop_at_target",
    "run.checkpoint_every",
    "run.keep_checkpoints",
    "eval",
];

/// Fails at the first key in which `now` differs from what trained the checkpoint at `path`,
/// unless a resumed run may change it.
pub fn check_resumable(
    path: &Path,
    saved: &ExperimentConfig,
    now: &ExperimentConfig,
) -> Result<(), RunError> {
    let (saved, now) = (fixed_keys(saved), fixed_keys(now));
    let mut keys: Vec<_> = saved.iter().map(|(key, _)| key).collect();
    keys.extend(now.iter().map(|(key, _)| key).filter(|key| !saved.iter().any(|(k, _)| k == *key)));
    let value = |values: &[(String, Value)], key: &str| {
        let found = values.iter().find(|(k, _)| k == key);
        found.map_or("(not set)".to_string(), |(_, value)| value.to_string())
    };
    for key in keys {
        let (saved, now) = (value(&saved, key), value(&now, key));
        if saved != now {
            return Err(RunError::OtherConfiguration {
                path: path.to_path_buf(),
                key: key.clone(),
                saved,
                now,
            });
        }
    }
    Ok(())
}

/// SHA-256 of the keys that shape the state; equal for runs that can resume each other.
pub fn config_hash(config: &ExperimentConfig) -> String {
    let mut hasher = Sha256::new();
    for (key, value) in fixed_keys(config) {
        hasher.update(format!("{key} = {value}\n"));
    }
    crate::checkpoint::hex(&hasher.finalize())
}

/// Fails at the first override that would change a key of the run at `path` which a resumed run may
/// not change. `saved` is the run's configuration; keys that it lacks are left to other checks.
pub(crate) fn check_overrides(path: &Path, saved: &Table, overrides: &[Override]) -> Result<(), RunError> {
    let number = |value: &Value| value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64));
    for (key, now) in overrides.iter().flat_map(|change| leaves(&change.table())) {
        let Some(saved) = lookup(saved, &key).filter(|_| !is_changeable(&key)) else { continue };
        if *saved != now && (number(saved).is_none() || number(saved) != number(&now)) {
            let (saved, now) = (saved.to_string(), now.to_string());
            return Err(RunError::OtherConfiguration { path: path.to_path_buf(), key, saved, now });
        }
    }
    Ok(())
}

fn is_changeable(key: &str) -> bool {
    let within =
        |table: &str| key.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    CHANGEABLE.iter().any(|table| within(table))
}

/// The keys outside [`CHANGEABLE`], dotted, in order.
fn fixed_keys(config: &ExperimentConfig) -> Vec<(String, Value)> {
    let mut found = leaves(&to_table(config));
    found.retain(|(key, _)| !is_changeable(key));
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_run_may_change_its_length_but_not_its_learning() {
        let saved = ExperimentConfig::new("a test", "corridor");
        let mut longer = saved.clone();
        longer.run.total_steps *= 2;
        longer.run.keep_checkpoints = 7;
        longer.eval.every = 5;
        assert!(check_resumable(Path::new("r"), &saved, &longer).is_ok());
        assert_eq!(config_hash(&saved), config_hash(&longer));

        let mut other = saved.clone();
        other.ppo.clip = 0.3;
        let message = check_resumable(Path::new("r"), &saved, &other).unwrap_err().to_string();
        assert_eq!(message, "r: ppo.clip = 0.3: the checkpoint was trained with ppo.clip = 0.15");
        assert_ne!(config_hash(&saved), config_hash(&other));
    }

    #[test]
    fn an_option_that_only_one_side_sets_is_a_difference() {
        let saved = ExperimentConfig::new("a test", "corridor");
        let mut other = saved.clone();
        other.env.options.insert("length".into(), 9.into());
        let message = check_resumable(Path::new("r"), &saved, &other).unwrap_err().to_string();
        assert!(message.contains("env.length = 9") && message.contains("(not set)"), "{message}");
    }
}
