//! Studies: arms times seeds as processes, and comparisons with bootstrap intervals.

pub mod bootstrap;
pub mod statistics;
