//! Decides numbers from progress and health: phases, schedules, plans, the fallback ladder.
//!
//! A run starts with every expert in play (warmup, softmax routing), moves linearly to sparse routing
//! (transition) and finishes there (fine-tune). [`Curriculum::plan`] turns the run's [`Progress`] into
//! one [`Plan`] per iteration; nothing else in the framework reads step counts, so every coefficient
//! and the learning rate have exactly one writer. A [`Ladder`] takes from the plan what a run in trouble
//! should do without: `ladder.limit(curriculum.plan(progress))`. No tensors, no clock, no randomness, no
//! I/O.
//!
//! ```
//! use gatefold_curriculum::{Curriculum, CurriculumConfig, Phase, Progress, Routing};
//!
//! let mut curriculum = Curriculum::new(CurriculumConfig::default(), 256, 4)?;
//! let plan = curriculum.plan(Progress { env_steps: 400_000, total_steps: 1_000_000, episodes: 0 });
//! assert_eq!(plan.phase, Phase::Transition);
//! assert_eq!(plan.routing, Routing::Blend { weight: 0.5 });
//! assert_eq!(plan.temperature, 0.75);
//! let lr = plan.learning_rate.at(20_000); // per optimizer step
//! assert!(lr > 0.0 && lr < 5e-5);
//! # Ok::<(), gatefold_curriculum::CurriculumError>(())
//! ```

mod config;
mod curriculum;
mod experts_kept;
mod health;
mod ladder;
mod ladder_config;
mod learning_rate;
mod optional_losses;
mod phase_tables;
mod plan;
mod routing_choice;
mod rung;
mod transition_table;
mod validation;

pub use config::{CurriculumConfig, Schedule, Unit};
pub use curriculum::{Curriculum, CurriculumState, PhaseEntry, PlannedPhase, Progress};
pub use experts_kept::experts_kept;
pub use health::{Health, Held};
pub use ladder::{Ladder, LadderState, LadderStep, Moment, StepBy};
pub use ladder_config::LadderConfig;
pub use learning_rate::{Decay, LearningRate};
pub use optional_losses::{OptionalConfig, PetSchedule};
pub use phase_tables::{ConstantConfig, EntropySign, FineTuneConfig, WarmupConfig};
pub use plan::{Coefficients, Phase, Plan, Routing};
pub use routing_choice::{FixedRouting, RoutingChoice};
pub use rung::{Applicable, Rung};
pub use transition_table::TransitionConfig;
pub use validation::CurriculumError;
