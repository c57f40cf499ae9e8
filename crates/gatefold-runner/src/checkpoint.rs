//! Saved states of a run: what is in one, how one is written as a transaction, how one is found.
//!
//! A checkpoint is a folder `step-000000000123` with the learned tensors (`policy.safetensors`,
//! `optimizer.safetensors`), everything else that runs (`state.msgpack`), the configuration
//! (`config.toml`) and a manifest with the size and SHA-256 of each file.

mod find;
pub(crate) mod format;
pub(crate) mod manifest;
mod store;
mod transaction;
mod writer;

use std::fmt::Write as _;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub(crate) use find::FOLDER;
pub use find::{Best, Found, Verdict, best, hash, latest, list, load, open, open_best, verify};
pub use gatefold_optim::NamedTensor;
pub use store::CheckpointStore;
pub(crate) use transaction::{
    clear_leftovers, make_folder, remove_folder, sync_parent, write_file, write_folder,
};
pub use writer::{CheckpointWriter, Saved};

/// What a checkpoint says about itself. None of it is part of its hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Environment steps taken.
    pub env_steps: u64,
    /// Iterations done.
    pub iteration: u64,
    /// [`config_hash`](crate::config_hash) of the run's configuration.
    pub config_hash: String,
    /// SIMD level of the kernels; another level may compute other bits.
    pub simd_level: String,
    /// Source revision of the build.
    pub revision: String,
    /// Seconds of training so far, over all sittings.
    pub wall_s: f64,
    /// Seconds of training until the target return was reached, if it was.
    pub seconds_to_target: Option<f64>,
    /// Mean return of the evaluation of this very state, if there was one.
    pub eval_return_mean: Option<f64>,
}

/// Everything a run needs in order to go on as if it had never stopped.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// What the checkpoint says about itself.
    pub header: Header,
    /// The resolved configuration as TOML.
    pub config: String,
    /// Parameters, in path order.
    pub policy: Vec<NamedTensor>,
    /// Moments of the optimizer, in path order.
    pub optimizer: Vec<NamedTensor>,
    state: Vec<u8>,
}

impl Snapshot {
    /// A snapshot of `state` and the learned tensors, which are put in path order.
    ///
    /// Panics if a path occurs twice or a shape does not fit its data.
    pub fn new<S: Serialize>(
        header: Header,
        config: String,
        mut policy: Vec<NamedTensor>,
        mut optimizer: Vec<NamedTensor>,
        state: &S,
    ) -> Self {
        for tensors in [&mut policy, &mut optimizer] {
            tensors.sort_by(|a, b| a.path.cmp(&b.path));
            for tensor in tensors.iter() {
                let size: usize = tensor.shape.iter().product();
                assert_eq!(size, tensor.data.len(), "`{}` has shape {:?}", tensor.path, tensor.shape);
            }
            for pair in tensors.windows(2) {
                assert_ne!(pair[0].path, pair[1].path, "two tensors of one path");
            }
        }
        let state = rmp_serde::to_vec_named(state).expect("the running state can be serialised");
        Self { header, config, policy, optimizer, state }
    }

    /// The running state. Fails with the reason if the saved one has another form.
    pub fn state<S: DeserializeOwned>(&self) -> Result<S, String> {
        rmp_serde::from_slice(&self.state).map_err(|e| format!("state.msgpack: {e}"))
    }

    /// SHA-256 over (path, shape, bytes) of all tensors in path order and the bytes of the state.
    ///
    /// Equal for two runs exactly if they will go on equally; the header does not count.
    pub fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for (list, tensors) in [("policy", &self.policy), ("optimizer", &self.optimizer)] {
            part(list.as_bytes());
            for tensor in tensors {
                part(tensor.path.as_bytes());
                part(&tensor.shape.iter().flat_map(|&size| (size as u64).to_le_bytes()).collect::<Vec<_>>());
                part(&format::little_endian(&tensor.data));
            }
        }
        part(b"state");
        part(&self.state);
        hex(&hasher.finalize())
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes any text");
        text
    })
}

/// SHA-256 of a file's bytes.
fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests;
