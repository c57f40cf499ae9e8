//! What a study file says: a base experiment, seeds, and arms that differ from the base.

use std::fs;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use miette::NamedSource;
use serde::Deserialize;

use crate::error::{FileError, StudyError, did_you_mean};

/// A study: every arm is run with every seed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyFile {
    /// Why this study exists: the question that its arms answer.
    pub about: String,
    /// The experiment file that the arms start from, relative to this file.
    pub base: PathBuf,
    /// What all arms have in common.
    pub study: Common,
    /// The arms by name, in the order of the file; the first is the one that others are held against.
    pub arms: IndexMap<String, ArmSettings>,
}

/// What all arms have in common.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Common {
    /// A run of each arm for each seed.
    pub seeds: Vec<u64>,
    /// Settings over the base's, as on the command line: `"run.total_steps=200000"`.
    #[serde(default)]
    pub overrides: Vec<String>,
    /// The metric of `summary.json` to compare by; more counts as better.
    #[serde(default = "default_metric")]
    pub metric: String,
    /// The score below which the optimality gap is measured; without it no gap is.
    pub target: Option<f64>,
}

/// How one arm differs from the base.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmSettings {
    /// What the arm is, in a line.
    pub about: Option<String>,
    /// Another experiment file to start from, relative to this file.
    pub base: Option<PathBuf>,
    /// Settings over the common ones.
    #[serde(default)]
    pub overrides: Vec<String>,
}

fn default_metric() -> String {
    crate::runs::DEFAULT_METRIC.to_string()
}

/// Keys of a run that the study sets itself.
const OWN_KEYS: [(&str, &str); 2] =
    [("run.seed", "[study] seeds gives every run its seed"), ("run.name", "a run is named after its arm")];

impl StudyFile {
    /// Reads a study file.
    pub fn read(path: &Path) -> Result<Self, StudyError> {
        let text = fs::read_to_string(path).map_err(|e| StudyError::io(path, "read", e))?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads the text of a study file; `file` is its name, for messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, StudyError> {
        let study: Self = toml::from_str(text).map_err(|error| {
            let message = error.message().replace('\n', "; ");
            StudyError::File(Box::new(FileError {
                file: file.to_string(),
                help: nearest_key(&message),
                message,
                text: error.span().map(|_| NamedSource::new(file, text.to_string())),
                span: error.span().map(Into::into),
            }))
        })?;
        study.validate().map_err(|(message, help)| {
            let file = file.to_string();
            StudyError::File(Box::new(FileError { file, message, help: Some(help), text: None, span: None }))
        })?;
        Ok(study)
    }

    /// What types cannot say, as a message and a remedy.
    fn validate(&self) -> Result<(), (String, String)> {
        let fault = |message: String, help: &str| Err((message, help.to_string()));
        if self.about.trim().is_empty() {
            return fault("about = \"\": say why this study exists".into(), "name the question it answers");
        }
        if self.arms.is_empty() {
            return fault("[arms] is empty: need at least one arm".into(), "write [arms.NAME] for each");
        }
        check_seeds(&self.study.seeds)?;
        for name in self.arms.keys() {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
                return fault(
                    format!("[arms] {name:?}: need letters, digits, `-`, `_` or `.`, not starting with `.`"),
                    "an arm's name is that of a folder",
                );
            }
        }
        let lists = self.arms.iter().map(|(name, arm)| (format!("arms.{name}"), &arm.overrides));
        for (place, overrides) in lists.chain([("study".to_string(), &self.study.overrides)]) {
            for argument in overrides {
                let key = argument.split('=').next().unwrap_or_default().trim();
                if let Some((_, why)) = OWN_KEYS.iter().find(|(own, _)| *own == key) {
                    return fault(format!("[{place}] overrides = [{argument:?}]: the study sets {key}"), why);
                }
            }
        }
        Ok(())
    }
}

/// Seeds that make runs which can be told apart, as a message and a remedy otherwise.
pub(crate) fn check_seeds(seeds: &[u64]) -> Result<(), (String, String)> {
    let repeated = seeds.iter().enumerate().find(|(i, seed)| seeds[..*i].contains(seed));
    match (seeds.is_empty(), repeated) {
        (true, _) => {
            Err(("seeds = []: need at least one".into(), "five or more make useful intervals".into()))
        }
        (_, Some((_, seed))) => Err((
            format!("seeds: {seed} is repeated; need different seeds"),
            "the same seed makes the same run".into(),
        )),
        _ => Ok(()),
    }
}

/// A suggestion from serde's message: unknown field `x`, expected one of `y`, `z`.
fn nearest_key(message: &str) -> Option<String> {
    let rest = message.strip_prefix("unknown field `")?;
    let (name, expected) = rest.split_once('`')?;
    did_you_mean(name, expected.split('`').skip(1).step_by(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
        about = "a test"
        base = "x.toml"
        [study]
        seeds = [1, 2]
        [arms.zebra]
        overrides = ["ppo.clip=0.1"]
        [arms.ant]
        base = "y.toml"
    "#;

    #[test]
    fn arms_keep_the_order_of_the_file() {
        let study = StudyFile::parse("s.toml", WHOLE).unwrap();
        assert_eq!(study.arms.keys().map(String::as_str).collect::<Vec<_>>(), ["zebra", "ant"]);
        assert_eq!(study.arms["zebra"].overrides, ["ppo.clip=0.1"]);
        assert_eq!(study.study.metric, "eval_score_mean");
    }

    #[test]
    fn every_mistake_names_the_file_the_value_and_a_remedy() {
        let cases = [
            ("seeds", "sedes", "unknown field `sedes`", "did you mean `seeds`?"),
            ("[1, 2]", "[]", "seeds = []", "five"),
            ("[1, 2]", "[1, 1]", "1 is repeated", "same run"),
            ("[1, 2]", "[-1]", "invalid value", ""),
            ("a test", " ", "about = \"\"", "question"),
            ("arms.zebra", "arms.\"a b\"", "\"a b\"", "folder"),
            ("ppo.clip=0.1", "run.seed=3", "[arms.zebra] overrides", "seeds"),
            ("base = \"x.toml\"", "", "missing field `base`", ""),
        ];
        for (from, to, message, help) in cases {
            let error = StudyFile::parse("s.toml", &WHOLE.replacen(from, to, 1)).unwrap_err();
            let StudyError::File(error) = error else { panic!("{error}") };
            let FileError { file, message: found, help: advice, .. } = *error;
            assert_eq!(file, "s.toml");
            assert!(found.contains(message), "{found}");
            assert!(advice.as_deref().unwrap_or_default().contains(help), "{found}: {advice:?}");
        }
    }
}
