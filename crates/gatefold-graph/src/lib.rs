//! Typed graphs as data: petgraph in, CSR out.
