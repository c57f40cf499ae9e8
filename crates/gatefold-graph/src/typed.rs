//! The typed graph itself: a petgraph with named kinds and relations.

use std::collections::HashMap;

use petgraph::algo::toposort;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use crate::{Csr, GraphError};

/// The relation of explicit self loops.
pub const SELF_RELATION: &str = "self";

/// One node: what it is called, what kind it is, and which expert it speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Unique name within the graph.
    pub id: String,
    /// Index into [`TypedGraph::kinds`].
    pub kind: usize,
    /// What the node means, in words.
    pub label: Option<String>,
    /// The expert this node has an affinity to, by name.
    pub expert: Option<String>,
}

/// A directed graph whose nodes have kinds and whose edges have relations.
#[derive(Debug, Clone)]
pub struct TypedGraph {
    name: String,
    kinds: Vec<String>,
    readout_kinds: Vec<usize>,
    relations: Vec<String>,
    graph: DiGraph<Node, usize>,
    by_id: HashMap<String, NodeIndex>,
}

impl TypedGraph {
    /// An empty graph that knows `kinds`; the encoder reads out nodes of `readout_kinds`.
    ///
    /// Panics if a readout kind is not among the kinds (a fault of the calling code).
    pub fn new(name: &str, kinds: &[&str], readout_kinds: &[&str]) -> Self {
        let kinds: Vec<String> = kinds.iter().map(|k| k.to_string()).collect();
        let position = |k: &&str| kinds.iter().position(|x| x == k);
        let readout_kinds = readout_kinds
            .iter()
            .map(|k| position(k).unwrap_or_else(|| panic!("readout kind `{k}` is not a kind")))
            .collect();
        Self {
            name: name.to_string(),
            kinds,
            readout_kinds,
            relations: Vec::new(),
            graph: DiGraph::new(),
            by_id: HashMap::new(),
        }
    }

    /// Adds a node; its index is the number of nodes before it.
    pub fn add_node(&mut self, id: &str, kind: &str, expert: Option<&str>) -> Result<usize, GraphError> {
        let Some(kind_index) = self.kinds.iter().position(|k| k == kind) else {
            return Err(GraphError::UnknownKind {
                graph: self.name.clone(),
                node: id.to_string(),
                kind: kind.to_string(),
                known: self.kinds.join(", "),
            });
        };
        if id.is_empty() {
            return Err(GraphError::EmptyId { graph: self.name.clone(), kind: kind.to_string() });
        }
        if self.by_id.contains_key(id) {
            return Err(GraphError::DuplicateNode { graph: self.name.clone(), node: id.to_string() });
        }
        let expert = expert.map(str::to_string);
        let node = Node { id: id.to_string(), kind: kind_index, label: None, expert };
        let index = self.graph.add_node(node);
        self.by_id.insert(id.to_string(), index);
        Ok(index.index())
    }

    /// Says in words what a node means.
    pub fn set_label(&mut self, node: usize, label: &str) {
        self.graph[NodeIndex::new(node)].label = Some(label.to_string());
    }

    /// Adds a directed edge; `role` says in an error message what the reference was for.
    pub fn add_edge(&mut self, from: &str, to: &str, relation: &str) -> Result<(), GraphError> {
        let source = self.find(from, to, relation, "node")?;
        let target = self.find(to, from, relation, "node")?;
        let relation = self.relation_id(relation);
        self.graph.add_edge(source, target, relation);
        Ok(())
    }

    /// Gives every relation a reverse of its own id, so that information flows both ways.
    pub fn with_reverse_relations(mut self) -> Self {
        let edges: Vec<_> =
            self.graph.edge_references().map(|e| (e.source(), e.target(), *e.weight())).collect();
        for (source, target, relation) in edges {
            if source != target {
                let reverse = format!("{}^-1", self.relations[relation]);
                let reverse = self.relation_id(&reverse);
                self.graph.add_edge(target, source, reverse);
            }
        }
        self
    }

    /// Adds an explicit self loop of relation `self` to every node that has none.
    pub fn with_self_loops(mut self) -> Self {
        let relation = self.relation_id(SELF_RELATION);
        for node in self.graph.node_indices() {
            let has = self.graph.edges_connecting(node, node).any(|e| *e.weight() == relation);
            if !has {
                self.graph.add_edge(node, node, relation);
            }
        }
        self
    }

    /// Fails if some readout is missing; an encoder without anything to read is a spec error.
    pub fn validate(&self) -> Result<(), GraphError> {
        if self.readout_nodes().is_empty() {
            let kinds: Vec<_> = self.readout_kinds.iter().map(|&k| self.kinds[k].as_str()).collect();
            return Err(GraphError::NoReadout { graph: self.name.clone(), kinds: kinds.join(", ") });
        }
        Ok(())
    }

    /// Fails if the graph, self loops aside, has a directed cycle.
    pub fn check_acyclic(&self) -> Result<(), GraphError> {
        let proper = self.graph.filter_map(
            |_, node| Some(node.id.clone()),
            |edge, relation| {
                let (a, b) = self.graph.edge_endpoints(edge).expect("edges have endpoints");
                (a != b || self.relations[*relation] != SELF_RELATION).then_some(())
            },
        );
        toposort(&proper, None).map(|_| ()).map_err(|cycle| GraphError::Cycle {
            graph: self.name.clone(),
            node: proper[cycle.node_id()].clone(),
        })
    }

    /// In-edges of every node, parallel edges of one relation merged.
    pub fn csr(&self) -> Csr {
        let edges =
            self.graph.edge_references().map(|e| (e.source().index(), e.target().index(), *e.weight()));
        Csr::from_edges(self.num_nodes(), self.relations.len(), edges)
    }

    /// The graph's name, used in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of nodes.
    pub fn num_nodes(&self) -> usize {
        self.graph.node_count()
    }

    /// Node by index, in the order of insertion.
    pub fn node(&self, index: usize) -> &Node {
        &self.graph[NodeIndex::new(index)]
    }

    /// All nodes in index order.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.graph.node_weights()
    }

    /// Index of the node called `id`.
    pub fn index_of(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).map(|n| n.index())
    }

    /// Names of the node kinds.
    pub fn kinds(&self) -> &[String] {
        &self.kinds
    }

    /// Names of the relations, in id order.
    pub fn relations(&self) -> &[String] {
        &self.relations
    }

    /// Indices of the nodes that the encoder reads out, ascending.
    pub fn readout_nodes(&self) -> Vec<usize> {
        (0..self.num_nodes()).filter(|&i| self.readout_kinds.contains(&self.node(i).kind)).collect()
    }

    /// The kind name of a node.
    pub fn kind_of(&self, index: usize) -> &str {
        &self.kinds[self.node(index).kind]
    }

    pub(crate) fn find(
        &self,
        id: &str,
        holder: &str,
        role: &str,
        expected: &str,
    ) -> Result<NodeIndex, GraphError> {
        self.by_id.get(id).copied().ok_or_else(|| GraphError::UnknownNode {
            graph: self.name.clone(),
            node: holder.to_string(),
            missing: id.to_string(),
            role: format!("`{role}`"),
            expected: expected.to_string(),
        })
    }

    fn relation_id(&mut self, name: &str) -> usize {
        match self.relations.iter().position(|r| r == name) {
            Some(id) => id,
            None => {
                self.relations.push(name.to_string());
                self.relations.len() - 1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> TypedGraph {
        let mut graph = TypedGraph::new("pair", &["condition", "operator"], &["operator"]);
        graph.add_node("hungry", "condition", None).unwrap();
        graph.add_node("eat", "operator", Some("survival")).unwrap();
        graph.add_edge("hungry", "eat", "precondition").unwrap();
        graph
    }

    #[test]
    fn reverse_relations_and_self_loops_have_ids_of_their_own() {
        let graph = pair().with_reverse_relations().with_self_loops();
        assert_eq!(graph.relations(), ["precondition", "precondition^-1", "self"]);
        let csr = graph.csr();
        assert_eq!(csr.in_edges(0).collect::<Vec<_>>(), [(0, 2, 1), (1, 1, 1)]);
        assert_eq!(csr.in_edges(1).collect::<Vec<_>>(), [(0, 0, 1), (1, 2, 1)]);
    }

    #[test]
    fn errors_name_the_graph_the_node_and_the_reason() {
        let mut graph = pair();
        let twice = graph.add_node("eat", "operator", None).unwrap_err().to_string();
        assert_eq!(twice, "graph pair: node `eat` is declared twice; ids must be unique");
        let kind = graph.add_node("x", "effect", None).unwrap_err().to_string();
        assert!(kind.contains("`x`") && kind.contains("condition, operator"), "{kind}");
        let missing = graph.add_edge("thirsty", "eat", "precondition").unwrap_err().to_string();
        assert!(missing.contains("`eat`") && missing.contains("`thirsty`"), "{missing}");
    }

    #[test]
    fn a_cycle_is_found_but_self_loops_are_not_cycles() {
        let graph = pair().with_self_loops();
        assert_eq!(graph.check_acyclic(), Ok(()));
        assert!(graph.with_reverse_relations().check_acyclic().is_err());
    }

    #[test]
    fn a_graph_without_readout_nodes_does_not_validate() {
        let mut graph = TypedGraph::new("empty", &["condition", "operator"], &["operator"]);
        graph.add_node("hungry", "condition", None).unwrap();
        assert!(graph.validate().unwrap_err().to_string().contains("operator"));
    }
}
