//! The files of a checkpoint as bytes.

use std::io;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::manifest::{Sealed, Unreadable, seal};
use super::{Header, NamedTensor, Snapshot};

pub(crate) const CONFIG: &str = "config.toml";
pub(crate) const POLICY: &str = "policy.safetensors";
pub(crate) const OPTIMIZER: &str = "optimizer.safetensors";
pub(crate) const STATE: &str = "state.msgpack";

/// The files of a snapshot by name, the manifest and its digest last.
pub(super) fn encode(snapshot: &Snapshot) -> Vec<(String, Vec<u8>)> {
    let files = vec![
        (CONFIG.to_string(), snapshot.config.clone().into_bytes()),
        (POLICY.to_string(), encode_tensors(&snapshot.policy)),
        (OPTIMIZER.to_string(), encode_tensors(&snapshot.optimizer)),
        (STATE.to_string(), snapshot.state.clone()),
    ];
    seal(&snapshot.header, files)
}

/// Reads a snapshot, checking every byte; `read` gives a file's bytes by name.
pub(super) fn decode(read: impl Fn(&str) -> io::Result<Vec<u8>>) -> Result<Snapshot, Unreadable> {
    let sealed = Sealed::<Header, _>::open(read)?;
    Ok(Snapshot {
        config: sealed.decoded(CONFIG, decode_text)?,
        policy: sealed.decoded(POLICY, decode_tensors)?,
        optimizer: sealed.decoded(OPTIMIZER, decode_tensors)?,
        state: sealed.file(STATE)?,
        header: sealed.header,
    })
}

pub(crate) fn decode_text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|e| e.to_string())
}

/// The bytes of numbers, least significant first.
pub(crate) fn little_endian(data: &[f32]) -> Vec<u8> {
    data.iter().flat_map(|number| number.to_le_bytes()).collect()
}

pub(crate) fn encode_tensors(tensors: &[NamedTensor]) -> Vec<u8> {
    let bytes: Vec<_> = tensors.iter().map(|tensor| little_endian(&tensor.data)).collect();
    let views = tensors.iter().zip(&bytes).map(|(tensor, bytes)| {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes);
        (tensor.path.as_str(), view.expect("the shape fits the data"))
    });
    safetensors::serialize(views, None).expect("tensors of distinct paths can be serialised")
}

pub(crate) fn decode_tensors(bytes: &[u8]) -> Result<Vec<NamedTensor>, String> {
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
