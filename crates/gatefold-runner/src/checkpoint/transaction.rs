//! Files that appear whole or not at all, even if the power fails.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::RunError;

/// Prefix of what is being written or removed: of no use after a kill.
const UNFINISHED: &str = ".tmp-";
/// Prefix of a folder that is being replaced.
const REPLACED: &str = ".old-";

/// Makes a folder and those above it where they lack, so that they outlast a loss of power.
pub(crate) fn make_folder(place: &Path) -> Result<(), RunError> {
    if place.is_dir() {
        return Ok(());
    }
    if place.exists() {
        return Err(RunError::NotAFolder { path: place.to_path_buf() });
    }
    if let Some(parent) = place.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_folder(parent)?;
    }
    match fs::create_dir(place) {
        Ok(()) => sync_parent(place),
        // Another run may have made it meanwhile.
        Err(_) if place.is_dir() => Ok(()),
        Err(cause) => Err(RunError::io(place, "write", cause)),
    }
}

/// Writes a folder of files in one transaction: beside its place, to the disk, then renamed.
///
/// A folder already in its place is exchanged for the new one. On failure the place is as before.
pub(crate) fn write_folder(place: &Path, files: &[(String, Vec<u8>)]) -> Result<(), RunError> {
    let (unfinished, replaced) = (beside(place, UNFINISHED), beside(place, REPLACED));
    let written = write_files(&unfinished, files);
    if let Err(error) = written {
        // What was written is of no use; the disk may need the room. The first error is the cause.
        let _ = fs::remove_dir_all(&unfinished);
        return Err(error);
    }
    let replaces = place.exists();
    if replaces {
        fs::rename(place, &replaced).map_err(|e| RunError::io(place, "replace", e))?;
    }
    fs::rename(&unfinished, place).map_err(|e| RunError::io(place, "write", e))?;
    sync_parent(place)?;
    if replaces {
        fs::remove_dir_all(&replaced).map_err(|e| RunError::io(&replaced, "remove", e))?;
    }
    Ok(())
}

fn write_files(folder: &Path, files: &[(String, Vec<u8>)]) -> Result<(), RunError> {
    fs::create_dir(folder).map_err(|e| RunError::io(folder, "write", e))?;
    for (name, bytes) in files {
        write_synced(&folder.join(name), bytes)?;
    }
    sync_folder(folder)
}

/// Replaces a small file in one transaction.
pub(crate) fn write_file(place: &Path, bytes: &[u8]) -> Result<(), RunError> {
    let unfinished = beside(place, UNFINISHED);
    write_synced(&unfinished, bytes)?;
    fs::rename(&unfinished, place).map_err(|e| RunError::io(place, "write", e))?;
    sync_parent(place)
}

/// Removes a folder; whoever looks meanwhile sees all of it or nothing.
pub(crate) fn remove_folder(place: &Path) -> Result<(), RunError> {
    let unfinished = beside(place, UNFINISHED);
    fs::rename(place, &unfinished)
        .and_then(|()| fs::remove_dir_all(&unfinished))
        .map_err(|e| RunError::io(place, "remove", e))
}

/// Clears away what a killed process left half done in `folder`.
pub(crate) fn clear_leftovers(folder: &Path) -> Result<(), RunError> {
    let read = |e| RunError::io(folder, "read", e);
    for entry in fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let result = if let Some(original) = name.strip_prefix(REPLACED) {
            let original = folder.join(original);
            // Killed between the two renames: the old folder is still the valid one.
            if original.exists() { remove(&path) } else { fs::rename(&path, original) }
        } else if name.starts_with(UNFINISHED) {
            remove(&path)
        } else {
            Ok(())
        };
        result.map_err(|e| RunError::io(&path, "remove", e))?;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn beside(place: &Path, prefix: &str) -> PathBuf {
    let name = place.file_name().expect("a checkpoint has a name").to_string_lossy();
    place.with_file_name(format!("{prefix}{name}"))
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    File::create(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(|e| RunError::io(path, "write", e))
}

fn sync_folder(folder: &Path) -> Result<(), RunError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| RunError::io(folder, "write", e))
}

/// Puts what the folder of `place` lists on the disk.
pub(crate) fn sync_parent(place: &Path) -> Result<(), RunError> {
    sync_folder(place.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_one_clear_error() {
        let error = write_synced(Path::new("/dev/full"), b"state").unwrap_err();
        assert_eq!(error.to_string(), "/dev/full: cannot write: the disk is full");
    }

    #[test]
    fn a_failed_write_leaves_the_place_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("step-1");
        write_folder(&place, &[("a".into(), b"old".to_vec())]).unwrap();
        let error = write_folder(&place, &[("no/such".into(), b"new".to_vec())]).unwrap_err();
        assert!(error.to_string().contains("no/such"), "{error}");
        assert_eq!(fs::read(place.join("a")).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");

        write_folder(&place, &[("b".into(), b"new".to_vec())]).unwrap();
        assert!(!place.join("a").exists() && place.join("b").exists(), "the folder is exchanged whole");
    }

    #[test]
    fn a_process_killed_between_the_renames_leaves_the_old_folder_valid() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in [".old-step-1", ".old-step-2", "step-2", ".tmp-step-3"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::write(at(".tmp-best.json"), b"{").unwrap();
        clear_leftovers(folder.path()).unwrap();
        let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["step-1", "step-2"]);
    }
}
