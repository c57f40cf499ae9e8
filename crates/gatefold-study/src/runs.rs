//! Finished runs on disk: where they are, which arm they belong to, and their summaries.

use std::fs;
use std::path::{Path, PathBuf};

use gatefold_runner::Summary;
use serde_json::Value;
use toml::Table;

use crate::error::{StudyError, did_you_mean};
use crate::study_file::StudyFile;

/// The configuration in a run directory.
pub(crate) const CONFIG: &str = "config.toml";
/// The copy of the study file in a study's folder.
pub(crate) const STUDY: &str = "study.toml";

/// The metric that a comparison looks at unless told otherwise.
pub const DEFAULT_METRIC: &str = "eval_score_mean";

/// A run that came to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The run directory.
    pub path: PathBuf,
    /// What it reached.
    pub summary: Summary,
}

/// Runs that differ in their seed alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Arm {
    /// Its name.
    pub name: String,
    /// Its runs, at least one.
    pub runs: Vec<Run>,
}

/// The arms that arguments name, in the order of their first mention.
///
/// An argument is `name=PATH,PATH`, whose runs make up the arm `name`, or a path alone, whose runs
/// belong to the arms of their own names (`run.name`; in a study the name of the arm). A path is a run
/// directory or a folder that holds some at any depth; a study's folder keeps the order of its file.
pub fn find_arms(arguments: &[String]) -> Result<Vec<Arm>, StudyError> {
    let mut arms: Vec<Arm> = Vec::new();
    for argument in arguments {
        let (name, paths) = match argument.split_once('=').filter(|_| !Path::new(argument).exists()) {
            Some((name, paths)) => (Some(name.trim()), paths.split(',').map(Path::new).collect()),
            None => (None, vec![Path::new(argument)]),
        };
        if name == Some("") {
            return Err(StudyError::Arguments {
                message: format!("`{argument}`: an arm without a name"),
                help: Some("write name=RUN,RUN".into()),
            });
        }
        for path in paths {
            for run in run_directories(path)? {
                let name = name.map_or_else(|| own_name(&run), |name| Ok(name.to_string()))?;
                let run = read_run(&run)?;
                match arms.iter_mut().find(|arm| arm.name == name) {
                    Some(arm) => arm.runs.push(run),
                    None => arms.push(Arm { name, runs: vec![run] }),
                }
            }
        }
    }
    Ok(arms)
}

/// All run directories at or below a path.
fn run_directories(path: &Path) -> Result<Vec<PathBuf>, StudyError> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), StudyError> {
        if folder.join(CONFIG).is_file() {
            found.push(folder.to_path_buf());
            return Ok(());
        }
        let entries = fs::read_dir(folder).map_err(|e| StudyError::io(folder, "read", e))?;
        let mut folders: Vec<PathBuf> =
            entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        let order = order_of_arms(folder)?;
        // Numbers in names count as numbers: s2 comes before s10.
        let place = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (order.iter().position(|arm| *arm == name).unwrap_or(order.len()), name.len(), name)
        };
        folders.sort_by_key(place);
        folders.iter().try_for_each(|folder| walk(folder, found))
    }
    let mut found = Vec::new();
    walk(path, &mut found)?;
    if found.is_empty() {
        return Err(StudyError::NoRun { path: path.to_path_buf() });
    }
    Ok(found)
}

/// The arms in the order of the study file, if this is a study's folder.
fn order_of_arms(folder: &Path) -> Result<Vec<String>, StudyError> {
    let path = folder.join(STUDY);
    if !path.is_file() {
        return Ok(Vec::new());
    }
    Ok(StudyFile::read(&path)?.arms.into_keys().collect())
}

/// `run.name` of a run, or the name of the folder that holds it.
fn own_name(run: &Path) -> Result<String, StudyError> {
    let path = run.join(CONFIG);
    let text = fs::read_to_string(&path).map_err(|e| StudyError::io(&path, "read", e))?;
    let configured = text.parse::<Table>().ok().and_then(|table| {
        let name = table.get("run")?.get("name")?.as_str()?;
        Some(name.to_string())
    });
    let folder = || run.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    Ok(configured.or_else(folder).filter(|name| !name.is_empty()).unwrap_or_else(|| "unnamed".to_string()))
}

/// Reads the summary of a run that came to its end.
pub(crate) fn read_run(run: &Path) -> Result<Run, StudyError> {
    let path = run.join("summary.json");
    let unfinished = |reason: &str| StudyError::Unfinished { run: run.to_path_buf(), reason: reason.into() };
    if !path.is_file() {
        return Err(unfinished("no summary.json in it: the run has not come to its end"));
    }
    let text = fs::read_to_string(&path).map_err(|e| StudyError::io(&path, "read", e))?;
    let summary: Summary =
        serde_json::from_str(&text).map_err(|e| StudyError::Summary { path, reason: e.to_string() })?;
    if summary.eval_return_mean.is_none() {
        return Err(unfinished("stopped before its final evaluation"));
    }
    Ok(Run { path: run.to_path_buf(), summary })
}

impl Run {
    /// A number of the summary by its key.
    pub fn metric(&self, name: &str) -> Result<f64, StudyError> {
        let summary = serde_json::to_value(&self.summary).expect("a summary is JSON");
        let keys = summary.as_object().expect("a summary is an object");
        match keys.get(name) {
            Some(Value::Number(number)) => Ok(number.as_f64().expect("a number of a summary fits")),
            Some(Value::Null) => Err(StudyError::Unfinished {
                run: self.path.clone(),
                reason: format!("{name} was not reached or measured"),
            }),
            _ => {
                let known: Vec<&str> =
                    keys.iter().filter(|(_, value)| value.is_number()).map(|(key, _)| key.as_str()).collect();
                Err(StudyError::UnknownMetric {
                    metric: name.to_string(),
                    known: known.join(", "),
                    help: did_you_mean(name, known.iter().copied()),
                })
            }
        }
    }
}
