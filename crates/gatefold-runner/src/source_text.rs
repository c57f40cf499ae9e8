//! A TOML text that remembers where its keys stand, so that an error can point at them.

use std::collections::HashMap;
use std::ops::Range;

use miette::NamedSource;
use toml::Table;
use toml::de::{DeTable, DeValue};

use crate::error::ConfigError;
use crate::schema::{Fault, Part};

/// A parsed TOML text.
pub(crate) struct SourceText {
    name: String,
    text: String,
    spans: HashMap<String, (Range<usize>, Range<usize>)>,
    pub(crate) table: Table,
}

impl SourceText {
    /// Parses `text`; `name` is the file it came from, for messages.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, Box<ConfigError>> {
        let syntax = |error: toml::de::Error| {
            Box::new(ConfigError {
                origin: name.to_string(),
                message: format!("not valid TOML: {}", error.message().replace('\n', "; ")),
                key: None,
                help: None,
                text: Some(NamedSource::new(name, text.to_string())),
                span: error.span().map(Into::into),
            })
        };
        let document = DeTable::parse(text).map_err(syntax)?;
        let mut spans = HashMap::new();
        collect_spans(document.get_ref(), "", &mut spans);
        let table = toml::from_str(text).map_err(syntax)?;
        Ok(Self { name: name.to_string(), text: text.to_string(), spans, table })
    }

    /// The error for a fault found in this text.
    pub(crate) fn fault(&self, fault: Fault) -> Box<ConfigError> {
        let span = self.spans.get(&fault.key).map(|(key, value)| match fault.part {
            Part::Key => key.clone().into(),
            Part::Value => value.clone().into(),
        });
        Box::new(ConfigError {
            origin: self.name.clone(),
            message: fault.message,
            key: Some(fault.key),
            help: fault.help,
            text: span.is_some().then(|| NamedSource::new(&self.name, self.text.clone())),
            span,
        })
    }

    /// Whether this text sets the key.
    pub(crate) fn sets(&self, key: &str) -> bool {
        self.spans.contains_key(key)
    }
}

fn collect_spans(table: &DeTable<'_>, path: &str, spans: &mut HashMap<String, (Range<usize>, Range<usize>)>) {
    for (key, value) in table {
        let name = key.get_ref();
        let path = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
        if let DeValue::Table(inner) = value.get_ref() {
            collect_spans(inner, &path, spans);
        }
        spans.insert(path, (key.span(), value.span()));
    }
}
