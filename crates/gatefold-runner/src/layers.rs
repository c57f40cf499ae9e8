//! From files and overrides to a configuration: defaults, then preset, then file, then overrides.

use std::path::Path;

use gatefold_env::{EnvEntry, Params};
use toml::{Table, Value};

use crate::config::ExperimentConfig;
use crate::contradiction::{also_at_fault, check_routed};
use crate::error::{ConfigError, RunError};
use crate::overrides::{Override, lookup, merge, parse_all};
use crate::presets::Preset;
use crate::schema::{
    Fault, Key, Part, check, check_required, defaults_text, experiment_schema, nearest, option_defaults,
    shorten_floats,
};
use crate::source_text::SourceText;

/// Reads an experiment file and lays `key=value` overrides over it.
///
/// A run that names itself nowhere is named after the file. What a file asks for and cannot have is
/// refused here, where a person wrote it; [`resolve`] takes it as a comparison that leaves parts out.
pub fn load(path: &Path, overrides: &[String], entries: &[EnvEntry]) -> Result<ExperimentConfig, RunError> {
    if path.is_dir() {
        return Err(RunError::NotAFile { path: path.to_path_buf() });
    }
    let text = std::fs::read_to_string(path).map_err(|e| RunError::io(path, "read", e))?;
    let layers = Layers::read(&path.display().to_string(), &text, overrides)?;
    let mut config = layers.resolve(entries)?;
    check_routed(&config, &layers.given, &layers.defaults()).map_err(|reason| layers.misfit(&reason))?;
    if config.run.name.is_none() {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        config.run.name = Some(folder_name(&stem.unwrap_or_default()));
    }
    Ok(config)
}

/// The stem of a file as [`RunConfig::name`](crate::RunConfig::name) takes it: `-` for what it does not.
fn folder_name(stem: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = stem.chars().map(plain).collect();
    let name = name.trim_matches(['-', '.']);
    if name.is_empty() { "unnamed".to_string() } else { name.to_string() }
}

/// Resolves the text of an experiment file; `name` is the file, for messages.
pub fn resolve(
    name: &str,
    text: &str,
    overrides: &[String],
    entries: &[EnvEntry],
) -> Result<ExperimentConfig, RunError> {
    Layers::read(name, text, overrides)?.resolve(entries)
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
    fn read(name: &str, text: &str, overrides: &[String]) -> Result<Self, Box<ConfigError>> {
        let file = SourceText::parse(name, text)?;
        let overrides = parse_all(overrides)?;
        let mut given = file.table.clone();
        overrides.iter().for_each(|change| merge(&mut given, change.table()));
        Ok(Self { file, overrides, given })
    }

    fn resolve(&self, entries: &[EnvEntry]) -> Result<ExperimentConfig, RunError> {
        let entry = self.environment(entries)?;
        let schema = experiment_schema(entry);
        check(&self.file.table, &schema).map_err(|fault| self.file.fault(fault))?;
        for change in &self.overrides {
            check(&change.table(), &schema).map_err(command_line)?;
        }
        let merged = self.merge(entry, &schema)?;
        let config: ExperimentConfig =
            Value::Table(merged).try_into().map_err(|e: toml::de::Error| self.misfit(e.message()))?;
        config.validate().map_err(|reason| self.misfit(&reason))?;
        if let Some(entry) = entry {
            check_environment(&config, entry).map_err(|reason| self.misfit(&reason))?;
        }
        Ok(config)
    }

    /// What holds where neither file nor overrides say anything: defaults with the preset over them.
    fn defaults(&self) -> Table {
        let mut defaults = to_table(&ExperimentConfig::new("", ""));
        if let Some(preset) = self.preset() {
            merge(&mut defaults, preset.table());
        }
        defaults
    }

    fn preset(&self) -> Option<Preset> {
        let name = lookup(&self.given, "preset")?.as_str()?;
        Some(
            Preset::ALL
                .into_iter()
                .find(|preset| preset.name() == name)
                .expect("the schema knows the presets"),
        )
    }

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
        let mut merged = self.preset().map_or_else(Table::new, Preset::table);
        if let Some(entry) = entry {
            merge(&mut merged, Table::from_iter([("env".to_string(), option_defaults(entry).into())]));
        }
        merge(&mut merged, self.given.clone());
        check_required(&merged, schema).map_err(|fault| self.file.fault(fault))?;
        Ok(merged)
    }

    /// The error for what an owner says about its settings: `[section] key = value: reason`.
    fn misfit(&self, reason: &str) -> Box<ConfigError> {
        let (mut key, mut message, mut help) = (dotted_key(reason), reason.to_string(), None);
        if lookup(&self.given, &key).is_none()
            && let Some((other, value)) = also_at_fault(reason, &key, &self.given)
        {
            message = format!("{other} = {value}: does not go with {reason}");
            help = Some(format!("change {other} or {key}"));
            key = other;
        }
        let part = if self.file.sets(&key) { Part::Value } else { Part::Key };
        self.error(Fault { key, message, help, part })
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
