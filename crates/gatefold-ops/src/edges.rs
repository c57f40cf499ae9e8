//! The edges of a graph as plain data, grouped by target row.

use std::sync::Arc;

/// Why edge data was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatEdgesError(String);

impl std::fmt::Display for GatEdgesError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for GatEdgesError {}

/// In-edges of `T` target rows over `S` source rows, in CSR form.
///
/// The edges of target row `t` are `offsets[t]..offsets[t + 1]`. A layer may compute fewer target
/// rows than there are sources: `targets[t]` says which source row target row `t` is.
/// A clone shares the data.
#[derive(Debug, Clone, PartialEq)]
pub struct GatEdges {
    edges: Arc<Edges>,
    /// Whether target row `t` is source row `t`, for all of them; found out once.
    targets_lead: bool,
}

#[derive(Debug, PartialEq)]
struct Edges {
    offsets: Vec<u32>,
    sources: Vec<u32>,
    relations: Vec<u32>,
    log_multiplicity: Vec<f32>,
    targets: Vec<u32>,
    num_sources: usize,
    num_relations: usize,
}

impl Edges {
    fn shared(self) -> GatEdges {
        let targets_lead = self.targets.iter().enumerate().all(|(t, &row)| t == row as usize);
        GatEdges { edges: Arc::new(self), targets_lead }
    }
}

impl GatEdges {
    /// Checks and takes the edges.
    ///
    /// Lengths: `offsets` `T + 1`, ascending from 0 to `E`; `sources`, `relations` and
    /// `log_multiplicity` `E`; `targets` `T`. Sources and targets are below `num_sources`,
    /// relations below `num_relations`, `log_multiplicity` finite and at least 0 (`ln` of how many
    /// parallel edges were merged; 0 for a single one).
    pub fn new(
        offsets: Vec<u32>,
        sources: Vec<u32>,
        relations: Vec<u32>,
        log_multiplicity: Vec<f32>,
        targets: Vec<u32>,
        num_sources: usize,
        num_relations: usize,
    ) -> Result<Self, GatEdgesError> {
        let refuse = |why: String| Err(GatEdgesError(why));
        let (num_targets, num_edges) = (targets.len(), sources.len());
        if offsets.len() != num_targets + 1 {
            return refuse(format!("{} offsets for {num_targets} target rows", offsets.len()));
        }
        if relations.len() != num_edges || log_multiplicity.len() != num_edges {
            return refuse(format!(
                "{num_edges} sources, {} relations, {} multiplicities",
                relations.len(),
                log_multiplicity.len()
            ));
        }
        if offsets[0] != 0 || offsets[num_targets] as usize != num_edges {
            return refuse(format!("offsets must run from 0 to {num_edges}"));
        }
        if let Some(t) = offsets.windows(2).position(|pair| pair[0] > pair[1]) {
            return refuse(format!("offsets fall after target row {t}"));
        }
        if let Some(e) = sources.iter().position(|&s| s as usize >= num_sources) {
            return refuse(format!("edge {e} has source {}, rows are {num_sources}", sources[e]));
        }
        if let Some(e) = relations.iter().position(|&r| r as usize >= num_relations) {
            return refuse(format!("edge {e} has relation {}, relations are {num_relations}", relations[e]));
        }
        if let Some(e) = log_multiplicity.iter().position(|m| !(m.is_finite() && *m >= 0.0)) {
            return refuse(format!("edge {e} has log multiplicity {}", log_multiplicity[e]));
        }
        if let Some(t) = targets.iter().position(|&s| s as usize >= num_sources) {
            return refuse(format!("target row {t} is row {}, rows are {num_sources}", targets[t]));
        }
        let edges =
            Edges { offsets, sources, relations, log_multiplicity, targets, num_sources, num_relations };
        Ok(edges.shared())
    }

    /// Edges of another graph, of which target row `i` has the in-edges of row `rows[i]` of this one, with
    /// sources and a place of its own: `sources` those of all edges in their order, `targets` the source
    /// row that each target row is.
    ///
    /// Panics if lengths do not fit or a row is out of range.
    pub fn with_rows(&self, rows: &[u32], sources: Vec<u32>, targets: Vec<u32>, num_sources: usize) -> Self {
        let of = &self.edges;
        let mut offsets = Vec::with_capacity(rows.len() + 1);
        let (mut relations, mut log_multiplicity) =
            (Vec::with_capacity(sources.len()), Vec::with_capacity(sources.len()));
        offsets.push(0);
        for &row in rows {
            let range = of.offsets[row as usize] as usize..of.offsets[row as usize + 1] as usize;
            relations.extend_from_slice(&of.relations[range.clone()]);
            log_multiplicity.extend_from_slice(&of.log_multiplicity[range]);
            offsets.push(relations.len() as u32);
        }
        assert_eq!(sources.len(), relations.len(), "with_rows: a source for every edge");
        assert_eq!(targets.len(), rows.len(), "with_rows: a place for every target row");
        let most = sources.iter().chain(&targets).max().map_or(0, |&row| row as usize + 1);
        assert!(most <= num_sources, "with_rows: row {most} of {num_sources}");
        let num_relations = of.num_relations;
        let edges =
            Edges { offsets, sources, relations, log_multiplicity, targets, num_sources, num_relations };
        edges.shared()
    }

    /// Where each target row's edges begin, `[T + 1]`.
    pub fn offsets(&self) -> &[u32] {
        &self.edges.offsets
    }

    /// The source row of each edge, `[E]`.
    pub fn sources(&self) -> &[u32] {
        &self.edges.sources
    }

    /// The relation of each edge, `[E]`.
    pub fn relations(&self) -> &[u32] {
        &self.edges.relations
    }

    /// What is added to each edge's score after the LeakyReLU, `[E]`.
    pub fn log_multiplicity(&self) -> &[f32] {
        &self.edges.log_multiplicity
    }

    /// The source row that each target row is, `[T]`.
    pub fn targets(&self) -> &[u32] {
        &self.edges.targets
    }

    /// Whether target row `t` is source row `t`, for all of them.
    pub(crate) fn targets_lead(&self) -> bool {
        self.targets_lead
    }

    /// Number of source rows `S`.
    pub fn num_sources(&self) -> usize {
        self.edges.num_sources
    }

    /// Number of target rows `T`.
    pub fn num_targets(&self) -> usize {
        self.edges.targets.len()
    }

    /// Number of edges `E`.
    pub fn num_edges(&self) -> usize {
        self.edges.sources.len()
    }

    /// Number of relations `R`.
    pub fn num_relations(&self) -> usize {
        self.edges.num_relations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fields = (Vec<u32>, Vec<u32>, Vec<u32>, Vec<f32>, Vec<u32>);

    fn path() -> Fields {
        (vec![0, 1, 3], vec![0, 0, 1], vec![0, 1, 0], vec![0.0; 3], vec![0, 1])
    }

    #[test]
    fn edges_that_fit_are_taken() {
        let (o, s, r, m, t) = path();
        let edges = GatEdges::new(o, s, r, m, t, 2, 2).expect("a valid graph");
        assert_eq!((edges.num_targets(), edges.num_edges()), (2, 3));
    }

    #[test]
    fn every_wrong_field_is_named() {
        type Case = (fn(&mut Fields), &'static str);
        let cases: [Case; 8] = [
            (|f| f.0.truncate(2), "offsets for"),
            (|f| f.0[2] = 2, "run from 0 to 3"),
            (|f| f.0[1] = 9, "fall after target row 1"),
            (|f| f.1[1] = 2, "edge 1 has source 2"),
            (|f| f.2[2] = 2, "edge 2 has relation 2"),
            (|f| f.3[0] = f32::NAN, "log multiplicity"),
            (|f| f.3.truncate(1), "1 multiplicities"),
            (|f| f.4[0] = 5, "target row 0 is row 5"),
        ];
        for (spoil, expected) in cases {
            let mut fields = path();
            spoil(&mut fields);
            let (o, s, r, m, t) = fields;
            let error = GatEdges::new(o, s, r, m, t, 2, 2).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
