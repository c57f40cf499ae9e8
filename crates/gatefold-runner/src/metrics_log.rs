//! `metrics.jsonl`: one JSON object per iteration.

use std::path::Path;

use gatefold_monitor::Metrics;
use serde_json::{Map, Value};

use crate::error::RunError;
use crate::json_lines::JsonLines;

/// The key in each line by which a resumed run knows what to keep.
const STEP: &str = "step";

/// The metrics file of a run, open for appending.
#[derive(Debug)]
pub struct MetricsLog(JsonLines);

impl MetricsLog {
    /// Opens the file for a run that stands at `step` environment steps; 0 for a new one.
    ///
    /// Lines of later steps, written between the checkpoint and the end of the process, are cut off,
    /// and so is a line that was written only in part: the resumed run writes them again.
    pub fn open(path: &Path, step: u64) -> Result<Self, RunError> {
        JsonLines::open(path, STEP, step).map(Self)
    }

    /// Appends one line: `{"step": step, ...}`. Numbers that are not finite become the strings
    /// `"NaN"`, `"inf"` and `"-inf"`: nothing hides them.
    pub fn write(&mut self, step: u64, metrics: &Metrics) -> Result<(), RunError> {
        let mut line = Map::from_iter([(STEP.to_string(), step.into())]);
        match serde_json::to_value(metrics).expect("metrics are JSON") {
            Value::Object(metrics) => line.extend(metrics),
            other => unreachable!("metrics are an object, not {other}"),
        }
        self.0.write(&Value::Object(line))
    }

    /// What puts the lines written so far on the disk, to be carried out before a checkpoint of
    /// their step can be seen: a resumed run cuts lines off, but cannot write lost ones again.
    pub fn sync(&self) -> Result<impl FnOnce() -> Result<(), RunError> + Send + use<>, RunError> {
        self.0.sync()
    }
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
