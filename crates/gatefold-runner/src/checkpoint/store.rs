//! The checkpoints of a run that is being written.

use std::fs;
use std::path::{Path, PathBuf};

use super::Snapshot;
use super::find::{BEST, Best, Found, best, folder_name, latest, list, load};
use super::format::encode;
use super::transaction::{clear_leftovers, make_folder, remove_folder, write_file, write_folder};
use crate::error::RunError;

/// Saves snapshots as transactions and keeps the newest few and the best.
#[derive(Debug, Clone)]
pub struct CheckpointStore {
    folder: PathBuf,
    keep: usize,
}

impl CheckpointStore {
    /// Opens a run's folder of checkpoints, made if absent, and clears away what a killed process
    /// left half written. The caller holds the run's lock.
    pub fn open(folder: &Path, keep: usize) -> Result<Self, RunError> {
        assert!(keep > 0, "at least one checkpoint is kept");
        make_folder(folder)?;
        clear_leftovers(folder)?;
        Ok(Self { folder: folder.to_path_buf(), keep })
    }

    /// Saves a snapshot in one transaction, then removes what is neither among the newest few nor
    /// the best. If it fails, everything saved before is intact.
    pub fn save(&mut self, snapshot: &Snapshot) -> Result<PathBuf, RunError> {
        let path = self.path(snapshot.header.env_steps);
        write_folder(&path, &encode(snapshot))?;
        self.prune()?;
        Ok(path)
    }

    /// Names a saved checkpoint the best so far and says where it is.
    pub fn mark_best(&mut self, step: u64, return_mean: f64) -> Result<PathBuf, RunError> {
        let path = self.path(step);
        assert!(path.is_dir(), "the best checkpoint has been saved");
        let record = serde_json::to_vec(&Best { step, return_mean }).expect("a record is JSON");
        write_file(&self.folder.join(BEST), &record)?;
        Ok(path)
    }

    /// Forgets the best checkpoint if it is the one at `step`, which is about to be changed; says whether
    /// it was.
    pub fn forget_best(&mut self, step: u64) -> Result<bool, RunError> {
        let is_best = self.best()?.is_some_and(|best| best.step == step);
        if is_best {
            let path = self.folder.join(BEST);
            fs::remove_file(&path).map_err(|e| RunError::io(&path, "remove", e))?;
        }
        Ok(is_best)
    }

    /// The newest whole checkpoint; damaged newer ones are passed over with a warning each.
    pub fn latest(&self) -> Result<Found, RunError> {
        latest(&self.folder)
    }

    /// The best checkpoint so far, if an evaluation has named one.
    pub fn best(&self) -> Result<Option<Best>, RunError> {
        best(&self.folder)
    }

    /// Prepares for going on from `step`: later checkpoints, all damaged, are renamed out of the way,
    /// and a best one that is among them or cannot be read is forgotten. One warning for each.
    pub fn rewind(&mut self, step: u64) -> Result<Vec<String>, RunError> {
        let mut warnings = Vec::new();
        for (later, path) in list(&self.folder)?.into_iter().filter(|(at, _)| *at > step) {
            let aside = self.folder.join(format!("damaged-{}", folder_name(later)));
            if aside.exists() {
                fs::remove_dir_all(&aside).map_err(|e| RunError::io(&aside, "remove", e))?;
            }
            fs::rename(&path, &aside).map_err(|e| RunError::io(&path, "rename", e))?;
            warnings.push(format!("{}: set aside as {}", path.display(), aside.display()));
        }
        let forget = match self.best() {
            Ok(Some(best)) => best.step > step || load(&self.path(best.step)).is_err(),
            Ok(None) => false,
            Err(RunError::Damaged { .. }) => true,
            Err(error) => return Err(error),
        };
        if forget {
            let path = self.folder.join(BEST);
            fs::remove_file(&path).map_err(|e| RunError::io(&path, "remove", e))?;
            warnings.push(format!("{}: its checkpoint cannot be used; forgotten", path.display()));
        }
        Ok(warnings)
    }

    fn path(&self, step: u64) -> PathBuf {
        self.folder.join(folder_name(step))
    }

    fn prune(&self) -> Result<(), RunError> {
        let best = self.best()?.map(|best| best.step);
        for (step, path) in list(&self.folder)?.into_iter().skip(self.keep) {
            if Some(step) != best {
                remove_folder(&path)?;
            }
        }
        Ok(())
    }
}
