//! The files of a checkpoint as bytes.

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::{Header, NamedTensor, Snapshot, digest};

/// The format this build writes and reads.
pub(super) const FORMAT: u32 = 1;

pub(super) const MANIFEST: &str = "manifest.json";
/// SHA-256 of the manifest, so that no byte of a checkpoint goes unchecked.
pub(super) const MANIFEST_DIGEST: &str = "manifest.sha256";

const CONFIG: &str = "config.toml";
const POLICY: &str = "policy.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.msgpack";

/// What is in a checkpoint, and how to tell that it is all there.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    #[serde(flatten)]
    header: Header,
    files: BTreeMap<String, FileRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct FileRecord {
    size: u64,
    sha256: String,
}

/// Why bytes are no checkpoint.
#[derive(Debug)]
pub(super) enum Unreadable {
    Damaged(String),
    Version(u32),
    Io(std::io::Error),
}

/// The files of a snapshot by name, the manifest and its digest last.
pub(super) fn encode(snapshot: &Snapshot) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![
        (CONFIG.to_string(), snapshot.config.clone().into_bytes()),
        (POLICY.to_string(), encode_tensors(&snapshot.policy)),
        (OPTIMIZER.to_string(), encode_tensors(&snapshot.optimizer)),
        (STATE.to_string(), snapshot.state.clone()),
    ];
    let record = |bytes: &[u8]| FileRecord { size: bytes.len() as u64, sha256: digest(bytes) };
    let manifest = Manifest {
        format: FORMAT,
        header: snapshot.header.clone(),
        files: files.iter().map(|(name, bytes)| (name.clone(), record(bytes))).collect(),
    };
    let manifest = serde_json::to_vec_pretty(&manifest).expect("a manifest is JSON");
    let manifest_digest = format!("{}\n", digest(&manifest)).into_bytes();
    files.push((MANIFEST.to_string(), manifest));
    files.push((MANIFEST_DIGEST.to_string(), manifest_digest));
    files
}

/// Reads a snapshot, checking every byte; `read` gives a file's bytes by name.
pub(super) fn decode(read: impl Fn(&str) -> std::io::Result<Vec<u8>>) -> Result<Snapshot, Unreadable> {
    let read = |name: &str| {
        read(name).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Unreadable::Damaged(format!("{name} is missing")),
            _ => Unreadable::Io(e),
        })
    };
    let manifest_bytes = read(MANIFEST)?;
    let manifest_digest = format!("{}\n", digest(&manifest_bytes)).into_bytes();
    if manifest_digest != read(MANIFEST_DIGEST)? {
        return Err(Unreadable::Damaged(format!("{MANIFEST} does not have its SHA-256")));
    }
    let bad_manifest = |e: serde_json::Error| Unreadable::Damaged(format!("{MANIFEST}: {e}"));
    let versioned: serde_json::Value = serde_json::from_slice(&manifest_bytes).map_err(bad_manifest)?;
    let version = versioned["format"].as_u64().unwrap_or(0) as u32;
    if version != FORMAT {
        return Err(Unreadable::Version(version));
    }
    let manifest: Manifest = serde_json::from_value(versioned).map_err(bad_manifest)?;

    let checked = |name: &str| {
        let Some(record) = manifest.files.get(name) else {
            return Err(Unreadable::Damaged(format!("{MANIFEST} does not list {name}")));
        };
        let bytes = read(name)?;
        if bytes.len() as u64 != record.size {
            return Err(Unreadable::Damaged(format!("{name} has {} of {} bytes", bytes.len(), record.size)));
        }
        if digest(&bytes) != record.sha256 {
            return Err(Unreadable::Damaged(format!("{name} does not have its SHA-256")));
        }
        Ok(bytes)
    };
    let damaged = |name: &str, reason: String| Unreadable::Damaged(format!("{name}: {reason}"));
    let config = String::from_utf8(checked(CONFIG)?).map_err(|e| damaged(CONFIG, e.to_string()))?;
    let policy = decode_tensors(&checked(POLICY)?).map_err(|e| damaged(POLICY, e))?;
    let optimizer = decode_tensors(&checked(OPTIMIZER)?).map_err(|e| damaged(OPTIMIZER, e))?;
    let state = checked(STATE)?;
    Ok(Snapshot { header: manifest.header, config, policy, optimizer, state })
}

/// The bytes of numbers, least significant first.
pub(super) fn little_endian(data: &[f32]) -> Vec<u8> {
    data.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn encode_tensors(tensors: &[NamedTensor]) -> Vec<u8> {
    let bytes: Vec<_> = tensors.iter().map(|tensor| little_endian(&tensor.data)).collect();
    let views = tensors.iter().zip(&bytes).map(|(tensor, bytes)| {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes);
        (tensor.path.as_str(), view.expect("the shape fits the data"))
    });
    safetensors::serialize(views, None).expect("tensors of distinct paths can be serialised")
}

fn decode_tensors(bytes: &[u8]) -> Result<Vec<NamedTensor>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let mut tensors = Vec::with_capacity(file.len());
    for (path, view) in file.iter() {
        if view.dtype() != Dtype::F32 {
            return Err(format!("`{path}` is {:?}, not F32", view.dtype()));
        }
        let words = view.data().chunks_exact(4);
        let data = words.map(|word| f32::from_le_bytes(word.try_into().expect("4 bytes"))).collect();
        tensors.push(NamedTensor { path: path.to_string(), shape: view.shape().to_vec(), data });
    }
    tensors.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(tensors)
}
