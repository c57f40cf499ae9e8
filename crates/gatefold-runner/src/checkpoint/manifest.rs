//! The manifest of a folder: what it says about itself, with size and SHA-256 of each file.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::digest;
use crate::error::RunError;

/// The format this build writes and reads.
pub(super) const FORMAT: u32 = 2;

pub(super) const MANIFEST: &str = "manifest.json";
/// SHA-256 of the manifest, so that no byte of a folder goes unchecked.
const MANIFEST_DIGEST: &str = "manifest.sha256";

/// What is in a folder, and how to tell that it is all there.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest<H> {
    format: u32,
    #[serde(flatten)]
    header: H,
    files: BTreeMap<String, FileRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct FileRecord {
    size: u64,
    sha256: String,
}

/// Why bytes are not those that were saved.
#[derive(Debug)]
pub(crate) enum Unreadable {
    Damaged(String),
    Version(u32),
    Io(io::Error),
}

impl Unreadable {
    /// The error for the folder at `path`.
    pub(crate) fn at(self, path: &Path) -> RunError {
        let path = path.to_path_buf();
        match self {
            Self::Damaged(reason) => RunError::Damaged { path, reason },
            Self::Version(found) => RunError::Version { path, found, supported: FORMAT },
            Self::Io(cause) => RunError::io(path, "read", cause),
        }
    }
}

/// The files by name, with the manifest and its digest behind them.
pub(crate) fn seal<H: Serialize>(header: &H, mut files: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    let record = |bytes: &[u8]| FileRecord { size: bytes.len() as u64, sha256: digest(bytes) };
    let manifest = Manifest {
        format: FORMAT,
        header,
        files: files.iter().map(|(name, bytes)| (name.clone(), record(bytes))).collect(),
    };
    let manifest = serde_json::to_vec_pretty(&manifest).expect("a manifest is JSON");
    let manifest_digest = format!("{}\n", digest(&manifest)).into_bytes();
    files.push((MANIFEST.to_string(), manifest));
    files.push((MANIFEST_DIGEST.to_string(), manifest_digest));
    files
}

/// A folder whose manifest is whole; `read` gives a file's bytes by name.
pub(crate) struct Sealed<H, R> {
    pub(crate) header: H,
    files: BTreeMap<String, FileRecord>,
    read: R,
}

impl<H: DeserializeOwned, R: Fn(&str) -> io::Result<Vec<u8>>> Sealed<H, R> {
    pub(crate) fn open(read: R) -> Result<Self, Unreadable> {
        let manifest = read_by(&read, MANIFEST)?;
        let manifest_digest = format!("{}\n", digest(&manifest)).into_bytes();
        if manifest_digest != read_by(&read, MANIFEST_DIGEST)? {
            return Err(Unreadable::Damaged(format!("{MANIFEST} does not have its SHA-256")));
        }
        let bad = |e: serde_json::Error| Unreadable::Damaged(format!("{MANIFEST}: {e}"));
        let versioned: serde_json::Value = serde_json::from_slice(&manifest).map_err(bad)?;
        let version = versioned["format"].as_u64().unwrap_or(0) as u32;
        if version != FORMAT {
            return Err(Unreadable::Version(version));
        }
        let Manifest { header, files, .. } = serde_json::from_value(versioned).map_err(bad)?;
        Ok(Self { header, files, read })
    }

    /// The bytes of a file, checked.
    pub(crate) fn file(&self, name: &str) -> Result<Vec<u8>, Unreadable> {
        let Some(record) = self.files.get(name) else {
            return Err(Unreadable::Damaged(format!("{MANIFEST} does not list {name}")));
        };
        let bytes = read_by(&self.read, name)?;
        if bytes.len() as u64 != record.size {
            return Err(Unreadable::Damaged(format!("{name} has {} of {} bytes", bytes.len(), record.size)));
        }
        if digest(&bytes) != record.sha256 {
            return Err(Unreadable::Damaged(format!("{name} does not have its SHA-256")));
        }
        Ok(bytes)
    }

    /// A file's content as `decode` reads it.
    pub(crate) fn decoded<T>(
        &self,
        name: &str,
        decode: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<T, Unreadable> {
        decode(&self.file(name)?).map_err(|reason| Unreadable::Damaged(format!("{name}: {reason}")))
    }
}

fn read_by(read: impl Fn(&str) -> io::Result<Vec<u8>>, name: &str) -> Result<Vec<u8>, Unreadable> {
    read(name).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Unreadable::Damaged(format!("{name} is missing")),
        _ => Unreadable::Io(e),
    })
}
