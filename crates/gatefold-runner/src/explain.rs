//! What happened in a run, told from its files. Nothing here writes, so a running run can be asked.

use std::fs;
use std::path::Path;

use gatefold_env::EnvEntry;
use gatefold_monitor::{Metrics, RunEvent};
use serde::de::DeserializeOwned;

use crate::error::RunError;
use crate::run_dir::{EVENTS, METRICS, read_config};

/// What fired in a run, when and on what evidence, what was done about it, and what to do next.
///
/// Thresholds are those of the run's own `[monitors]`.
pub fn explain(run: &Path, entries: &[EnvEntry]) -> Result<String, RunError> {
    let config = read_config(run, &[], entries)?;
    let path = run.join(EVENTS);
    let text = match fs::read_to_string(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(RunError::NoEvents { path: run.to_path_buf() });
        }
        read => read.map_err(|e| RunError::io(&path, "read", e))?,
    };
    let lines = whole_lines(&text).enumerate();
    let events: Vec<RunEvent> = lines.map(|(i, line)| parse(&path, i, line)).collect::<Result<_, _>>()?;

    let path = run.join(METRICS);
    let text = match fs::read_to_string(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.map_err(|e| RunError::io(&path, "read", e))?,
    };
    let last = whole_lines(&text).enumerate().last();
    let last: Option<Metrics> = last.map(|(i, line)| parse(&path, i, line)).transpose()?;
    Ok(gatefold_monitor::explain(&events, last.as_ref(), &config.monitors))
}

/// The lines without the last one, if that is being written right now.
fn whole_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'))
}

fn parse<T: DeserializeOwned>(path: &Path, index: usize, line: &str) -> Result<T, RunError> {
    serde_json::from_str(line).map_err(|e| RunError::BadLine {
        path: path.to_path_buf(),
        line: index + 1,
        reason: e.to_string(),
    })
}
