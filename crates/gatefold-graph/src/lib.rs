//! Typed graphs as data: nodes with a kind, edges with a relation, petgraph in and CSR out.
//!
//! A graph is built once, by hand ([`TypedGraph::new`]) or from a knowledge file
//! ([`parse_knowledge`]), validated while it is built, and turned into [`Csr`] for the tensor side.
//! There are no tensors here.

mod csr;
mod error;
mod knowledge;
mod typed;

pub use csr::Csr;
pub use error::GraphError;
pub use knowledge::parse_knowledge;
pub use typed::{Node, SELF_RELATION, TypedGraph};
