//! What a run says about itself: metric names, values, windows over episodes and means over updates.
//!
//! Pure data: no tensors, no clock, no I/O. Names are in [`names`], in one file, so that a sink, a
//! report and a test agree on them. Values are [`Metrics`]; a NaN in them is kept and written as such.
//!
//! ```
//! use gatefold_monitor::{Episode, EpisodeWindow, TargetTracker, names};
//!
//! let mut window = EpisodeWindow::default();
//! let mut target = TargetTracker::new(90.0);
//! for step in 1..=120 {
//!     window.push(Episode { total_return: step as f64, score: 0.0, length: 10 });
//!     target.observe(&window, step * 10);
//! }
//! // The last 100 returns are 21, 22, ..., 120.
//! assert_eq!(window.metrics().get(names::ROLLOUT_RETURN_MEAN), Some(70.5));
//! assert_eq!(target.reached_at(), None);
//! ```

mod episode_window;
mod mean_accumulator;
mod metrics;
mod monitors;
pub mod names;
mod plan_metrics;
mod run_event;
mod target_tracker;
mod throughput;

pub use episode_window::{Episode, EpisodeWindow};
pub use mean_accumulator::MeanAccumulator;
pub use metrics::Metrics;
pub use monitors::{
    Judgement, MonitorConfig, MonitorError, MonitorState, Monitors, Severity, Situation, Verdict,
};
pub use plan_metrics::plan_metrics;
pub use run_event::{Happening, RunEvent};
pub use target_tracker::TargetTracker;
pub use throughput::Throughput;
