//! What the tests of this package share: the oracles' fixtures, tolerances, two environments small
//! enough to reason about, and one training iteration step by step.

pub mod camp;
pub mod clock;
pub mod fixture;
pub mod tolerance;
pub mod trainee;
