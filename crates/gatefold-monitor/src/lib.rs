//! What a run says about itself: metrics, monitors and their verdicts, and what happened in plain words.
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
//!
//! # Monitors
//!
//! [`Monitors::judge`] takes an iteration's metrics and says which [`Verdict`]s stand. An alarm makes the
//! iteration unhealthy; a warning or information changes nothing. Where nothing else is said, what is
//! judged is the median over a full window, so that a single spike is no verdict. Windows are `short`
//! (10 iterations), `medium` (20) and `long` (50), and start after a grace of 5; these and all bounds are
//! keys of `[monitors]` ([`MonitorConfig`]). K is the number of experts; there is no verdict about routing
//! for K = 1 or for dense, uniform and random routing.
//!
//! | monitor | metric | window | healthy | alarm | advice |
//! |---|---|---|---|---|---|
//! | `not-finite` | any | none | finite | NaN or infinite, but in `explained_variance`, `value_sd_ratio`, `value_skill` | lower `lr_scale` |
//! | `discarded-updates` | `guard/discard_rate` | 20 iterations | at most 0.1, else a warning | > 0.25 | replay the dump, lower `lr_scale` |
//! | `router-collapse` | `router/usage_entropy` | medium | 0.5-1 (fine-tune 0.4-1), else a warning | < 0.3 | raise `load_balance`, longer warmup |
//! | `gate-entropy` | `router/entropy` | medium | 0.216-0.866 of ln K | information only | raise `load_balance` |
//! | `router-chaos` | `router/entropy` | medium | < 0.866 ln K in sparse fine-tune, or falling; else a warning after 100 iterations of it | above after it had been below, or for 50 iterations while the return is not at its best | longer transition, lower temperature |
//! | `constant-router` | `router/specialisation` | medium | > 0.001 ln K in fine-tune, else a warning after 100 iterations of it | below, with gate entropy < 0.3 ln K | raise `alignment`, `diversity` |
//! | `expert-usage` | `router/usage/*` | medium | 0.4/K-1.6/K before fine-tune | information only | raise `load_balance` |
//! | `expert-dominance` | `router/usage/*` | medium | as above | > 0.8 with K >= 3 | raise `load_balance`, go back |
//! | `dead-expert` | `router/usage/*`, `router/probability/*` | 50 iterations without use | each used, else a warning | most experts, beyond the reach of balancing | raise `load_balance`, fewer experts |
//! | `router-frozen` | `router/drift` (else identical `router/usage/*`) | medium | >= 1e-6 while lr > 0 | below | raise `load_balance`, go back |
//! | `gradient-norm` | `train/grad_norm` | short | < 5, else a warning | > 10 | lower `lr_scale`, longer lr warmup |
//! | `tensor-gradient` | `train/grad_norm_max_tensor` | short | < 100 | > 100, named | lower `lr_scale`, `max_grad_norm` |
//! | `clipped-gradients` | `train/grad_clipped_fraction` | medium | < 0.95 | information only | raise `max_grad_norm` |
//! | `over-smoothing` | `gat/layer*/smoothness` | medium | > 0.05, or > 0.25 of the run's first | below both, or < 0.005 | fewer layers, freeze the GAT |
//! | `approx-kl` | `train/approx_kl` | short | < 0.05, else a warning | > 0.1 | `target_kl`, fewer epochs |
//! | `advantage-std` | `train/advantage_std` | short | > 0.001 of the return scale, else a warning (at the best return: information) | none | look at the rewards |
//! | `action-collapse` | `train/entropy`, `train/action_max_share` | short | > 0.02 of the first entropy, < 0.99 | beyond, unless slowly and at the best return | raise `entropy` |
//! | `explained-variance` | `train/explained_variance` | medium | > 0 | < -0.5 at a value error > 0.25 of the return scale | lower `lr_scale` |
//! | `value-head` | `train/value_sd_ratio`, `train/value_skill` | long | > 0.1, > 0.05 | below both, error large and not falling: stuck at the mean | raise `value_coef` |
//! | `value-loss` | `train/value_loss` | short, smoothed | error within 0.5 of the return scale of its best | above | lower `lr_scale` |
//! | `loss-rise` | `supervised/loss`, `supervised/validation_loss` | short, smoothed | within a tenth of its best | above for a short window, or +0.5 at once | lower lr, stop |
//! | `no-reward` | `rollout/reward_abs_mean` (else `rollout/return_mean`) | short if rewards were regular, else long | some reward | none | look at the environment |
//! | `stagnation` | `rollout/return_mean` | long | a rise over the first level | flat, and never rose | raise `lr_scale`, `entropy` |
//! | `score-lost` | `rollout/return_mean` | short, then long | half of the gain or more, else a warning | low for a long window and 200 episodes, not rising | go back, lower `lr_scale` |
//! | `plateau` | `rollout/return_mean` | long | rising | information only | none |
//! | `loss-variance` | `train/loss` | 50 and 100 updates | > 1e-6 | information only | raise `lr_scale` |
//! | `generalisation-gap` | `eval/return_mean`, `supervised/validation_accuracy` | none | < 0.1 | information only | more data |
//!
//! The return scale is the largest size of returns the critic has met, `sqrt(V^2 + Var R)` as a median over
//! the short window. It makes bounds meaningful whatever the unit of rewards: a value error is measured by
//! it, and so are gradient norms where rewards are not scaled (`reward/scale` = 1). PPO's whole loss is not
//! held against its best, since its value means nothing by itself.
//!
//! ```
//! use gatefold_curriculum::{Phase, Routing};
//! use gatefold_monitor::{Metrics, MonitorConfig, Monitors, Situation, explain, names};
//!
//! let config = MonitorConfig::default();
//! let mut monitors = Monitors::new(config.clone());
//! let mut events = Vec::new();
//! for iteration in 1..=30 {
//!     let mut metrics = Metrics::new();
//!     metrics.set(names::TRAIN_GRAD_NORM, if iteration < 20 { 0.8 } else { 40.0 });
//!     let situation = Situation {
//!         iteration,
//!         env_step: 512 * iteration,
//!         phase: Phase::FineTune,
//!         routing: Routing::Dense,
//!         temperature: 1.0,
//!         experts: &[],
//!         target_return: None,
//!         largest_tensor: None,
//!     };
//!     let judgement = monitors.judge(&situation, &metrics);
//!     assert_eq!(judgement.is_healthy(), iteration < 24);
//!     events.extend(judgement.events);
//! }
//! assert!(explain(&events, None, &config).contains("alarm gradient-norm, since iteration 24"));
//! ```

mod episode_window;
mod explain;
mod mean_accumulator;
mod metrics;
mod monitors;
pub mod names;
mod plan_metrics;
mod run_event;
mod target_tracker;
mod throughput;

pub use episode_window::{Episode, EpisodeWindow};
pub use explain::explain;
pub use mean_accumulator::MeanAccumulator;
pub use metrics::Metrics;
pub use monitors::{
    Judgement, MonitorConfig, MonitorError, MonitorState, Monitors, Severity, Situation, Verdict,
};
pub use plan_metrics::plan_metrics;
pub use run_event::{Happening, RunEvent};
pub use target_tracker::TargetTracker;
pub use throughput::Throughput;
