//! Numbers as a user writes them.

use toml::{Table, Value};

use super::{Key, Kind};

/// Replaces each single-precision number, which a `f64` shows as 0.15000000596046448, by the number
/// of fewest digits that reads back as the same `f32`: 0.15.
pub(crate) fn shorten_floats(table: &mut Table, schema: &Key) {
    let Kind::Table(keys) = &schema.kind else { return };
    for (name, key) in keys {
        if let Some(value) = table.get_mut(name) {
            shorten(value, key);
        }
    }
}

fn shorten(value: &mut Value, key: &Key) {
    match (value, &key.kind) {
        (Value::Float(number), Kind::Number { single_precision: true, .. }) => *number = shortest(*number),
        (Value::Table(table), _) => shorten_floats(table, key),
        (Value::Array(entries), Kind::List { item, .. }) => {
            entries.iter_mut().for_each(|entry| shorten(entry, item));
        }
        _ => {}
    }
}

/// The shortest decimal of a `f32`, as `f64`.
pub(super) fn shortest(number: f64) -> f64 {
    (number as f32).to_string().parse().expect("a float prints as a float")
}

#[cfg(test)]
mod tests {
    use super::shortest;

    #[test]
    fn a_shortened_number_reads_back_as_the_same_single() {
        for number in [0.15_f32, 2.5e-4, 1e-5, 0.1, 3.4e38, 1e-38, 0.333_333_34, 10.0] {
            let short = shortest(f64::from(number));
            assert_eq!(short as f32, number);
            assert!(short.to_string().len() <= f64::from(number).to_string().len());
        }
        assert_eq!(shortest(f64::from(0.15_f32)), 0.15);
    }
}
