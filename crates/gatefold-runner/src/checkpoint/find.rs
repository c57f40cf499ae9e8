//! Finding and reading checkpoints. Nothing here writes, so a running run can be looked at.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Snapshot;
use super::format::decode;
use super::manifest::MANIFEST;
use crate::error::RunError;

/// Name of the folder of checkpoints in a run directory.
pub(crate) const FOLDER: &str = "checkpoints";
pub(super) const BEST: &str = "best.json";

/// A checkpoint that could be read.
#[derive(Debug)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// What is in it.
    pub snapshot: Snapshot,
    /// Newer ones that are damaged, one message each.
    pub warnings: Vec<String>,
}

/// Which checkpoint did best in evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Its environment steps.
    pub step: u64,
    /// Its mean evaluation return.
    pub return_mean: f64,
}

/// Whether one checkpoint is whole.
#[derive(Debug)]
pub struct Verdict {
    /// Where it is.
    pub path: PathBuf,
    /// Its [`Snapshot::hash`], or why it cannot be used.
    pub hash: Result<String, RunError>,
}

/// The folder's name of a checkpoint at `step` environment steps.
pub(super) fn folder_name(step: u64) -> String {
    format!("step-{step:012}")
}

/// Reads one checkpoint and checks every byte of it.
pub fn load(path: &Path) -> Result<Snapshot, RunError> {
    if !path.is_dir() {
        return Err(RunError::NoCheckpoint {
            path: path.to_path_buf(),
            reason: "there is no such folder".into(),
        });
    }
    decode(|name| fs::read(path.join(name))).map_err(|unreadable| unreadable.at(path))
}

/// All checkpoints in a folder with their environment steps, newest first. None are read.
pub fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>, RunError> {
    let read = |e| RunError::io(folder, "read", e);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(step) = name.strip_prefix("step-").and_then(|digits| digits.parse().ok()) {
            found.push((step, path));
        }
    }
    found.sort_by_key(|(step, _)| std::cmp::Reverse(*step));
    Ok(found)
}

/// The newest whole checkpoint in a folder. Damaged newer ones are passed over with a warning each.
pub fn latest(folder: &Path) -> Result<Found, RunError> {
    let mut warnings = Vec::new();
    for (_, path) in list(folder)? {
        match load(&path) {
            Ok(snapshot) => return Ok(Found { path, snapshot, warnings }),
            Err(error @ RunError::Damaged { .. }) => {
                warnings.push(format!("{error}; using the one before"));
            }
            Err(error) => return Err(error),
        }
    }
    let reason = match warnings.len() {
        0 => "there are none".to_string(),
        _ => format!("all are damaged: {}", warnings.join("; ").replace("; using the one before", "")),
    };
    Err(RunError::NoCheckpoint { path: folder.to_path_buf(), reason })
}

/// The record of the best checkpoint in a folder, if an evaluation has named one.
pub fn best(folder: &Path) -> Result<Option<Best>, RunError> {
    let path = folder.join(BEST);
    match fs::read(&path) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(best) => Ok(Some(best)),
            Err(e) => Err(RunError::Damaged { path, reason: e.to_string() }),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(RunError::io(path, "read", e)),
    }
}

/// The checkpoint at `path`, or the newest whole one if `path` is a run or a folder of checkpoints.
pub fn open(path: &Path) -> Result<Found, RunError> {
    match place(path)? {
        Place::Checkpoint(path) => Ok(Found { snapshot: load(&path)?, path, warnings: Vec::new() }),
        Place::Folder(folder) => latest(&folder),
    }
}

/// The checkpoint of a run, or of a folder of checkpoints, that did best in evaluation.
pub fn open_best(path: &Path) -> Result<Found, RunError> {
    let none = |reason: &str| RunError::NoCheckpoint { path: path.to_path_buf(), reason: reason.to_string() };
    let Place::Folder(folder) = place(path)? else {
        return Err(none("it is a single one; the best is one of a run's"));
    };
    let best = best(&folder)?.ok_or_else(|| none("no evaluation has named a best one"))?;
    let path = folder.join(folder_name(best.step));
    Ok(Found { snapshot: load(&path)?, path, warnings: Vec::new() })
}

/// Checks the checkpoint at `path`, or all of a run, newest first.
pub fn verify(path: &Path) -> Result<Vec<Verdict>, RunError> {
    let paths = match place(path)? {
        Place::Checkpoint(path) => vec![path],
        Place::Folder(folder) => list(&folder)?.into_iter().map(|(_, path)| path).collect(),
    };
    if paths.is_empty() {
        return Err(RunError::NoCheckpoint { path: path.to_path_buf(), reason: "there are none".into() });
    }
    let verdict = |path: PathBuf| Verdict { hash: load(&path).map(|s| s.hash()), path };
    Ok(paths.into_iter().map(verdict).collect())
}

/// SHA-256 over all learned and running state of what [`open`] finds.
pub fn hash(path: &Path) -> Result<String, RunError> {
    Ok(open(path)?.snapshot.hash())
}

enum Place {
    Checkpoint(PathBuf),
    Folder(PathBuf),
}

fn place(path: &Path) -> Result<Place, RunError> {
    if path.join(FOLDER).is_dir() {
        return Ok(Place::Folder(path.join(FOLDER)));
    }
    if path.file_name().is_some_and(|name| name == FOLDER) && path.is_dir() {
        return Ok(Place::Folder(path.to_path_buf()));
    }
    let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-"));
    if path.is_dir() && (named || path.join(MANIFEST).is_file()) {
        return Ok(Place::Checkpoint(path.to_path_buf()));
    }
    let reason = match path.exists() {
        true => "it is neither a run directory nor a checkpoint",
        false => "it does not exist",
    };
    Err(RunError::NoCheckpoint { path: path.to_path_buf(), reason: reason.to_string() })
}
