//! From files and overrides to a configuration: defaults, then preset, then file, then overrides.

use std::path::Path;

use gatefold_env::{EnvEntry, Params};
use toml::{Table, Value};

use crate::config::ExperimentConfig;
use crate::error::{ConfigError, RunError};
use crate::overrides::{Override, lookup, merge};
use crate::presets::Preset;
use crate::schema::{
    Fault, Key, Part, check, check_required, defaults_text, experiment_schema, nearest, option_defaults,
    shorten_floats,
};
use crate::source_text::SourceText;

/// Reads an experiment file and lays `key=value` overrides over it.
///
/// A run that names itself nowhere is named after the file.
pub fn load(path: &Path, overrides: &[String], entries: &[EnvEntry]) -> Result<ExperimentConfig, RunError> {
    let text = std::fs::read_to_string(path).map_err(|e| RunError::io(path, "read", e))?;
    let mut config = resolve(&path.display().to_string(), &text, overrides, entries)?;
    if config.run.name.is_none() {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        config.run.name = stem.filter(|name| named(&config, name).validate().is_ok());
    }
    Ok(config)
}

fn named(config: &ExperimentConfig, name: &str) -> ExperimentConfig {
    let mut config = config.clone();
    config.run.name = Some(name.to_string());
    config
}

/// Resolves the text of an experiment file; `name` is the file, for messages.
pub fn resolve(
    name: &str,
    text: &str,
    overrides: &[String],
    entries: &[EnvEntry],
) -> Result<ExperimentConfig, RunError> {
    let file = SourceText::parse(name, text)?;
    let overrides =
        overrides.iter().map(|argument| Override::parse(argument)).collect::<Result<Vec<_>, _>>()?;
    let mut given = file.table.clone();
    overrides.iter().for_each(|change| merge(&mut given, change.table()));
    let layers = Layers { file, overrides, given };

    let entry = layers.environment(entries)?;
    let schema = experiment_schema(entry);
    check(&layers.file.table, &schema).map_err(|fault| layers.file.fault(fault))?;
    for change in &layers.overrides {
        check(&change.table(), &schema).map_err(command_line)?;
    }
    let merged = layers.merge(entry, &schema)?;
    let config: ExperimentConfig =
        Value::Table(merged).try_into().map_err(|e: toml::de::Error| layers.misfit(e.message()))?;
    config.validate().map_err(|reason| layers.misfit(&reason))?;
    if let Some(entry) = entry {
        check_environment(&config, entry).map_err(|reason| layers.misfit(&reason))?;
    }
    Ok(config)
}

/// What one environment, built for its spec, says about its options and the policy.
fn check_environment(config: &ExperimentConfig, entry: &EnvEntry) -> Result<(), String> {
    let params = Params { options: config.env.options.clone(), ..Params::new(1, 0) };
    let envs = (entry.build)(&params).map_err(|e| e.to_string())?;
    let spec = envs.spec();
    if spec.num_features == 0 || spec.num_actions() == 0 {
        return Err(format!(
            "[env] name = {:?}: declares {} features and {} actions; need at least 1 of each",
            entry.name,
            spec.num_features,
            spec.num_actions()
        ));
    }
    if let Some(graph) = &spec.graph {
        graph.validate().map_err(|e| format!("[env] name = {:?}: {e}", entry.name))?;
    }
    config.policy.validate_for(spec).map_err(|e| e.to_string())
}

/// The text of `config defaults`.
pub fn defaults(entries: &[EnvEntry]) -> String {
    defaults_text(entries)
}

/// The whole configuration as TOML; [`resolve`] reads it back as the same one.
pub fn to_toml(config: &ExperimentConfig) -> String {
    toml::to_string(&to_table(config)).expect("a configuration can be written as TOML")
}

/// The whole configuration as a table, numbers as a user writes them.
pub(crate) fn to_table(config: &ExperimentConfig) -> Table {
    let mut table = Table::try_from(config).expect("a configuration is a table");
    shorten_floats(&mut table, &experiment_schema(None));
    table
}

struct Layers {
    file: SourceText,
    overrides: Vec<Override>,
    /// The file's table with the overrides over it.
    given: Table,
}

impl Layers {
    /// The error at a key, pointing to the layer that set it.
    fn error(&self, fault: Fault) -> Box<ConfigError> {
        let sets = |change: &Override| {
            fault.key.strip_prefix(&change.key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if self.overrides.iter().any(sets) { command_line(fault) } else { self.file.fault(fault) }
    }

    /// The environment named, or `None` where the schema will complain about the name itself.
    fn environment<'a>(&self, entries: &'a [EnvEntry]) -> Result<Option<&'a EnvEntry>, Box<ConfigError>> {
        let Some(Value::String(name)) = lookup(&self.given, "env.name") else { return Ok(None) };
        if let Some(entry) = entries.iter().find(|entry| entry.name == name) {
            return Ok(Some(entry));
        }
        Err(self.error(unknown_environment("env.name", name, entries)))
    }

    fn merge(&self, entry: Option<&EnvEntry>, schema: &Key) -> Result<Table, Box<ConfigError>> {
        let mut merged = Table::new();
        if let Some(Value::String(name)) = lookup(&self.given, "preset") {
            let preset = Preset::ALL.into_iter().find(|preset| preset.name() == name);
            merged = preset.expect("the schema knows the presets").table();
        }
        if let Some(entry) = entry {
            merge(&mut merged, Table::from_iter([("env".to_string(), option_defaults(entry).into())]));
        }
        merge(&mut merged, self.given.clone());
        check_required(&merged, schema).map_err(|fault| self.file.fault(fault))?;
        Ok(merged)
    }

    /// The error for what an owner says about its settings: `[section] key = value: reason`.
    fn misfit(&self, reason: &str) -> Box<ConfigError> {
        let key = dotted_key(reason);
        let part = if self.file.sets(&key) { Part::Value } else { Part::Key };
        self.error(Fault { key, message: reason.to_string(), help: None, part })
    }
}

/// `ppo.minibatch` of `[ppo] minibatch = 1: need 2..=8192`.
fn dotted_key(reason: &str) -> String {
    let (section, rest) = match reason.strip_prefix('[').and_then(|r| r.split_once("] ")) {
        Some((section, rest)) => (section, rest),
        None => ("", reason),
    };
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).unwrap_or(rest.len());
    if section.is_empty() { rest[..end].to_string() } else { format!("{section}.{}", &rest[..end]) }
}

fn command_line(fault: Fault) -> Box<ConfigError> {
    Box::new(ConfigError {
        origin: "command line".to_string(),
        message: fault.message,
        key: Some(fault.key),
        help: fault.help,
        text: None,
        span: None,
    })
}

fn unknown_environment(key: &str, name: &str, entries: &[EnvEntry]) -> Fault {
    let names: Vec<_> = entries.iter().map(|entry| entry.name).collect();
    let help = match nearest(name, names.iter().copied()) {
        Some(close) => format!("did you mean \"{close}\"? All of them: {}", names.join(", ")),
        None => format!("there are {}", names.join(", ")),
    };
    let message = format!("{key} = {name:?}: unknown environment");
    Fault { key: key.to_string(), message, help: Some(help), part: Part::Value }
}

/// The entry of an environment named on the command line.
pub fn find_environment<'a>(name: &str, entries: &'a [EnvEntry]) -> Result<&'a EnvEntry, RunError> {
    let found = entries.iter().find(|entry| entry.name == name);
    Ok(found.ok_or_else(|| command_line(unknown_environment("environment", name, entries)))?)
}
