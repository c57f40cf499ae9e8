//! What the tests of this package share: the oracles' fixtures, tolerances, two environments small
//! enough to reason about, one training iteration step by step, copies of runs, and gradients by path.

pub mod camp;
pub mod clock;
pub mod copies;
pub mod fixture;
pub mod gradients;
pub mod tolerance;
pub mod trainee;
