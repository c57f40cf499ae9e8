//! Compressed in-edge lists: what attention iterates over.

/// In-edges of every node in compressed sparse rows, sorted by (source, relation).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csr {
    /// Row `i` is `offsets[i]..offsets[i + 1]`; one more entry than there are nodes.
    pub offsets: Vec<u32>,
    /// Source node of each edge.
    pub sources: Vec<u32>,
    /// Relation id of each edge.
    pub relations: Vec<u32>,
    /// How many parallel copies the edge stands for (at least 1).
    pub multiplicity: Vec<u32>,
    /// Number of relation ids (ids are below it).
    pub num_relations: usize,
}

impl Csr {
    /// Builds rows from `(source, target, relation)` triples; equal triples merge and are counted.
    pub fn from_edges(
        num_nodes: usize,
        num_relations: usize,
        edges: impl IntoIterator<Item = (usize, usize, usize)>,
    ) -> Self {
        let mut sorted: Vec<_> = edges.into_iter().map(|(s, t, r)| (t, s, r)).collect();
        sorted.sort_unstable();
        let mut csr = Self {
            offsets: vec![0; num_nodes + 1],
            sources: Vec::new(),
            relations: Vec::new(),
            multiplicity: Vec::new(),
            num_relations,
        };
        let mut previous = None;
        for edge @ (target, source, relation) in sorted {
            assert!(
                target < num_nodes && source < num_nodes,
                "edge {source} -> {target} of {num_nodes} nodes"
            );
            if previous == Some(edge) {
                *csr.multiplicity.last_mut().expect("a previous edge was pushed") += 1;
                continue;
            }
            previous = Some(edge);
            csr.sources.push(source as u32);
            csr.relations.push(relation as u32);
            csr.multiplicity.push(1);
            csr.offsets[target + 1] = csr.sources.len() as u32;
        }
        for i in 0..num_nodes {
            csr.offsets[i + 1] = csr.offsets[i + 1].max(csr.offsets[i]);
        }
        csr
    }

    /// Number of rows.
    pub fn num_nodes(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of merged edges.
    pub fn num_edges(&self) -> usize {
        self.sources.len()
    }

    /// `(source, relation, multiplicity)` of the edges into `target`.
    pub fn in_edges(&self, target: usize) -> impl Iterator<Item = (u32, u32, u32)> + '_ {
        let row = self.offsets[target] as usize..self.offsets[target + 1] as usize;
        row.map(|e| (self.sources[e], self.relations[e], self.multiplicity[e]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parallel_edges_of_one_relation_merge_and_are_counted() {
        let csr = Csr::from_edges(3, 2, [(0, 2, 0), (0, 2, 0), (0, 2, 1), (1, 0, 0)]);
        assert_eq!(csr.offsets, [0, 1, 1, 3]);
        assert_eq!(csr.in_edges(2).collect::<Vec<_>>(), [(0, 0, 2), (0, 1, 1)]);
        assert_eq!(csr.num_edges(), 3);
    }
}
