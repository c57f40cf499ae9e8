//! Whether a table fits the schema: the one place where keys, types and ranges are checked.

use toml::{Table, Value};

use super::{Key, Kind};

/// The first thing in a table that does not fit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    /// The dotted key.
    pub(crate) key: String,
    /// `key = value: what would be accepted`.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) help: Option<String>,
    /// Whether to point at the key or at its value.
    pub(crate) part: Part,
}

/// Which half of `key = value` is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Key,
    Value,
}

/// Looks for unknown keys, wrong types and values out of range, in the order of the table.
pub(crate) fn check(table: &Table, schema: &Key) -> Result<(), Fault> {
    check_table(table, schema, "", schema)
}

fn check_table(table: &Table, schema: &Key, path: &str, root: &Key) -> Result<(), Fault> {
    let Kind::Table(keys) = &schema.kind else { return Ok(()) };
    for (name, value) in table {
        let path = join(path, name);
        match keys.iter().find(|(known, _)| known == name) {
            Some((_, key)) => check_value(value, key, &path, root)?,
            None => return Err(unknown(&path, name, value, keys, root)),
        }
    }
    Ok(())
}

fn check_value(value: &Value, key: &Key, path: &str, root: &Key) -> Result<(), Fault> {
    let fits = match (&key.kind, value) {
        (Kind::Table(_), Value::Table(table)) => return check_table(table, key, path, root),
        (Kind::Any, _) | (Kind::Bool, Value::Boolean(_)) | (Kind::Text, Value::String(_)) => true,
        (Kind::Integer { min, max }, Value::Integer(number)) => (min..=max).contains(&number),
        (Kind::Number { single_precision: true, .. }, value) if beyond_single_precision(value).is_some() => {
            false
        }
        (Kind::Number { min, max, .. }, Value::Integer(number)) => (*min..=*max).contains(&(*number as f64)),
        (Kind::Number { min, max, .. }, Value::Float(number)) => {
            number.is_finite() && (*min..=*max).contains(number)
        }
        (Kind::Choice(choices), Value::String(name)) => choices.iter().any(|(known, _)| known == name),
        (Kind::List { item, min_items }, Value::Array(entries)) => {
            for entry in entries {
                check_value(entry, item, path, root)?;
            }
            entries.len() >= *min_items
        }
        _ => false,
    };
    if fits {
        return Ok(());
    }
    Err(Fault {
        key: path.to_string(),
        message: format!("{path} = {}: need {}", shown(value), key.accepts()),
        help: hint(value, key),
        part: Part::Value,
    })
}

/// A value as a message shows it: very large and very small numbers with an exponent.
fn shown(value: &Value) -> String {
    let plain = value.to_string();
    let short = value.as_float().map(super::shown_number);
    short.filter(|short| short.len() + 2 < plain.len()).unwrap_or(plain)
}

/// Why single precision would make another number of this one, beyond the rounding of decimals.
fn beyond_single_precision(value: &Value) -> Option<String> {
    let number = value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64))?;
    let single = number as f32;
    if number.is_finite() && !single.is_finite() {
        return Some(format!("single precision holds numbers up to {:e}", f32::MAX));
    }
    if number != 0.0 && single == 0.0 {
        return Some("single precision would make 0 of it".to_string());
    }
    let whole = value.as_integer()?;
    (single as i128 != i128::from(whole)).then(|| format!("single precision would make {single} of it"))
}

/// A remedy where the mistake is a usual one.
fn hint(value: &Value, key: &Key) -> Option<String> {
    match (&key.kind, value) {
        (Kind::Integer { min, max }, Value::Float(number)) => {
            let whole = *number as i64;
            (number.fract() == 0.0 && (min..=max).contains(&&whole)).then(|| format!("write {whole}"))
        }
        (Kind::Number { single_precision: true, .. }, value) => beyond_single_precision(value),
        (Kind::Choice(choices), Value::String(name)) => {
            let close = nearest(name, choices.iter().map(|(known, _)| known.as_str()))?;
            Some(format!("did you mean {close:?}?"))
        }
        (Kind::Text, Value::Integer(_) | Value::Float(_) | Value::Boolean(_)) => {
            Some(format!("write \"{value}\""))
        }
        (Kind::List { item, .. }, value) if !value.is_array() => {
            check_value(value, item, "", item).is_ok().then(|| format!("write [{value}]"))
        }
        _ => None,
    }
}

fn unknown(path: &str, name: &str, value: &Value, keys: &[(String, Key)], root: &Key) -> Fault {
    let names: Vec<_> = keys.iter().map(|(known, _)| known.as_str()).collect();
    let elsewhere = places_of(name, root);
    let help = if let Some(close) = nearest(name, names.iter().copied()) {
        format!("did you mean `{close}`?")
    } else if !elsewhere.is_empty() {
        format!("did you mean {}?", elsewhere.join(" or "))
    } else {
        format!("accepted here: {}", names.join(", "))
    };
    let value = match value {
        Value::Table(_) => "{...}".to_string(),
        value => value.to_string(),
    };
    Fault {
        key: path.to_string(),
        message: format!("{path} = {value}: unknown key `{name}`"),
        help: Some(help),
        part: Part::Key,
    }
}

/// Where else a key of this name exists.
fn places_of(name: &str, root: &Key) -> Vec<String> {
    fn walk(key: &Key, path: &str, name: &str, found: &mut Vec<String>) {
        let Kind::Table(keys) = &key.kind else { return };
        for (own, key) in keys {
            let path = join(path, own);
            if own == name {
                found.push(format!("`{path}`"));
            }
            walk(key, &path, name, found);
        }
    }
    let mut found = Vec::new();
    walk(root, "", name, &mut found);
    found
}

/// The first required key that a complete table lacks.
pub(crate) fn check_required(table: &Table, schema: &Key) -> Result<(), Fault> {
    fn walk(table: &Table, schema: &Key, path: &str) -> Result<(), Fault> {
        let Kind::Table(keys) = &schema.kind else { return Ok(()) };
        for (name, key) in keys {
            let path = join(path, name);
            match table.get(name) {
                None if key.required => {
                    return Err(Fault {
                        message: format!("{path} is missing: need {}", key.accepts()),
                        help: Some(key.about.clone()).filter(|about| !about.is_empty()),
                        part: Part::Key,
                        key: path,
                    });
                }
                Some(Value::Table(inner)) => walk(inner, key, &path)?,
                _ => {}
            }
        }
        Ok(())
    }
    walk(table, schema, "")
}

/// The candidate that a typing error most likely meant.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= allowed || (name.len() >= 4 && candidate.starts_with(name))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_name_is_close_or_none() {
        let names = ["minibatch", "num_steps", "clip", "value_clip"];
        let cases = [
            ("minibach", Some("minibatch")),
            ("num_step", Some("num_steps")),
            ("clpi", Some("clip")),
            ("mini", Some("minibatch")),
            ("temperature", None),
        ];
        for (typed, expected) in cases {
            assert_eq!(nearest(typed, names.into_iter()), expected, "{typed}");
        }
    }
}
