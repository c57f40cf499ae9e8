//! The fallback ladder in whole runs: what each rung does to a policy, and that nothing else happens.

mod by_hand;
mod by_itself;
mod resumed;
mod runs;
