//! What an environment is: trait, spec, batched stepping, conformance check.
