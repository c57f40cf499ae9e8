//! `config defaults`: every key with documentation, range and default, as a file that can be run.

use gatefold_env::EnvEntry;
use serde_json::Value as Json;
use toml::{Table, Value};

use super::single_precision::shortest;
use super::{Key, Kind, experiment_schema, key_of};

const HEADER: &str = "\
# Every key of an experiment, with what it accepts and its default.
# A file needs `about` and `[env] name`; leave out whatever should keep its default.
";

/// The text of `config defaults`; the first environment is the one named in it.
pub(crate) fn defaults_text(entries: &[EnvEntry]) -> String {
    let mut text = HEADER.to_string();
    write_table(&mut text, &experiment_schema(None), "", entries);
    text
}

/// The defaults of an environment's own options.
pub(crate) fn option_defaults(entry: &EnvEntry) -> Table {
    let Kind::Table(keys) = key_of(&(entry.options)()).kind else { return Table::new() };
    keys.iter().filter_map(|(name, key)| Some((name.clone(), default_of(key)?))).collect()
}

fn default_of(key: &Key) -> Option<Value> {
    key.default.as_ref().map(|default| written(default, key))
}

/// A default as TOML, single-precision numbers in few digits.
fn written(default: &Json, key: &Key) -> Value {
    match (default, &key.kind) {
        (Json::Number(number), Kind::Number { single_precision: true, .. }) => {
            Value::Float(shortest(number.as_f64().expect("a default is finite")))
        }
        (Json::Array(entries), Kind::List { item, .. }) => {
            Value::Array(entries.iter().map(|entry| written(entry, item)).collect())
        }
        (Json::Object(fields), Kind::Table(keys)) => Value::Table(
            keys.iter()
                .filter_map(|(name, key)| {
                    let field = fields.get(name).filter(|field| !field.is_null())?;
                    Some((name.clone(), written(field, key)))
                })
                .collect(),
        ),
        (default, _) => Value::try_from(default).expect("a default can be written as TOML"),
    }
}

fn write_table(text: &mut String, table: &Key, path: &str, entries: &[EnvEntry]) {
    let Kind::Table(keys) = &table.kind else { return };
    for (name, key) in keys.iter().filter(|(_, key)| !matches!(key.kind, Kind::Table(_))) {
        write_key(text, name, key, path, entries);
    }
    if path == "env" {
        write_options(text, entries);
    }
    for (name, key) in keys.iter().filter(|(_, key)| matches!(key.kind, Kind::Table(_))) {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        text.push('\n');
        comment(text, &key.about);
        text.push_str(&format!("[{path}]\n"));
        write_table(text, key, &path, entries);
    }
}

fn write_key(text: &mut String, name: &str, key: &Key, path: &str, entries: &[EnvEntry]) {
    text.push('\n');
    describe(text, key);
    let line = match (path, name) {
        ("", "about") => "about = \"why this experiment exists\"  # required".to_string(),
        ("env", "name") => {
            for entry in entries {
                comment(text, &format!("- {:?}: {}", entry.name, entry.about));
            }
            format!("name = {:?}  # required", entries.first().map_or("", |entry| entry.name))
        }
        _ => match default_of(key) {
            Some(default) => format!("{name} = {default}"),
            None => format!("# {name} =   (not set)"),
        },
    };
    text.push_str(&line);
    text.push('\n');
}

/// The options of every environment, commented out because each belongs to its own.
fn write_options(text: &mut String, entries: &[EnvEntry]) {
    for entry in entries {
        let Kind::Table(keys) = key_of(&(entry.options)()).kind else { continue };
        if keys.is_empty() {
            continue;
        }
        text.push_str(&format!("\n# Options with name = {:?}:\n", entry.name));
        for (name, key) in &keys {
            describe(text, key);
            let value = default_of(key).map_or("  (not set)".to_string(), |default| default.to_string());
            text.push_str(&format!("# {name} = {value}\n"));
        }
    }
}

fn describe(text: &mut String, key: &Key) {
    comment(text, &key.about);
    match &key.kind {
        Kind::Choice(choices) => {
            comment(text, "Accepts one of these names:");
            for (name, about) in choices {
                comment(text, format!("- {name:?}: {about}").trim_end_matches(": "));
            }
        }
        _ => comment(text, &format!("Accepts {}.", key.accepts())),
    }
}

/// Comment lines, wrapped at a width that a terminal shows.
fn comment(text: &mut String, words: &str) {
    const WIDTH: usize = 98;
    let mut line = "#".to_string();
    for word in words.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = "#".to_string();
        }
        line.push(' ');
        line.push_str(word);
    }
    if line.len() > 1 {
        text.push_str(&line);
        text.push('\n');
    }
}
