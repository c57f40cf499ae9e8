//! Routing functions, router network, gates and usage statistics.
