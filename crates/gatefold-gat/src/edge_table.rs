//! Edges as cells of a dense table, and the softmax over each of its rows.

use burn::tensor::{Bool, Int, Tensor, TensorData, activation::leaky_relu, backend::Backend};
use gatefold_ops::{GatEdges, GatScoring};

use crate::layer::LEAKY_SLOPE;

// B batch, S source rows, T target rows, E edges (at least one), M largest in-degree, H heads, C width of a head

/// Edges as cells of a dense `[T, M]` table; an empty cell repeats edge 0.
pub(crate) struct EdgeTable {
    degree: usize,
    /// The edge of each cell, `[T * M]`.
    edges: Vec<u32>,
    /// Which cells hold no edge, `[T * M]`.
    empty: Vec<bool>,
    /// The cell of each edge, `[E]`.
    cells: Vec<u32>,
    /// The source row that each edge's target is, `[E]`.
    target_rows: Vec<u32>,
}

impl EdgeTable {
    pub(crate) fn new(edges: &GatEdges) -> Self {
        let offsets = edges.offsets();
        let degree = offsets.windows(2).map(|range| range[1] - range[0]).max().unwrap_or(0) as usize;
        let count = degree * edges.num_targets();
        let (mut cells, mut target_rows) = (Vec::new(), Vec::new());
        for (t, range) in offsets.windows(2).enumerate() {
            for edge in range[0]..range[1] {
                cells.push((t * degree) as u32 + edge - range[0]);
                target_rows.push(edges.targets()[t]);
            }
        }
        let mut table = Self { degree, edges: vec![0; count], empty: vec![true; count], cells, target_rows };
        for (edge, &cell) in table.cells.iter().enumerate() {
            table.edges[cell as usize] = edge as u32;
            table.empty[cell as usize] = false;
        }
        table
    }

    /// The attention of every cell `[B, T, M, H]`: the softmax of its score, plus ln(multiplicity), over
    /// the in-edges of a target less those `dropped` (`[B, E]`, row-major); 0 in an empty cell and on a
    /// dropped edge. `h` is `[B, S, ..]`, what [`GatScoring`] takes.
    pub(crate) fn attention<B: Backend>(
        &self,
        h: Tensor<B, 3>,
        scoring: &GatScoring<B>,
        edges: &GatEdges,
        dropped: Option<&[bool]>,
    ) -> Tensor<B, 4> {
        let ([batch, _, _], [heads, _]) = (h.dims(), scoring.dims());
        let (device, targets, num_edges) = (h.device(), edges.num_targets(), edges.num_edges());
        let multiplicity = TensorData::new(edges.log_multiplicity().to_vec(), [1, num_edges, 1]);
        let score = self.scores(h, scoring, edges) + Tensor::from_data(multiplicity, &device);
        let score = self.spread(score); // [B, T, M, H]

        let left_out = match dropped {
            None => self.empty.clone(),
            Some(dropped) => dropped.chunks_exact(num_edges).flat_map(|row| self.left_out(row)).collect(),
        };
        let rows = left_out.len() / self.empty.len(); // B, or 1 for all alike
        let left_out = TensorData::new(left_out, [rows, targets, self.degree, 1]);
        let cells = [batch, targets, self.degree, heads];
        let left_out = Tensor::<B, 4, Bool>::from_data(left_out, &device).expand(cells);
        let isolated = left_out.clone().all_dim(2); // [B, T, 1, H]
        let max = score.clone().detach().mask_fill(left_out.clone(), f32::NEG_INFINITY).max_dim(2);
        let max = max.mask_fill(isolated.clone(), 0.0);
        let weight = (score - max).mask_fill(left_out.clone(), 0.0).exp().mask_fill(left_out, 0.0);
        weight.clone() / weight.sum_dim(2).mask_fill(isolated, 1.0)
    }

    /// The score of every edge `[B, E, H]`.
    fn scores<B: Backend>(&self, h: Tensor<B, 3>, scoring: &GatScoring<B>, edges: &GatEdges) -> Tensor<B, 3> {
        let device = h.device();
        let of_sources = index(edges.sources(), &device);
        let of_targets = index(&self.target_rows, &device);
        let of_relations = index(edges.relations(), &device);
        let sent = scoring.sent(h.clone()); // [B, S, H, C]
        let slope = f64::from(LEAKY_SLOPE);
        match scoring.clone() {
            GatScoring::Gat { source, target, relation_bias } => {
                let of_source = (sent.clone() * source.unsqueeze()).sum_dim(3).squeeze_dim::<3>(3); // [B, S, H]
                let of_target = (sent * target.unsqueeze()).sum_dim(3).squeeze_dim::<3>(3);
                let score = of_source.select(1, of_sources)
                    + of_target.select(1, of_targets)
                    + relation_bias.select(0, of_relations).unsqueeze();
                leaky_relu(score, slope)
            }
            GatScoring::Gatv2 { weight, relation_bias } => {
                let [_, _, heads, channels] = sent.dims();
                let width = heads * channels;
                let asked = h.narrow(2, width, width).reshape(sent.dims());
                let met = sent.select(1, of_sources) + asked.select(1, of_targets); // [B, E, H, C]
                let score = (leaky_relu(met, slope) * weight.unsqueeze()).sum_dim(3).squeeze_dim::<3>(3);
                score + relation_bias.select(0, of_relations).unsqueeze()
            }
        }
    }

    /// Numbers of edges `[B, E, H]` as numbers of cells `[B, T, M, H]`.
    pub(crate) fn spread<B: Backend>(&self, of_edges: Tensor<B, 3>) -> Tensor<B, 4> {
        let [batch, _, heads] = of_edges.dims();
        let (targets, device) = (self.edges.len() / self.degree, of_edges.device());
        of_edges.select(1, index(&self.edges, &device)).reshape([batch, targets, self.degree, heads])
    }

    /// Numbers of cells `[B, T, M, H]` as numbers of edges `[B, E, H]`.
    pub(crate) fn by_edge<B: Backend>(&self, of_cells: Tensor<B, 4>) -> Tensor<B, 3> {
        let [batch, targets, degree, heads] = of_cells.dims();
        let device = of_cells.device();
        of_cells.reshape([batch, targets * degree, heads]).select(1, index(&self.cells, &device))
    }

    /// What the source rows `[B, S, H, C]` send to each cell `[B, T, M, H, C]`.
    pub(crate) fn messages<B: Backend>(&self, h: Tensor<B, 4>, edges: &GatEdges) -> Tensor<B, 5> {
        let [batch, _, heads, channels] = h.dims();
        let sources: Vec<u32> = self.edges.iter().map(|&edge| edges.sources()[edge as usize]).collect();
        let (targets, device) = (edges.num_targets(), h.device());
        h.select(1, index(&sources, &device)).reshape([batch, targets, self.degree, heads, channels])
    }

    /// Which cells one row leaves out: those without an edge, and those of its dropped edges.
    fn left_out(&self, dropped: &[bool]) -> Vec<bool> {
        let mut left_out = self.empty.clone();
        for (&cell, &dropped) in self.cells.iter().zip(dropped) {
            left_out[cell as usize] = dropped;
        }
        left_out
    }
}

fn index<B: Backend>(rows: &[u32], device: &B::Device) -> Tensor<B, 1, Int> {
    let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let count = rows.len();
    Tensor::from_data(TensorData::new(rows, [count]), device)
}
