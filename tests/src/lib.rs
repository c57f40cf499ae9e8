//! Cross-crate tests: oracles, learning, resume, layering.
