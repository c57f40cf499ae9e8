//! Files of one JSON object per line that a resumed run goes on with.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::checkpoint::sync_parent;
use crate::error::RunError;

/// A file of lines, open for appending.
#[derive(Debug)]
pub(crate) struct JsonLines {
    path: PathBuf,
    file: File,
}

impl JsonLines {
    /// Opens the file of a run that stands at `step` environment steps; 0 for a new one. A line says at
    /// `key` at which step it was written.
    ///
    /// Lines of later steps, written between the checkpoint and the end of the process, are cut off,
    /// and so is a line that was written only in part: the resumed run writes them again. Lines of `step`
    /// itself stay: they are older than the checkpoint, which is saved at the end of its step.
    pub(crate) fn open(path: &Path, key: &str, step: u64) -> Result<Self, RunError> {
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).open(path);
        let file = file.map_err(|e| RunError::io(path, "write", e))?;
        let kept = length_until(&file, key, step).map_err(|e| RunError::io(path, "read", e))?;
        file.set_len(kept).map_err(|e| RunError::io(path, "write", e))?;
        sync_parent(path)?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// Appends a line.
    pub(crate) fn write(&mut self, line: &Value) -> Result<(), RunError> {
        let line = format!("{line}\n");
        self.file.write_all(line.as_bytes()).map_err(|e| RunError::io(&self.path, "write", e))
    }

    /// What puts the lines written so far on the disk, to be carried out before a checkpoint of
    /// their step can be seen: a resumed run cuts lines off, but cannot write lost ones again.
    pub(crate) fn sync(&self) -> Result<impl FnOnce() -> Result<(), RunError> + Send + use<>, RunError> {
        let path = self.path.clone();
        let file = self.file.try_clone().map_err(|e| RunError::io(&path, "write", e))?;
        Ok(move || file.sync_data().map_err(|e| RunError::io(&path, "write", e)))
    }
}

/// Bytes up to the end of the last whole line whose step is at most `step`.
fn length_until(file: &File, key: &str, step: u64) -> std::io::Result<u64> {
    let mut reader = BufReader::new(file);
    let (mut kept, mut line) = (0, Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 {
        let value: Option<Value> = serde_json::from_slice(&line).ok();
        let at = value.as_ref().and_then(|value| value[key].as_u64());
        if !line.ends_with(b"\n") || at.is_none_or(|at| at > step) {
            break;
        }
        kept += line.len() as u64;
        line.clear();
    }
    Ok(kept)
}
