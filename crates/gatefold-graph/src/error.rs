//! What can be wrong with a graph; every message names the source, the node and the reason.

use thiserror::Error;

/// A graph that does not validate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GraphError {
    /// The text is not the expected TOML.
    #[error("graph {graph}: cannot read the file: {reason}")]
    Syntax {
        /// The graph's name.
        graph: String,
        /// The parser's words, with line and column.
        reason: String,
    },
    /// Two nodes share an id.
    #[error("graph {graph}: node `{node}` is declared twice; ids must be unique")]
    DuplicateNode {
        /// The graph's name.
        graph: String,
        /// The repeated id.
        node: String,
    },
    /// A node has an empty id.
    #[error("graph {graph}: a node of kind `{kind}` has an empty id; give it a name")]
    EmptyId {
        /// The graph's name.
        graph: String,
        /// The kind of the unnamed node.
        kind: String,
    },
    /// A node's kind is not one the graph declares.
    #[error("graph {graph}: node `{node}` has the unknown kind `{kind}`; known: {known}")]
    UnknownKind {
        /// The graph's name.
        graph: String,
        /// The node.
        node: String,
        /// The kind it asked for.
        kind: String,
        /// The declared kinds, comma separated.
        known: String,
    },
    /// An edge refers to a node that does not exist.
    #[error("graph {graph}: node `{node}` names `{missing}` as {role}, which is not a {expected}")]
    UnknownNode {
        /// The graph's name.
        graph: String,
        /// The node that holds the reference.
        node: String,
        /// The id that was not found (or is of another kind).
        missing: String,
        /// What the reference is for.
        role: String,
        /// What it would have to be.
        expected: String,
    },
    /// A graph declared acyclic has a cycle.
    #[error("graph {graph}: declared acyclic, but node `{node}` lies on a cycle")]
    Cycle {
        /// The graph's name.
        graph: String,
        /// One node of the cycle.
        node: String,
    },
    /// No node is of a readout kind, so the encoder would have nothing to read.
    #[error("graph {graph}: no node is of a readout kind ({kinds}); add one")]
    NoReadout {
        /// The graph's name.
        graph: String,
        /// The readout kinds, comma separated.
        kinds: String,
    },
}
