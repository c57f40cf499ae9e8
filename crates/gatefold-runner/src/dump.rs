//! Dumps: all that one failed update was made of, so that it can be run again.
//!
//! A dump is a folder `dumps/iteration-000123` of the run, named after the iteration as events and metrics
//! count it. Its files are those of a checkpoint, with
//! parameters and moments from before the update, and beside them the whole rollout
//! (`batch.safetensors`) and `dump.json`, which tells a person what happened. What
//! [`replay_update`](crate::replay_update) reads is exact to the bit; `dump.json` is for reading only.

mod arrays;
mod sheet;

use std::fs;
use std::path::{Path, PathBuf};

use gatefold_curriculum::Plan;
use gatefold_env::{EnvEntry, EnvSpec};
use gatefold_optim::NamedTensor;
use gatefold_policy::Shape;
use gatefold_ppo::{Batch, UpdateError};
use serde::{Deserialize, Serialize};

use crate::assembly::build_envs;
use crate::checkpoint::format::{
    CONFIG, OPTIMIZER, POLICY, STATE, decode_tensors, decode_text, encode_tensors,
};
use crate::checkpoint::manifest::{Sealed, seal};
use crate::checkpoint::{clear_leftovers, make_folder, remove_folder, write_folder};
use crate::{ExperimentConfig, RunError, config_hash, layers};
pub(crate) use sheet::{Span, places, spans};

/// Name of the folder of dumps in a run directory.
pub(crate) const FOLDER: &str = "dumps";
const BATCH: &str = "batch.safetensors";
const SHEET: &str = "dump.json";
/// Dumps that are kept of a run, the newest ones.
const KEPT: usize = 5;

/// What an update that failed was made of.
pub(crate) struct Dump<'a> {
    pub(crate) config: &'a ExperimentConfig,
    pub(crate) shape: &'a Shape,
    /// Iterations done before this one: the index of its random streams.
    pub(crate) iterations_before: u64,
    /// Environment steps taken, the rollout included.
    pub(crate) env_steps: u64,
    /// Optimizer steps taken before the update.
    pub(crate) optimizer_steps: u64,
    pub(crate) plan: &'a Plan,
    /// Parameters before the update.
    pub(crate) policy: Vec<NamedTensor>,
    /// Moments before the update.
    pub(crate) optimizer: Vec<NamedTensor>,
    pub(crate) batch: &'a Batch,
    pub(crate) failure: &'a UpdateError,
    /// The fault that was put in on purpose, if one was.
    pub(crate) fault: Option<String>,
}

/// What a dump's manifest says about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) iterations_before: u64,
    pub(crate) env_steps: u64,
    pub(crate) optimizer_steps: u64,
    pub(crate) config_hash: String,
    pub(crate) simd_level: String,
}

/// What a dump holds beside tensors and its header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) shape: Shape,
    pub(crate) plan: Plan,
    pub(crate) failure: UpdateError,
    pub(crate) fault: Option<String>,
}

/// A dump read back, with its environment's sizes.
pub(crate) struct Loaded {
    pub(crate) config: ExperimentConfig,
    pub(crate) spec: EnvSpec,
    pub(crate) header: Header,
    pub(crate) state: State,
    pub(crate) policy: Vec<NamedTensor>,
    pub(crate) optimizer: Vec<NamedTensor>,
    pub(crate) batch: Batch,
}

/// Writes a dump into a run directory as one transaction, says where, and removes the oldest beyond
/// [`KEPT`].
pub(crate) fn write_dump(run_dir: &Path, dump: &Dump) -> Result<PathBuf, RunError> {
    let header = Header {
        iterations_before: dump.iterations_before,
        env_steps: dump.env_steps,
        optimizer_steps: dump.optimizer_steps,
        config_hash: config_hash(dump.config),
        simd_level: gatefold_ops::simd_level().to_string(),
    };
    let state = State {
        shape: dump.shape.clone(),
        plan: *dump.plan,
        failure: dump.failure.clone(),
        fault: dump.fault.clone(),
    };
    let sheet = sheet::text(dump, &header);
    let files = [
        (CONFIG, layers::to_toml(dump.config).into_bytes()),
        (POLICY, encode_tensors(&dump.policy)),
        (OPTIMIZER, encode_tensors(&dump.optimizer)),
        (STATE, rmp_serde::to_vec_named(&state).expect("the state of a dump can be serialised")),
        (BATCH, arrays::encode(dump.batch)),
        (SHEET, sheet.into_bytes()),
    ];
    let folder = run_dir.join(FOLDER);
    make_folder(&folder)?;
    clear_leftovers(&folder)?;
    let path = folder.join(format!("iteration-{:06}", dump.iterations_before + 1));
    write_folder(&path, &seal(&header, files.map(|(name, bytes)| (name.to_string(), bytes)).to_vec()))?;
    for old in list(&folder)?.into_iter().skip(KEPT) {
        remove_folder(&old)?;
    }
    Ok(path)
}

/// All dumps in a folder, newest first.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, RunError> {
    let read = |e| RunError::io(folder, "read", e);
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(iteration) = name.strip_prefix("iteration-").and_then(|digits| digits.parse().ok()) {
            found.push((iteration, path));
        }
    }
    found.sort_by_key(|(iteration, _)| std::cmp::Reverse(*iteration));
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Reads a dump and checks every byte of it.
pub(crate) fn load(path: &Path, entries: &[EnvEntry]) -> Result<Loaded, RunError> {
    if !path.join(SHEET).is_file() {
        return Err(no_dump(path));
    }
    let at = |unreadable: crate::checkpoint::manifest::Unreadable| unreadable.at(path);
    let sealed = Sealed::<Header, _>::open(|name| fs::read(path.join(name))).map_err(at)?;
    sealed.file(SHEET).map_err(at)?;
    let text = sealed.decoded(CONFIG, decode_text).map_err(at)?;
    let config = layers::resolve(&path.join(CONFIG).display().to_string(), &text, &[], entries)?;
    let spec = build_envs(&config, entries, 1, config.run.seed)?.spec().clone();
    let state = |bytes: &[u8]| rmp_serde::from_slice::<State>(bytes).map_err(|e| e.to_string());
    Ok(Loaded {
        state: sealed.decoded(STATE, state).map_err(at)?,
        policy: sealed.decoded(POLICY, decode_tensors).map_err(at)?,
        optimizer: sealed.decoded(OPTIMIZER, decode_tensors).map_err(at)?,
        batch: sealed.decoded(BATCH, |bytes| arrays::decode(bytes, &spec)).map_err(at)?,
        header: sealed.header,
        config,
        spec,
    })
}

fn no_dump(path: &Path) -> RunError {
    let newest = |folder: PathBuf| list(&folder).ok()?.into_iter().next();
    let newest = newest(path.join(FOLDER)).or_else(|| newest(path.to_path_buf()));
    let reason = match (newest, path.exists()) {
        (Some(newest), _) => format!("it holds dumps, the newest is {}", newest.display()),
        (None, true) => format!("there is no {SHEET} in it"),
        (None, false) => "it does not exist".to_string(),
    };
    RunError::NotADump { path: path.to_path_buf(), reason }
}
