//! Whole runs on the disk: copies of their folders, and what is compared of two of them.

use std::fs;
use std::path::{Path, PathBuf};

use gatefold_runner::events::{Event, Reporter};
use serde_json::{Map, Value};

/// Copies the run directory at every checkpoint: what a SIGKILL at that moment leaves behind.
pub struct Copies {
    run: PathBuf,
    to: PathBuf,
    /// Environment steps of each checkpoint and the copy that was taken then, in order.
    pub taken: Vec<(u64, PathBuf)>,
}

impl Copies {
    /// Copies the run directory `run` into folders below `to`.
    pub fn new(run: &Path, to: &Path) -> Self {
        Self { run: run.to_path_buf(), to: to.to_path_buf(), taken: Vec::new() }
    }
}

impl Reporter for Copies {
    fn event(&mut self, event: &Event) {
        if let Event::CheckpointSaved { step, best: false, .. } = event {
            let copy = self.to.join(format!("at-{step}"));
            copy_folder(&self.run, &copy);
            self.taken.push((*step, copy));
        }
    }
}

/// Copies a run directory. Its writer may go on meanwhile: a folder that it renames has vanished, as it would
/// for a kill.
pub fn copy_folder(from: &Path, to: &Path) {
    let vanished = |e: std::io::Error| assert_eq!(e.kind(), std::io::ErrorKind::NotFound, "{e}");
    fs::create_dir_all(to).unwrap();
    let entries = fs::read_dir(from).map(|entries| entries.map(Result::unwrap).collect::<Vec<_>>());
    for entry in entries.map_err(vanished).unwrap_or_default() {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_folder(&source, &target);
        } else {
            fs::copy(source, target).map(drop).unwrap_or_else(vanished);
        }
    }
}

/// The lines of a run's metrics without the clock's.
pub fn metrics_without_time(run: &Path) -> Vec<Map<String, Value>> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| {
        let mut metrics: Map<_, _> = serde_json::from_str(line).unwrap();
        metrics.retain(|name, _| !name.starts_with("time/"));
        metrics
    });
    lines.collect()
}
