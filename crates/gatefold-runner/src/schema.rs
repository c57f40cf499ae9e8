//! Every key of a configuration with its documentation, type, range and default.
//!
//! Read once from the JSON schema that the configuration structs derive, so that the checks, the
//! messages and `config defaults` cannot disagree with the structs.

mod check;
mod defaults;
mod single_precision;

use gatefold_env::EnvEntry;
use schemars::Schema;
use serde_json::Value;

pub(crate) use check::{Fault, Part, check, check_required, nearest};
pub(crate) use defaults::{defaults_text, option_defaults};
pub(crate) use single_precision::shorten_floats;

use crate::config::ExperimentConfig;

/// One key.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) about: String,
    pub(crate) kind: Kind,
    pub(crate) default: Option<Value>,
    pub(crate) required: bool,
}

/// What a key accepts.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Table(Vec<(String, Key)>),
    Bool,
    Integer {
        min: i64,
        max: i64,
    },
    Number {
        min: f64,
        max: f64,
        single_precision: bool,
    },
    Text,
    Choice(Vec<(String, String)>),
    List {
        item: Box<Key>,
        min_items: usize,
    },
    /// A shape that only its owner can check.
    Any,
}

/// The schema of a configuration for one environment, or for none in particular.
pub(crate) fn experiment_schema(env: Option<&EnvEntry>) -> Key {
    let mut root = key_of(&schemars::schema_for!(ExperimentConfig));
    if let Some(entry) = env {
        let options = key_of(&(entry.options)());
        let (Kind::Table(keys), Kind::Table(own)) = (&mut env_key(&mut root).kind, options.kind) else {
            panic!("the options of environment `{}` are a table", entry.name);
        };
        for (name, key) in own {
            assert!(name != "name", "environment `{}`: `name` is taken by [env] name", entry.name);
            keys.push((name, key));
        }
    }
    root
}

fn env_key(root: &mut Key) -> &mut Key {
    let Kind::Table(keys) = &mut root.kind else { panic!("a configuration is a table") };
    &mut keys.iter_mut().find(|(name, _)| name == "env").expect("a configuration has [env]").1
}

fn key_of(schema: &Schema) -> Key {
    let root = schema.as_value();
    read_key(root, root)
}

/// Reads one (sub)schema; references are followed into `root`.
fn read_key(schema: &Value, root: &Value) -> Key {
    let about = schema["description"].as_str().map(str::to_string);
    let default = schema.get("default").filter(|d| !d.is_null()).cloned();
    if let Some(pointer) = schema["$ref"].as_str() {
        let target = root.pointer(pointer.trim_start_matches('#')).expect("references stay in the schema");
        let key = read_key(target, root);
        return Key { about: about.unwrap_or(key.about), default: default.or(key.default), ..key };
    }
    // Option<T> of a struct or enum: the alternative that is not null.
    if let Some([first, second]) = schema["anyOf"].as_array().map(Vec::as_slice)
        && second["type"] == "null"
    {
        let key = read_key(first, root);
        return Key { about: about.unwrap_or(key.about), default, ..key };
    }
    Key { about: about.unwrap_or_default(), kind: read_kind(schema, root), default, required: false }
}

fn read_kind(schema: &Value, root: &Value) -> Kind {
    if let Some(choices) = read_choices(schema) {
        return Kind::Choice(choices);
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|k| *k != "null").and_then(Value::as_str),
        kind => kind.as_str(),
    };
    match kind {
        Some("object") if schema.get("properties").is_some() || schema["additionalProperties"] == false => {
            let properties = schema["properties"].as_object().into_iter().flatten();
            let required = |name: &str| {
                schema["required"]
                    .as_array()
                    .is_some_and(|names| names.iter().any(|n| n.as_str() == Some(name)))
            };
            Kind::Table(
                properties
                    .map(|(name, property)| {
                        let key = Key { required: required(name), ..read_key(property, root) };
                        (name.clone(), key)
                    })
                    .collect(),
            )
        }
        Some("boolean") => Kind::Bool,
        Some("integer") => {
            let (least, most) = integer_limits(schema["format"].as_str().unwrap_or_default());
            Kind::Integer {
                min: schema["minimum"].as_i64().unwrap_or(least),
                max: schema["maximum"].as_i64().unwrap_or(most),
            }
        }
        Some("number") => Kind::Number {
            min: schema["minimum"].as_f64().unwrap_or(f64::NEG_INFINITY),
            max: schema["maximum"].as_f64().unwrap_or(f64::INFINITY),
            single_precision: schema["format"] == "float",
        },
        Some("string") => Kind::Text,
        Some("array") if schema["items"].is_object() => Kind::List {
            item: Box::new(read_key(&schema["items"], root)),
            min_items: schema["minItems"].as_u64().unwrap_or(0) as usize,
        },
        _ => Kind::Any,
    }
}

/// A unit enum: `enum` lists the variants without documentation, `oneOf` those with.
fn read_choices(schema: &Value) -> Option<Vec<(String, String)>> {
    let text = |value: &Value| value.as_str().map(str::to_string);
    let plain = |names: &Value| -> Option<Vec<_>> {
        names.as_array()?.iter().map(|n| Some((text(n)?, String::new()))).collect()
    };
    if let Some(names) = schema.get("enum") {
        return plain(names);
    }
    let mut choices = Vec::new();
    for variant in schema.get("oneOf")?.as_array()? {
        match variant.get("const") {
            Some(name) => choices.push((text(name)?, text(&variant["description"]).unwrap_or_default())),
            None => choices.extend(plain(variant.get("enum")?)?),
        }
    }
    Some(choices)
}

/// The least and greatest value of a Rust integer that TOML, whose integers are `i64`, can write.
fn integer_limits(format: &str) -> (i64, i64) {
    match format {
        "int8" => (i8::MIN.into(), i8::MAX.into()),
        "int16" => (i16::MIN.into(), i16::MAX.into()),
        "int32" => (i32::MIN.into(), i32::MAX.into()),
        "uint8" => (0, u8::MAX.into()),
        "uint16" => (0, u16::MAX.into()),
        "uint32" => (0, u32::MAX.into()),
        "uint" | "uint64" => (0, i64::MAX),
        _ => (i64::MIN, i64::MAX),
    }
}

impl Key {
    /// What the key accepts, in words: `a number from 0 to 1`.
    pub(crate) fn accepts(&self) -> String {
        match &self.kind {
            Kind::Table(_) => "a table of keys".to_string(),
            Kind::Bool => "true or false".to_string(),
            Kind::Integer { min, max } => {
                format!(
                    "a whole number{}",
                    range((*min != i64::MIN).then_some(min), (*max < i64::from(u32::MAX)).then_some(max))
                )
            }
            Kind::Number { min, max, .. } => {
                let limit = |limit: &f64| limit.is_finite().then(|| shown_number(*limit));
                format!("a number{}", range(limit(min), limit(max)))
            }
            Kind::Text => "a string".to_string(),
            Kind::Choice(choices) => {
                let names: Vec<_> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
                format!("one of {}", names.join(", "))
            }
            Kind::List { item, min_items: 0 } => format!("a list, each entry {}", item.accepts()),
            Kind::List { item, min_items } => {
                format!("a list of {min_items} or more, each entry {}", item.accepts())
            }
            Kind::Any => "a value that its owner accepts".to_string(),
        }
    }
}

/// A number in few characters: `0.001`, `1e-12`, `1e39`.
fn shown_number(number: f64) -> String {
    let (plain, short) = (number.to_string(), format!("{number:e}"));
    if plain.len() > 8 && short.len() < plain.len() { short } else { plain }
}

fn range<N: std::fmt::Display>(min: Option<N>, max: Option<N>) -> String {
    match (min, max) {
        (Some(min), Some(max)) => format!(" from {min} to {max}"),
        (Some(min), None) => format!(" of at least {min}"),
        (None, Some(max)) => format!(" of at most {max}"),
        (None, None) => String::new(),
    }
}
