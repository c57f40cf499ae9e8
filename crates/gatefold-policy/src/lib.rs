//! The composition: encoder, graph attention, router, experts and critic.
//!
//! [`ActorCritic`] is one module for the full method and its baselines; [`PolicyConfig`] says which.
//! [`Choice::rows`] draws actions on the host from the logits it returns.

mod actor_critic;
mod choice;
mod config;
mod cross_attention;
mod evaluation;
mod experts;
mod flat;
mod mlp;
mod observation;
mod scaling;
mod surgery;

pub use actor_critic::ActorCritic;
pub use choice::{Choice, ChoiceError, Pick};
pub use config::{Architecture, Nonlinearity, PolicyConfig, PolicyError};
pub use evaluation::{Evaluation, RoutingInput, Wanted};
pub use experts::Experts;
pub use flat::{Acted, Acting, FlatNetwork, FlatPolicy, SecondValues, Values};
pub use mlp::Mlp;
pub use observation::Observation;
pub use scaling::ObservationScaling;
pub use surgery::{Shape, Transplant};
