//! The experiment runner: configuration, the loop, checkpoints, reports.
//!
//! [`layers::load`] turns an experiment file into an [`ExperimentConfig`], [`run_dir::RunDir`] is the
//! folder a run writes into, [`checkpoint::CheckpointStore`] saves and finds states as transactions,
//! and [`events::Reporter`] is told what happens. Nothing here prints.

mod agreement;
mod assembly;
mod bench;
#[cfg(feature = "chaos")]
pub mod chaos;
pub mod checkpoint;
mod config;
mod contradiction;
mod dump;
mod error;
mod evaluate;
mod event_log;
pub mod events;
mod experiment;
mod expert_use;
mod explain;
mod faster_device;
mod footprint;
mod guard;
mod json_lines;
pub mod layers;
mod learned;
mod logs;
mod metrics_log;
mod options;
mod overrides;
mod presets;
mod replay;
mod report;
mod resume_keys;
pub mod run_dir;
mod schema;
mod signals;
mod simd;
mod source_text;
mod state;
mod summary;

pub use bench::{BenchResult, Until, bench_stepping, bench_training, preset_on_cartpole};
pub use config::{EnvConfig, EvalConfig, ExperimentConfig, RunConfig};
pub use error::{ConfigError, RunError};
pub use evaluate::evaluate;
pub use event_log::EventLog;
pub use experiment::{RungChange, StepFrom, apply_rung, resume, train};
pub use explain::explain;
pub use faster_device::{FasterDevice, faster_device};
pub use metrics_log::MetricsLog;
pub use options::{Device, RunOptions};
pub use presets::Preset;
pub use replay::{Replay, replay_update};
pub use resume_keys::{CHANGEABLE, check_resumable, config_hash};
pub use signals::Stop;
pub use simd::check_simd_request;
pub use summary::Summary;
