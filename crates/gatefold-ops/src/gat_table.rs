//! In-edges as a dense table, padded to the largest degree: how compositions of graph attention see them.

// B batch, S source rows, T target rows, E edges, M largest in-degree, H heads, C width of a head, R relations

use burn::tensor::{Bool, Int, Tensor, TensorData, backend::Backend};

use crate::GatEdges;

/// Edges as a dense `[T, M]` table; padding repeats row 0 and is masked.
pub(crate) struct GatTable {
    targets: usize,
    degree: usize,
    /// Source row of each cell, `[T * M]`.
    sources: Vec<i32>,
    /// The source row that each cell's target is, `[T * M]`.
    target_rows: Vec<i32>,
    relations: Vec<i32>,
    log_multiplicity: Vec<f32>,
    padding: Vec<bool>,
    /// Where each edge stands in the table, `[E]`.
    position: Vec<i32>,
}

impl GatTable {
    pub(crate) fn new(edges: &GatEdges) -> Self {
        let (offsets, targets) = (edges.offsets(), edges.num_targets());
        let degree = offsets.windows(2).map(|o| o[1] - o[0]).max().unwrap_or(0) as usize;
        let cells = targets * degree;
        let mut table = Self {
            targets,
            degree,
            sources: vec![0; cells],
            target_rows: vec![0; cells],
            relations: vec![0; cells],
            log_multiplicity: vec![0.0; cells],
            padding: vec![true; cells],
            position: Vec::with_capacity(edges.num_edges()),
        };
        for t in 0..targets {
            let first = offsets[t] as usize;
            for e in first..offsets[t + 1] as usize {
                let cell = t * degree + (e - first);
                table.sources[cell] = edges.sources()[e] as i32;
                table.target_rows[cell] = edges.targets()[t] as i32;
                table.relations[cell] = edges.relations()[e] as i32;
                table.log_multiplicity[cell] = edges.log_multiplicity()[e];
                table.padding[cell] = false;
                table.position.push(cell as i32);
            }
        }
        table
    }

    /// What each cell's source has of `rows` `[B, S, ..]`: `[B, T * M, ..]`.
    pub(crate) fn of_sources<B: Backend, const D: usize>(&self, rows: Tensor<B, D>) -> Tensor<B, D> {
        select(rows, 1, &self.sources)
    }

    /// What each cell's target has of `rows` `[B, S, ..]`: `[B, T * M, ..]`.
    pub(crate) fn of_targets<B: Backend, const D: usize>(&self, rows: Tensor<B, D>) -> Tensor<B, D> {
        select(rows, 1, &self.target_rows)
    }

    /// What each cell's relation has of `relations` `[R, H]`: `[1, T * M, H]`.
    pub(crate) fn of_relations<B: Backend>(&self, relations: Tensor<B, 2>) -> Tensor<B, 3> {
        select(relations, 0, &self.relations).unsqueeze()
    }

    /// Adds `ln(multiplicity)` to the scores `[B, T * M, H]` of all cells, takes the softmax over the
    /// edges of each target, and adds up what the sources `[B, S, H, C]` send.
    ///
    /// Returns the new rows `[B, T, H * C]` and the attention `[B, E, H]`, untracked.
    pub(crate) fn attend<B: Backend>(
        &self,
        score: Tensor<B, 3>,
        rows: Tensor<B, 4>,
    ) -> (Tensor<B, 3>, Tensor<B, 3>) {
        let [batch, _, heads, channels] = rows.dims();
        let (targets, degree, device) = (self.targets, self.degree, rows.device());
        let cells = [batch, targets, degree, heads];
        let multiplicity = TensorData::new(self.log_multiplicity.clone(), [1, targets * degree, 1]);
        let multiplicity = Tensor::<B, 3>::from_data(multiplicity, &device).cast(score.dtype());
        let score = (score + multiplicity).reshape(cells);

        let padding = TensorData::new(self.padding.clone(), [1, targets, degree, 1]);
        let padding = Tensor::<B, 4, Bool>::from_data(padding, &device).expand(cells);
        let isolated = padding.clone().all_dim(2); // [B, T, 1, H]
        let max = score.clone().detach().mask_fill(padding.clone(), f32::NEG_INFINITY).max_dim(2);
        let max = max.mask_fill(isolated.clone(), 0.0);
        let weight = (score - max).mask_fill(padding.clone(), 0.0).exp().mask_fill(padding, 0.0);
        let sum = weight.clone().sum_dim(2).mask_fill(isolated, 1.0);
        let alpha = weight / sum; // [B, T, M, H]

        let messages = self.of_sources(rows).reshape([batch, targets, degree, heads, channels]);
        let out = (messages * alpha.clone().unsqueeze_dim(4)).sum_dim(2);
        let attention = alpha.detach().reshape([batch, targets * degree, heads]);
        (out.reshape([batch, targets, heads * channels]), select(attention, 1, &self.position))
    }
}

fn select<B: Backend, const D: usize>(from: Tensor<B, D>, dim: usize, rows: &[i32]) -> Tensor<B, D> {
    let device = from.device();
    let rows = TensorData::new(rows.to_vec(), [rows.len()]);
    from.select(dim, Tensor::<B, 1, Int>::from_data(rows, &device))
}
