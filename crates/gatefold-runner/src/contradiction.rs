//! Which of the keys that contradict each other a message should blame, and routing without a router.

use gatefold_policy::Architecture;
use toml::{Table, Value};

use crate::config::ExperimentConfig;
use crate::overrides::{leaves, lookup};

/// A key that the user set and a `reason` mentions as `key = value` beside the one it is about.
///
/// An owner names one of two keys that do not go together, and cannot know which of them is a
/// default: whoever writes `heads = 5` should not be told of a `hidden` that he never set.
pub(crate) fn also_at_fault(reason: &str, about: &str, given: &Table) -> Option<(String, Value)> {
    let section = about.rsplit_once('.').map_or("", |(section, _)| section);
    let set = leaves(given);
    let named = reason.split(" = ").skip(1).filter_map(|before| {
        let is_key = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        before.rsplit(|c: char| !is_key(c)).next().filter(|word| !word.is_empty())
    });
    named
        .filter_map(|word| {
            let dotted = |key: &str| key == word || key == format!("{section}.{word}");
            let ends = |key: &str| key.rsplit('.').next() == Some(word);
            let found = set.iter().find(|(key, _)| dotted(key));
            found.or_else(|| set.iter().find(|(key, _)| ends(key)))
        })
        .find(|(key, _)| key != about)
        .cloned()
}

/// Fails if `given` asks for a routing, other than the `defaults` do, where no router would follow.
pub(crate) fn check_routed(config: &ExperimentConfig, given: &Table, defaults: &Table) -> Result<(), String> {
    let (mut followed, mut remedy) = ("dense", "\"routed\" and name two or more experts");
    let because = match config.policy.architecture {
        Architecture::V2 if config.policy.has_router() => {
            (followed, remedy) = ("gumbel", "\"routed\"");
            "policy.architecture = \"v2\" routes by Gumbel in every phase"
        }
        Architecture::Mlp => "policy.architecture = \"mlp\" has no router",
        Architecture::MlpGat => "policy.architecture = \"mlp-gat\" has no router",
        _ if config.policy.experts.len() == 1 => "policy.experts names one, which needs no router",
        _ => return Ok(()),
    };
    let followed = Value::from(followed);
    if lookup(given, "curriculum.routing") == Some(&followed) {
        return Ok(());
    }
    for (key, value) in leaves(given) {
        let asks = key.starts_with("curriculum.") && key.ends_with(".routing");
        if asks && value != followed && lookup(defaults, &key) != Some(&value) {
            return Err(format!(
                "{key} = {value}: {because}; leave {key} out, or set policy.architecture = {remedy}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_the_user_set_is_found_in_the_reason() {
        let reason = "[ppo] minibatch = 256: need 2..=128 (num_steps = 128 x num_envs = 1)";
        let cases = [
            ("run.num_envs = 1", Some("run.num_envs")),
            ("ppo.num_steps = 128", Some("ppo.num_steps")),
            ("ppo.clip = 0.5", None),
        ];
        for (given, expected) in cases {
            let found = also_at_fault(reason, "ppo.minibatch", &given.parse().unwrap());
            assert_eq!(found.map(|(key, _)| key).as_deref(), expected, "{given}");
        }
    }
}
