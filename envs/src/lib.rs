//! Environments that ship with Gatefold.
