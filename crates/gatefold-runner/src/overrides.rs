//! `key=value` on the command line.

use toml::{Table, Value};

use crate::error::ConfigError;

/// One override: a dotted key and its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Override {
    pub(crate) key: String,
    pub(crate) value: Value,
}

impl Override {
    /// Reads `key=value`. The value is TOML; what is no TOML is a bare string, so that
    /// `env.name=delve` needs no quotes.
    pub(crate) fn parse(argument: &str) -> Result<Self, Box<ConfigError>> {
        let error = |message: String| {
            Box::new(ConfigError {
                origin: "command line".to_string(),
                message,
                key: None,
                help: Some("overrides look like `run.total_steps=200000` or `policy.activation=tanh`".into()),
                text: None,
                span: None,
            })
        };
        let Some((key, value)) = argument.split_once('=') else {
            return Err(error(format!("`{argument}` is not an override: need key=value")));
        };
        let (key, value) = (key.trim(), value.trim());
        let part =
            |p: &str| !p.is_empty() && p.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if !key.split('.').all(part) {
            return Err(error(format!("`{argument}`: `{key}` is not a dotted key")));
        }
        if value.is_empty() {
            return Err(error(format!("`{argument}`: no value; an empty string is written {key}='\"\"'")));
        }
        let value = match format!("value = {value}").parse::<Table>() {
            Ok(mut table) if table.len() == 1 => table.remove("value").expect("the key just written"),
            _ => Value::String(value.to_string()),
        };
        Ok(Self { key: key.to_string(), value })
    }

    /// The override as nested tables.
    pub(crate) fn table(&self) -> Table {
        let mut value = self.value.clone();
        for part in self.key.split('.').rev() {
            value = Value::Table(Table::from_iter([(part.to_string(), value)]));
        }
        match value {
            Value::Table(table) => table,
            _ => unreachable!("a key has at least one part"),
        }
    }
}

/// Reads every `key=value`, or fails at the first that is none.
pub(crate) fn parse_all(arguments: &[String]) -> Result<Vec<Override>, Box<ConfigError>> {
    arguments.iter().map(|argument| Override::parse(argument)).collect()
}

/// Lays `upper` over `lower`: tables merge key by key, everything else is replaced.
pub(crate) fn merge(lower: &mut Table, upper: Table) {
    for (key, value) in upper {
        match (lower.get_mut(&key), value) {
            (Some(Value::Table(lower)), Value::Table(upper)) => merge(lower, upper),
            (_, value) => {
                lower.insert(key, value);
            }
        }
    }
}

/// The value under a dotted key.
pub(crate) fn lookup<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    match (table.get(first)?, rest) {
        (value, None) => Some(value),
        (Value::Table(inner), Some(rest)) => lookup(inner, rest),
        _ => None,
    }
}

/// All values that are no tables, under their dotted keys.
pub(crate) fn leaves(table: &Table) -> Vec<(String, Value)> {
    fn walk(table: &Table, path: &str, found: &mut Vec<(String, Value)>) {
        for (name, value) in table {
            let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match value {
                Value::Table(inner) => walk(inner, &key, found),
                value => found.push((key, value.clone())),
            }
        }
    }
    let mut found = Vec::new();
    walk(table, "", &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_toml_or_bare_strings() {
        let cases: [(&str, &str, Value); 7] = [
            ("run.seed=3", "run.seed", Value::Integer(3)),
            ("ppo.clip = 2e-1", "ppo.clip", Value::Float(0.2)),
            ("env.name=delve", "env.name", Value::String("delve".into())),
            ("env.name=\"a b\"", "env.name", Value::String("a b".into())),
            ("preset=sb3-fast", "preset", Value::String("sb3-fast".into())),
            ("policy.trunk=[1, 2]", "policy.trunk", Value::Array(vec![1.into(), 2.into()])),
            ("run.stop_at_target=true", "run.stop_at_target", Value::Boolean(true)),
        ];
        for (argument, key, value) in cases {
            assert_eq!(Override::parse(argument).unwrap(), Override { key: key.into(), value }, "{argument}");
        }
    }

    #[test]
    fn what_is_no_override_is_an_error_that_names_it() {
        for argument in ["run.seed", "=3", "run..seed=1", "run.seed=", "a b=1"] {
            let error = Override::parse(argument).unwrap_err();
            assert!(error.to_string().contains(argument.trim()), "{error}");
        }
    }

    #[test]
    fn merging_replaces_values_and_keeps_neighbours() {
        let mut lower: Table = "a = 1\n[t]\nx = [1, 2]\ny = 3".parse().unwrap();
        merge(&mut lower, "[t]\nx = [9]".parse().unwrap());
        assert_eq!(lower, "a = 1\n[t]\nx = [9]\ny = 3".parse::<Table>().unwrap());
        assert_eq!(lookup(&lower, "t.y"), Some(&Value::Integer(3)));
        assert_eq!(lookup(&lower, "t.z"), None);
        assert_eq!(lookup(&lower, "a.y"), None);
    }
}
