//! Saving beside the loop: a thread encodes, hashes and writes, and the loop goes on.

use std::path::PathBuf;
use std::thread::{Builder, JoinHandle};

use super::{CheckpointStore, Snapshot};
use crate::error::RunError;

/// A checkpoint that has reached the disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// Where.
    pub path: PathBuf,
    /// Environment steps it holds.
    pub step: u64,
}

/// Writes one checkpoint at a time on a thread of its own.
///
/// What a save meets is told by the next [`save`](Self::save) or [`flush`](Self::flush), which wait
/// for it. Dropping the writer waits too, so that no save is cut short by the end of the process.
#[derive(Debug)]
pub struct CheckpointWriter {
    store: CheckpointStore,
    in_flight: Option<JoinHandle<Result<Saved, RunError>>>,
}

impl CheckpointWriter {
    /// A writer with nothing in flight.
    pub fn new(store: CheckpointStore) -> Self {
        Self { store, in_flight: None }
    }

    /// Begins to save `snapshot`, once the save before is on disk; returns that one.
    ///
    /// `first` is carried out on the writer's thread before anything of this checkpoint can be seen,
    /// for whatever a checkpoint must not outrun. Fails if the save before did: then nothing is begun.
    pub fn save(
        &mut self,
        snapshot: Snapshot,
        first: impl FnOnce() -> Result<(), RunError> + Send + 'static,
    ) -> Result<Option<Saved>, RunError> {
        let before = self.flush()?;
        let mut store = self.store.clone();
        let write = move || {
            first()?;
            let path = store.save(&snapshot)?;
            Ok(Saved { path, step: snapshot.header.env_steps })
        };
        let thread = Builder::new().name("checkpoint".to_string()).spawn(write);
        let thread =
            thread.map_err(|e| RunError::Stopped(format!("no thread can be started to save: {e}")))?;
        self.in_flight = Some(thread);
        Ok(before)
    }

    /// Waits for the save in flight, if there is one, and returns it.
    pub fn flush(&mut self) -> Result<Option<Saved>, RunError> {
        let Some(thread) = self.in_flight.take() else { return Ok(None) };
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map(Some)
    }

    /// The checkpoints. Panics while a save is in flight, which is between a save and the next flush.
    pub fn store(&mut self) -> &mut CheckpointStore {
        assert!(self.in_flight.is_none(), "the save in flight has been waited for");
        &mut self.store
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        if let Some(thread) = self.in_flight.take() {
            // Whoever drops a writer unflushed has a graver error to tell.
            let _ = thread.join();
        }
    }
}
