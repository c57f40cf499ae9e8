//! The experiment runner: configuration, the loop, checkpoints, reports.
