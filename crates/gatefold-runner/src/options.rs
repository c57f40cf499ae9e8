//! What a run is told beside its configuration: nothing here changes what is computed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where tensors live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// The processor, by Burn's Flex backend with fused kernels.
    #[default]
    Cpu,
    /// An NVIDIA GPU; needs a build with `--features cuda` and a driver.
    Cuda,
}

impl Device {
    /// `cpu` or `cuda`, as the command line and the summary write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

/// What a run is told beside its configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOptions {
    /// The run directory to make; `runs/<name>/<timestamp>-s<seed>` if not set.
    pub run_dir: Option<PathBuf>,
    /// Where tensors live.
    pub device: Device,
    /// Worker threads (at least 1). Results do not depend on it.
    pub threads: usize,
    /// Source revision of the build, written into the run; `unknown` outside a repository.
    pub revision: String,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            run_dir: None,
            device: Device::Cpu,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            revision: "unknown".to_string(),
        }
    }
}
