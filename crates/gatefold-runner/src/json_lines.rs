//! Files of one JSON object per line that a resumed run goes on with.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use gatefold_curriculum::Moment;
use serde_json::Value;

use crate::checkpoint::sync_parent;
use crate::error::RunError;

/// Names of a line's environment step and of its iteration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys {
    pub(crate) env_step: &'static str,
    pub(crate) iteration: &'static str,
}

/// A file of lines, open for appending.
#[derive(Debug)]
pub(crate) struct JsonLines {
    path: PathBuf,
    file: File,
}

impl JsonLines {
    /// Opens the file of a run that stands at `at`. A line says under `keys` at which environment step
    /// and in which iteration it was written.
    ///
    /// Later lines, written between the checkpoint and the end of the process, are cut off, and so is a
    /// line that was written only in part: the resumed run writes them again. Lines of `at` itself
    /// stay: they are older than the checkpoint, which is saved at the end of its iteration. The
    /// iteration counts too, because one that is discarded before its first step takes none.
    pub(crate) fn open(path: &Path, keys: Keys, at: Moment) -> Result<Self, RunError> {
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).open(path);
        let file = file.map_err(|e| RunError::io(path, "write", e))?;
        let kept = length_until(&file, keys, at).map_err(|e| RunError::io(path, "read", e))?;
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

/// Bytes up to the end of the last whole line that is not later than `at`.
fn length_until(file: &File, keys: Keys, at: Moment) -> std::io::Result<u64> {
    let mut reader = BufReader::new(file);
    let (mut kept, mut line) = (0, Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 {
        let value: Option<Value> = serde_json::from_slice(&line).ok();
        let number = |key: &str| value.as_ref().and_then(|value| value[key].as_f64());
        let is_later = |key, most: u64| number(key).is_none_or(|number| number > most as f64);
        if !line.ends_with(b"\n")
            || is_later(keys.env_step, at.env_step)
            || is_later(keys.iteration, at.iteration)
        {
            break;
        }
        kept += line.len() as u64;
        line.clear();
    }
    Ok(kept)
}
