//! Which nodes each layer computes: only those that the readout can reach.

use std::sync::Arc;

use gatefold_graph::TypedGraph;
use gatefold_ops::GatEdges;

use crate::distinct::{Searches, Spread};

/// The rows and edges of one layer.
#[derive(Debug, Clone)]
pub(crate) struct LayerTopology {
    /// Edges from the rows of the layer's input to the rows of its output.
    pub(crate) edges: Arc<GatEdges>,
    /// Input row of each output row, or `None` if the layer keeps all rows in place.
    pub(crate) kept: Option<Vec<u32>>,
    /// Where the rows of its input lead.
    pub(crate) spread: Arc<Spread>,
}

/// The rows that an encoder of some depth computes, layer by layer.
#[derive(Debug, Clone)]
pub(crate) struct Topology {
    /// Graph node of each row of the encoder's input.
    pub(crate) input_nodes: Vec<u32>,
    /// One entry per layer, first layer first.
    pub(crate) layers: Vec<LayerTopology>,
    /// Graph node of each row that is read out.
    pub(crate) readout_nodes: Vec<u32>,
    /// Where distinct rows are searched in.
    pub(crate) searches: Arc<Searches>,
}

impl Topology {
    /// Walks back from the readout nodes: the last layer computes those, each earlier layer the
    /// nodes that the next one reads.
    pub(crate) fn new(graph: &TypedGraph, layers: usize) -> Self {
        let csr = graph.csr();
        let readout_nodes: Vec<u32> = graph.readout_nodes().iter().map(|&n| n as u32).collect();
        let mut rows = readout_nodes.clone();
        let mut reversed = Vec::with_capacity(layers);
        for _ in 0..layers {
            let mut needed = rows.clone();
            for &node in &rows {
                needed.extend(csr.in_edges(node as usize).map(|(source, _, _)| source));
            }
            needed.sort_unstable();
            needed.dedup();
            let row_of = |node: u32| needed.binary_search(&node).expect("a needed node") as u32;

            let mut offsets = vec![0];
            let (mut sources, mut relations, mut log_multiplicity) = (vec![], vec![], vec![]);
            for &node in &rows {
                for (source, relation, multiplicity) in csr.in_edges(node as usize) {
                    sources.push(row_of(source));
                    relations.push(relation);
                    log_multiplicity.push((multiplicity as f32).ln());
                }
                offsets.push(sources.len() as u32);
            }
            let targets: Vec<u32> = rows.iter().map(|&node| row_of(node)).collect();
            let kept = (needed != rows).then(|| targets.clone());
            let edges = GatEdges::new(
                offsets,
                sources,
                relations,
                log_multiplicity,
                targets,
                needed.len(),
                csr.num_relations.max(1),
            )
            .expect("edges of a valid graph fit");
            let spread = Arc::new(Spread::new(&edges));
            reversed.push(LayerTopology { edges: Arc::new(edges), kept, spread });
            rows = needed;
        }
        reversed.reverse();
        Self { input_nodes: rows, layers: reversed, readout_nodes, searches: Arc::default() }
    }

    /// The row of a graph node in the encoder's input, if the readout reaches it.
    pub(crate) fn input_row(&self, node: usize) -> Option<u32> {
        self.input_nodes.binary_search(&(node as u32)).ok().map(|row| row as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// a -> b -> c -> read, and an island.
    fn chain() -> TypedGraph {
        let mut graph = TypedGraph::new("chain", &["inner", "read"], &["read"]);
        for (id, kind) in
            [("a", "inner"), ("b", "inner"), ("c", "inner"), ("read", "read"), ("island", "inner")]
        {
            graph.add_node(id, kind, None).unwrap();
        }
        for (from, to) in [("a", "b"), ("b", "c"), ("c", "read")] {
            graph.add_edge(from, to, "next").unwrap();
        }
        graph.with_self_loops()
    }

    #[test]
    fn a_layer_computes_only_what_the_readout_reaches() {
        let topology = Topology::new(&chain(), 2);
        assert_eq!(topology.readout_nodes, [3]);
        assert_eq!(topology.input_nodes, [1, 2, 3], "two steps reach back to b");
        assert_eq!(topology.layers[0].edges.num_targets(), 2);
        assert_eq!(topology.layers[0].kept.as_deref(), Some([1, 2].as_slice()));
        assert_eq!(topology.layers[1].edges.sources(), [0, 1], "c and read itself");
    }

    #[test]
    fn a_grid_that_is_read_out_whole_keeps_every_row() {
        let mut graph = TypedGraph::new("grid", &["cell"], &["cell"]);
        graph.add_node("left", "cell", None).unwrap();
        graph.add_node("right", "cell", None).unwrap();
        graph.add_edge("left", "right", "east").unwrap();
        let topology = Topology::new(&graph.with_self_loops(), 3);
        assert!(topology.layers.iter().all(|layer| layer.kept.is_none()));
        assert_eq!(topology.input_nodes, [0, 1]);
    }
}
