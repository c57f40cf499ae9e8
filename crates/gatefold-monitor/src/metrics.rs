//! Named values of one iteration, in the order in which they were set.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// A map from metric name to value that keeps the order of insertion.
///
/// NaN and infinities are values like others, because hiding them hides a failing run. They serialise
/// as the strings `"NaN"`, `"inf"` and `"-inf"`, since JSON has no such numbers; reading accepts these.
/// Some dozens of entries are looked up by a linear scan.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    entries: Vec<(Cow<'static, str>, f64)>,
}

impl Metrics {
    /// No metrics.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a value; a name that is already there keeps its place and takes the new value.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: f64) {
        let name = name.into();
        match self.entries.iter_mut().find(|(existing, _)| *existing == name) {
            Some((_, existing)) => *existing = value,
            None => self.entries.push((name, value)),
        }
    }

    /// The value of a name, if it was set.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.entries.iter().find(|(existing, _)| existing == name).map(|&(_, value)| value)
    }

    /// Sets every entry of `other`, in its order; `other` wins where both have a name.
    pub fn merge(&mut self, other: Self) {
        for (name, value) in other.entries {
            self.set(name, value);
        }
    }

    /// Names and values in the order of insertion.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.entries.iter().map(|(name, value)| (name.as_ref(), *value))
    }

    /// How many names have a value.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was set.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Equal names in equal order with equal bits, so that a NaN equals itself and 0 differs from -0.
impl PartialEq for Metrics {
    fn eq(&self, other: &Self) -> bool {
        let bits = |metrics: &Self| -> Vec<_> {
            metrics.entries.iter().map(|(name, value)| (name.clone(), value.to_bits())).collect()
        };
        bits(self) == bits(other)
    }
}

/// `#[serde(with = "crate::metrics::number")]`: a number that may be NaN or infinite, as in [`Metrics`].
pub(crate) mod number {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Value};

    pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        Value(*value).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Value::deserialize(deserializer).map(|value| value.0)
    }
}

/// A value on its way in or out of a format.
struct Value(f64);

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            value if value.is_finite() => serializer.serialize_f64(value),
            value if value.is_nan() => serializer.serialize_str("NaN"),
            value if value > 0.0 => serializer.serialize_str("inf"),
            _ => serializer.serialize_str("-inf"),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;

        impl Visitor<'_> for ValueVisitor {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#"a number, "NaN", "inf" or "-inf""#)
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
                Ok(Value(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
                Ok(Value(value as f64))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
                Ok(Value(value as f64))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
                match text {
                    "NaN" => Ok(Value(f64::NAN)),
                    "inf" => Ok(Value(f64::INFINITY)),
                    "-inf" => Ok(Value(f64::NEG_INFINITY)),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }
        }

        deserializer.deserialize_any(ValueVisitor)
    }
}

impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.entries.len()))?;
        for (name, value) in &self.entries {
            map.serialize_entry(name, &Value(*value))?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Metrics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MetricsVisitor;

        impl<'de> Visitor<'de> for MetricsVisitor {
            type Value = Metrics;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from metric name to value")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metrics, A::Error> {
                let mut metrics = Metrics::new();
                while let Some((name, Value(value))) = map.next_entry::<String, Value>()? {
                    metrics.set(name, value);
                }
                Ok(metrics)
            }
        }

        deserializer.deserialize_map(MetricsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;

    fn sample() -> Metrics {
        let mut metrics = Metrics::new();
        metrics.set(names::TRAIN_LOSS, f64::NAN);
        metrics.set(names::usage("survival"), 0.1);
        metrics.set(names::TRAIN_ENTROPY, -0.0);
        metrics.set(names::TRAIN_VALUE_LOSS, f64::INFINITY);
        metrics.set(names::TRAIN_POLICY_LOSS, f64::NEG_INFINITY);
        metrics.set(names::ROLLOUT_EPISODES, 3.0);
        metrics
    }

    #[test]
    fn names_keep_their_order_and_a_second_value_replaces_the_first_in_place() {
        let mut metrics = Metrics::new();
        metrics.set("b", 1.0);
        metrics.set("a", 2.0);
        metrics.set("b", 3.0);
        assert_eq!(metrics.iter().collect::<Vec<_>>(), [("b", 3.0), ("a", 2.0)]);
        assert_eq!((metrics.get("b"), metrics.get("c"), metrics.len()), (Some(3.0), None, 2));
        assert!(!metrics.is_empty() && Metrics::new().is_empty());
    }

    #[test]
    fn merging_appends_new_names_and_replaces_known_ones() {
        let mut metrics = Metrics::new();
        metrics.set("a", 1.0);
        metrics.set("b", 2.0);
        let mut other = Metrics::new();
        other.set("c", 3.0);
        other.set("a", 4.0);
        metrics.merge(other);
        assert_eq!(metrics.iter().collect::<Vec<_>>(), [("a", 4.0), ("b", 2.0), ("c", 3.0)]);
    }

    #[test]
    fn json_shows_what_is_not_finite() {
        let json = serde_json::to_string(&sample()).unwrap();
        assert_eq!(
            json,
            r#"{"train/loss":"NaN","router/usage/survival":0.1,"train/entropy":-0.0,"train/value_loss":"inf","train/policy_loss":"-inf","rollout/episodes":3.0}"#
        );
    }

    #[test]
    fn writing_and_reading_keeps_every_bit_and_the_order() {
        let json = serde_json::to_string(&sample()).unwrap();
        assert_eq!(serde_json::from_str::<Metrics>(&json).unwrap(), sample());
        let bytes = rmp_serde::to_vec_named(&sample()).unwrap();
        assert_eq!(rmp_serde::from_slice::<Metrics>(&bytes).unwrap(), sample());
    }

    #[test]
    fn whole_numbers_are_read_and_other_text_is_an_error() {
        let metrics: Metrics = serde_json::from_str(r#"{"a": 3, "b": -4}"#).unwrap();
        assert_eq!((metrics.get("a"), metrics.get("b")), (Some(3.0), Some(-4.0)));
        let error = serde_json::from_str::<Metrics>(r#"{"a": "much"}"#).unwrap_err().to_string();
        assert!(error.contains(r#"expected a number, "NaN", "inf" or "-inf""#), "{error}");
    }

    #[test]
    fn a_nan_equals_itself_and_the_sign_of_zero_counts() {
        let one = |value| {
            let mut metrics = Metrics::new();
            metrics.set("a", value);
            metrics
        };
        assert_eq!(one(f64::NAN), one(f64::NAN));
        assert_ne!(one(0.0), one(-0.0));
        assert_ne!(one(1.0), Metrics::new());
    }
}
