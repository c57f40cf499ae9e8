//! `metrics.jsonl`: one JSON object per iteration.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use gatefold_monitor::Metrics;
use serde_json::{Map, Value};

use crate::checkpoint::sync_parent;
use crate::error::RunError;

/// The key in each line by which a resumed run knows what to keep.
const STEP: &str = "step";

/// The metrics file of a run, open for appending.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Opens the file for a run that stands at `step` environment steps; 0 for a new one.
    ///
    /// Lines of later steps, written between the checkpoint and the end of the process, are cut off,
    /// and so is a line that was written only in part: the resumed run writes them again.
    pub fn open(path: &Path, step: u64) -> Result<Self, RunError> {
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).open(path);
        let file = file.map_err(|e| RunError::io(path, "write", e))?;
        let kept = length_until(&file, step).map_err(|e| RunError::io(path, "read", e))?;
        file.set_len(kept).map_err(|e| RunError::io(path, "write", e))?;
        sync_parent(path)?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// Appends one line: `{"step": step, ...}`. Numbers that are not finite become the strings
    /// `"NaN"`, `"inf"` and `"-inf"`: nothing hides them.
    pub fn write(&mut self, step: u64, metrics: &Metrics) -> Result<(), RunError> {
        let mut line = Map::from_iter([(STEP.to_string(), step.into())]);
        match serde_json::to_value(metrics).expect("metrics are JSON") {
            Value::Object(metrics) => line.extend(metrics),
            other => unreachable!("metrics are an object, not {other}"),
        }
        let line = format!("{}\n", Value::Object(line));
        self.file.write_all(line.as_bytes()).map_err(|e| RunError::io(&self.path, "write", e))
    }

    /// What puts the lines written so far on the disk, to be carried out before a checkpoint of
    /// their step can be seen: a resumed run cuts lines off, but cannot write lost ones again.
    pub fn sync(&self) -> Result<impl FnOnce() -> Result<(), RunError> + Send + use<>, RunError> {
        let path = self.path.clone();
        let file = self.file.try_clone().map_err(|e| RunError::io(&path, "write", e))?;
        Ok(move || file.sync_data().map_err(|e| RunError::io(&path, "write", e)))
    }
}

/// Bytes up to the end of the last whole line whose step is at most `step`.
fn length_until(file: &File, step: u64) -> std::io::Result<u64> {
    let mut reader = BufReader::new(file);
    let (mut kept, mut line) = (0, Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 {
        let value: Option<Value> = serde_json::from_slice(&line).ok();
        let at = value.as_ref().and_then(|value| value[STEP].as_u64());
        if !line.ends_with(b"\n") || at.is_none_or(|at| at > step) {
            break;
        }
        kept += line.len() as u64;
        line.clear();
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(loss: f64) -> Metrics {
        let mut metrics = Metrics::new();
        metrics.set("train/loss", loss);
        metrics
    }

    #[test]
    fn a_resumed_run_cuts_later_and_torn_lines_and_writes_them_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = MetricsLog::open(&path, 0).unwrap();
        for step in [10, 20, 30] {
            log.write(step, &metrics(f64::from(step as u32))).unwrap();
        }
        let whole = std::fs::read_to_string(&path).unwrap();
        assert_eq!(whole.lines().next(), Some("{\"step\":10,\"train/loss\":10.0}"));

        std::fs::write(&path, format!("{whole}{{\"step\":40,\"trai")).unwrap();
        let mut log = MetricsLog::open(&path, 20).unwrap();
        log.write(30, &metrics(30.0)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
    }

    #[test]
    fn numbers_that_are_not_finite_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        MetricsLog::open(&path, 0).unwrap().write(1, &metrics(f64::NAN)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"step\":1,\"train/loss\":\"NaN\"}\n");
    }
}
