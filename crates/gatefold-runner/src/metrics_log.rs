//! `metrics.jsonl`: one JSON object per iteration.

use std::path::Path;

use gatefold_curriculum::Moment;
use gatefold_monitor::{Metrics, names};
use serde_json::{Map, Value};

use crate::error::RunError;
use crate::json_lines::{JsonLines, Keys};

/// The environment step in each line.
const STEP: &str = "step";

/// The metrics file of a run, open for appending.
#[derive(Debug)]
pub struct MetricsLog(JsonLines);

impl MetricsLog {
    /// Opens the file for a run that stands at `at`.
    ///
    /// Later lines, written between the checkpoint and the end of the process, are cut off, and so is a
    /// line that was written only in part: the resumed run writes them again.
    pub fn open(path: &Path, at: Moment) -> Result<Self, RunError> {
        JsonLines::open(path, Keys { env_step: STEP, iteration: names::TIME_ITERATION }, at).map(Self)
    }

    /// Appends one line: `{"step": step, ...}`, with `time/iteration` among the metrics. Numbers that are not finite become the strings
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

    fn at(iteration: u64) -> Moment {
        Moment { iteration, env_step: 10 * iteration }
    }

    fn metrics(iteration: u32, loss: f64) -> Metrics {
        let mut metrics = Metrics::new();
        metrics.set(names::TIME_ITERATION, f64::from(iteration));
        metrics.set("train/loss", loss);
        metrics
    }

    #[test]
    fn a_resumed_run_cuts_later_and_torn_lines_and_writes_them_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = MetricsLog::open(&path, at(0)).unwrap();
        // The third iteration was discarded before its first step.
        for (iteration, step) in [(1, 10), (2, 20), (3, 20), (4, 30)] {
            log.write(step, &metrics(iteration, f64::from(iteration))).unwrap();
        }
        let whole = std::fs::read_to_string(&path).unwrap();
        assert_eq!(whole.lines().next(), Some("{\"step\":10,\"time/iteration\":1.0,\"train/loss\":1.0}"));

        std::fs::write(&path, format!("{whole}{{\"step\":40,\"trai")).unwrap();
        let mut log = MetricsLog::open(&path, at(2)).unwrap();
        log.write(20, &metrics(3, 3.0)).unwrap();
        log.write(30, &metrics(4, 4.0)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
    }

    #[test]
    fn numbers_that_are_not_finite_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        MetricsLog::open(&path, at(0)).unwrap().write(1, &metrics(1, f64::NAN)).unwrap();
        let line = "{\"step\":1,\"time/iteration\":1.0,\"train/loss\":\"NaN\"}\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), line);
    }
}
