//! Routing functions, router network, gates and usage statistics.
//!
//! A [`Router`] scores the experts; [`route`] turns scores into gates on the simplex as the
//! curriculum's [`Routing`](gatefold_curriculum::Routing) says; [`GateStatistics`] says how the
//! experts were used.

mod drawn;
mod gates;
mod router;
mod statistics;

pub use drawn::{gumbel_noise, random_gates, select_top_k};
pub use gates::{Gates, route};
pub use router::Router;
pub use statistics::{GateStatistics, Usage};
