//! What a file of faults says: an experiment, sites to break and faults to plant.

use std::path::{Path, PathBuf};

use gatefold_env::EnvEntry;
use miette::NamedSource;
use serde::Deserialize;

use super::fault::FaultSpec;
use crate::{ConfigError, ExperimentConfig, RunError, layers};

/// Faults, and the experiment that they are put into.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChaosFile {
    /// Why these faults are tried.
    pub about: String,
    /// The experiment file, relative to this file.
    pub base: PathBuf,
    /// Settings over the experiment's, as on the command line.
    #[serde(default)]
    pub overrides: Vec<String>,
    /// NaN and infinity at every named site; without this table at none.
    pub sites: Option<SitesTable>,
    /// Other faults, one run each.
    #[serde(default)]
    pub faults: Vec<FaultSpec>,
}

/// Where NaN and infinity are put, once each.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SitesTable {
    /// `all`, or what the names of sites begin with: `["activation/", "env/rewards"]`.
    pub names: SiteNames,
    /// Iterations done before the fault.
    pub at: u64,
    /// Further settings of these runs, such as a smaller run.total_steps.
    #[serde(default)]
    pub overrides: Vec<String>,
}

/// Which sites.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum SiteNames {
    /// A word, `all`.
    Word(All),
    /// What names begin with.
    Prefixes(Vec<String>),
}

/// Every site that the experiment passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum All {
    /// Every one.
    All,
}

impl SiteNames {
    /// Whether a site is among them.
    pub fn include(&self, site: &str) -> bool {
        match self {
            Self::Word(All::All) => true,
            Self::Prefixes(prefixes) => prefixes.iter().any(|prefix| site.starts_with(prefix.as_str())),
        }
    }
}

impl ChaosFile {
    /// Reads a file of faults.
    pub fn read(path: &Path) -> Result<Self, RunError> {
        if path.is_dir() {
            return Err(RunError::NotAFile { path: path.to_path_buf() });
        }
        let text = std::fs::read_to_string(path).map_err(|e| RunError::io(path, "read", e))?;
        let origin = path.display().to_string();
        toml::from_str(&text).map_err(|error| {
            let help = "write about, base, and [sites] or [[faults]]; experiments/chaos.toml shows all of it";
            RunError::from(Box::new(ConfigError {
                message: error.message().replace('\n', "; "),
                key: None,
                help: Some(help.to_string()),
                text: error.span().map(|_| NamedSource::new(&origin, text.clone())),
                span: error.span().map(Into::into),
                origin: origin.clone(),
            }))
        })
    }

    /// The experiment with `further` settings over the file's; `path` is this file's.
    pub fn experiment(
        &self,
        path: &Path,
        further: &[String],
        entries: &[EnvEntry],
    ) -> Result<ExperimentConfig, RunError> {
        let base = path.parent().unwrap_or(Path::new("")).join(&self.base);
        layers::load(&base, &[&self.overrides, further].concat(), entries)
    }

    /// Refuses faults that an experiment with these experts cannot have.
    pub(super) fn check(&self, path: &Path, experts: &[String]) -> Result<(), RunError> {
        let refuse = |message: String, help: String| {
            RunError::from(Box::new(ConfigError {
                origin: path.display().to_string(),
                message,
                key: None,
                help: Some(help),
                text: None,
                span: None,
            }))
        };
        if self.about.trim().is_empty() {
            return Err(refuse("about = \"\": say why these faults are tried".into(), "in a line".into()));
        }
        if self.sites.is_none() && self.faults.is_empty() {
            let help = "write [sites] with names = \"all\", or [[faults]]";
            return Err(refuse("no faults: need at least one".into(), help.into()));
        }
        for (number, fault) in self.faults.iter().enumerate() {
            fault.validate(experts).map_err(|(message, help)| {
                refuse(format!("[[faults]] number {}, {message}", number + 1), help)
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.toml");
        std::fs::write(&path, text).unwrap();
        match ChaosFile::read(&path).and_then(|file| file.check(&path, &["a".to_string()])) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_mistake_names_the_value_or_the_key() {
        let head = "about = \"x\"\nbase = \"b.toml\"\n";
        assert_eq!(error(&format!("{head}[sites]\nnames = \"all\"\nat = 3")), "");
        for (rest, expected) in [
            ("", "no faults"),
            ("[sites]\nnames = \"some\"\nat = 3", "SiteNames"),
            ("[[faults]]\nkind = \"flood\"\nat = 3", "flood"),
            ("[[faults]]\nkind = \"nan\"\nat = 3", "[[faults]] number 1, kind = \"nan\": needs a site"),
            ("[[fault]]\nkind = \"nan\"\nat = 3", "unknown field `fault`"),
        ] {
            let found = error(&format!("{head}{rest}"));
            assert!(found.contains(expected), "{rest}: {found}");
        }
    }
}
