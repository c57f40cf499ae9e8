//! Graph attention without some of its edges and weights.

use burn::tensor::{Bool, Int, Tensor, TensorData, activation::leaky_relu, backend::Backend};
use gatefold_ops::GatEdges;

use crate::draws::LayerDraws;

// B batch, S source rows, T target rows, E edges (at least one), M largest in-degree, H heads, C width of a head

/// `gatefold_ops::gat_attention` over the edges that are kept, its weights then scaled as drawn.
///
/// By plain tensor operations; an update with dropped edges or weights pays for it. The attention
/// `[B, E, H]` is that of the softmax, before weights are dropped; 0 on an edge left out.
pub(crate) fn dropped_attention<B: Backend>(
    h: Tensor<B, 3>,
    source: Tensor<B, 2>,
    target: Tensor<B, 2>,
    relation_bias: Tensor<B, 2>,
    edges: &GatEdges,
    slope: f32,
    drawn: &LayerDraws<B>,
) -> (Tensor<B, 3>, Tensor<B, 3>) {
    let [batch, num_rows, width] = h.dims();
    let [heads, channels] = source.dims();
    let (device, targets, num_edges) = (h.device(), edges.num_targets(), edges.num_edges());
    let table = Table::new(edges);
    let cells = [batch, targets, table.degree, heads];
    let index = |rows: &[u32]| {
        let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        let count = rows.len();
        Tensor::<B, 1, Int>::from_data(TensorData::new(rows, [count]), &device)
    };

    let split = h.reshape([batch, num_rows, heads, channels]);
    let of_source = (split.clone() * source.unsqueeze()).sum_dim(3).squeeze_dim::<3>(3); // [B, S, H]
    let of_target = (split.clone() * target.unsqueeze()).sum_dim(3).squeeze_dim::<3>(3);
    let sources = index(edges.sources());
    let score = of_source.select(1, sources.clone())
        + of_target.select(1, index(&table.target_rows))
        + relation_bias.select(0, index(edges.relations())).unsqueeze(); // [B, E, H]
    let multiplicity = TensorData::new(edges.log_multiplicity().to_vec(), [1, num_edges, 1]);
    let score = leaky_relu(score, f64::from(slope)) + Tensor::from_data(multiplicity, &device);

    let edge_of_cell = index(&table.edges);
    let spread = |of_edges: Tensor<B, 3>| of_edges.select(1, edge_of_cell.clone()).reshape(cells);
    let left_out = match &drawn.dropped_edges {
        None => table.empty.clone(),
        Some(dropped) => dropped.chunks_exact(num_edges).flat_map(|row| table.left_out(row)).collect(),
    };
    let rows = left_out.len() / table.empty.len(); // B, or 1 for all alike
    let left_out = TensorData::new(left_out, [rows, targets, table.degree, 1]);
    let left_out = Tensor::<B, 4, Bool>::from_data(left_out, &device).expand(cells);
    let isolated = left_out.clone().all_dim(2); // [B, T, 1, H]
    let score = spread(score); // [B, T, M, H]
    let max = score.clone().detach().mask_fill(left_out.clone(), f32::NEG_INFINITY).max_dim(2);
    let max = max.mask_fill(isolated.clone(), 0.0);
    let weight = (score - max).mask_fill(left_out.clone(), 0.0).exp().mask_fill(left_out, 0.0);
    let alpha = weight.clone() / weight.sum_dim(2).mask_fill(isolated, 1.0);

    let attention = alpha.clone().detach().reshape([batch, targets * table.degree, heads]);
    let attention = attention.select(1, index(&table.cells)); // [B, E, H]
    let alpha = match &drawn.attention {
        None => alpha,
        Some(scale) => alpha * spread(scale.clone()),
    };
    let messages = split.select(1, sources.select(0, edge_of_cell.clone()));
    let messages = messages.reshape([batch, targets, table.degree, heads, channels]);
    let out = (messages * alpha.unsqueeze_dim(4)).sum_dim(2).reshape([batch, targets, width]);
    (out, attention)
}

/// Edges as cells of a dense `[T, M]` table; an empty cell repeats edge 0.
struct Table {
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

impl Table {
    fn new(edges: &GatEdges) -> Self {
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

    /// Which cells one row leaves out: those without an edge, and those of its dropped edges.
    fn left_out(&self, dropped: &[bool]) -> Vec<bool> {
        let mut left_out = self.empty.clone();
        for (&cell, &dropped) in self.cells.iter().zip(dropped) {
            left_out[cell as usize] = dropped;
        }
        left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};
    use gatefold_ops::{gat_attention, init};
    use rand::{Rng, RngExt as _};
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

    type Train = Autodiff<Flex>;
    const HEADS: usize = 2;
    const WIDTH: usize = 6;

    /// Targets 0, 2 and 3 of four rows: three edges, one, and none.
    const TARGETS: [u32; 3] = [0, 2, 3];
    const EDGES: [(u32, u32, u32, f32); 4] = [(0, 0, 0, 0.0), (0, 1, 1, 0.7), (0, 3, 1, 0.0), (1, 2, 0, 0.0)];

    /// Those of [`EDGES`], as (target, source, relation, ln multiplicity), whose index is in `kept`.
    fn edges(kept: &[usize]) -> GatEdges {
        let kept: Vec<_> = kept.iter().map(|&edge| EDGES[edge]).collect();
        let offsets = (0..=3).map(|t| kept.iter().filter(|edge| edge.0 < t).count() as u32).collect();
        let column = |of: fn(&(u32, u32, u32, f32)) -> u32| kept.iter().map(of).collect();
        let multiplicity = kept.iter().map(|edge| edge.3).collect();
        let (sources, relations) = (column(|edge| edge.1), column(|edge| edge.2));
        GatEdges::new(offsets, sources, relations, multiplicity, TARGETS.to_vec(), 4, 2).unwrap()
    }

    fn drawn(dropped: Option<Vec<bool>>, scales: Option<Vec<f32>>) -> LayerDraws<Train> {
        let device = Default::default();
        LayerDraws {
            features: None,
            dropped_edges: dropped,
            attention: scales.map(|scales| {
                let rows = scales.len() / (EDGES.len() * HEADS);
                Tensor::from_data(TensorData::new(scales, [rows, EDGES.len(), HEADS]), &device)
            }),
        }
    }

    struct Inputs {
        h: Tensor<Train, 3>,
        weights: [Tensor<Train, 2>; 3],
    }

    fn leaf<const D: usize>(shape: [usize; D], rng: &mut impl Rng) -> Tensor<Train, D> {
        init::normal(1.0, shape, rng, &Default::default()).val().detach().require_grad()
    }

    fn inputs(rows: usize) -> Inputs {
        let rng = &mut ChaCha8Rng::seed_from_u64(11);
        let head = [HEADS, WIDTH / HEADS];
        Inputs {
            h: leaf([rows, 4, WIDTH], rng),
            weights: [leaf(head, rng), leaf(head, rng), leaf([2, HEADS], rng)],
        }
    }

    impl Inputs {
        fn fused(&self, edges: &GatEdges) -> (Tensor<Train, 3>, Tensor<Train, 3>) {
            let [source, target, bias] = self.weights.clone();
            gat_attention(self.h.clone(), source, target, bias, edges, 0.2)
        }

        fn dropped(&self, drawn: &LayerDraws<Train>) -> (Tensor<Train, 3>, Tensor<Train, 3>) {
            let [source, target, bias] = self.weights.clone();
            dropped_attention(self.h.clone(), source, target, bias, &edges(&[0, 1, 2, 3]), 0.2, drawn)
        }

        /// Gradients of every input for an upstream gradient that differs everywhere.
        fn gradients(&self, out: Tensor<Train, 3>) -> Vec<f32> {
            let upstream = leaf(out.dims(), &mut ChaCha8Rng::seed_from_u64(12)).detach();
            let grads = (out * upstream).sum().backward();
            let mut gradients = values(self.h.grad(&grads).unwrap());
            gradients.extend(self.weights.iter().flat_map(|weight| values(weight.grad(&grads).unwrap())));
            gradients
        }
    }

    fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
        tensor.into_data().into_vec().unwrap()
    }

    fn assert_close(got: &[f32], expected: &[f32], tolerance: f32) {
        assert_eq!(got.len(), expected.len());
        for (i, (a, b)) in got.iter().zip(expected).enumerate() {
            assert!((a - b).abs() <= tolerance, "{i}: {a}, expected {b}");
        }
    }

    #[test]
    fn with_nothing_dropped_it_is_graph_attention_with_its_gradients() {
        let inputs = inputs(3);
        let all = drawn(Some(vec![false; 12]), Some(vec![1.0; 24]));
        let ((out, attention), (fused, expected)) =
            (inputs.dropped(&all), inputs.fused(&edges(&[0, 1, 2, 3])));
        assert_close(&values(attention), &values(expected), 1e-6);
        assert_close(&values(out.clone()), &values(fused.clone()), 1e-5);
        assert_close(&inputs.gradients(out), &inputs.gradients(fused), 1e-5);
    }

    #[test]
    fn what_is_left_of_the_edges_is_attended_to_as_if_nothing_else_were_there() {
        let inputs = inputs(1);
        let without_second = drawn(Some(vec![false, true, false, false]), None);
        let ((out, attention), (fused, expected)) =
            (inputs.dropped(&without_second), inputs.fused(&edges(&[0, 2, 3])));
        let (attention, expected) = (values(attention), values(expected));
        assert_close(&attention[..2], &expected[..2], 1e-6);
        assert_eq!(attention[2..4], [0.0, 0.0], "the edge left out");
        assert_close(&attention[4..], &expected[2..], 1e-6);
        assert_close(&values(out.clone()), &values(fused.clone()), 1e-5);
        assert_close(&inputs.gradients(out), &inputs.gradients(fused), 1e-5);
    }

    #[test]
    fn rows_leave_out_edges_of_their_own() {
        let inputs = inputs(2);
        let only_in_the_second_row = [false, false, false, false, true, false, false, false];
        let out = values(inputs.dropped(&drawn(Some(only_in_the_second_row.to_vec()), None)).0);
        let per_row = 3 * WIDTH;
        assert_close(&out[..per_row], &values(inputs.fused(&edges(&[0, 1, 2, 3])).0)[..per_row], 1e-5);
        assert_close(&out[per_row..], &values(inputs.fused(&edges(&[1, 2, 3])).0)[per_row..], 1e-5);
    }

    #[test]
    fn scales_multiply_the_weights_of_the_softmax() {
        let inputs = inputs(1);
        let scales = [2.0, 0.0, 0.0, 2.0, 2.0, 2.0, 0.0, 2.0f32]; // [E, H]
        let (out, attention) = inputs.dropped(&drawn(None, Some(scales.to_vec())));
        let (_, undropped) = inputs.fused(&edges(&[0, 1, 2, 3]));
        let (h, attention) = (values(inputs.h.clone()), values(attention));
        assert_close(&attention, &values(undropped), 1e-6);
        let mut expected = vec![0.0f32; 3 * WIDTH];
        for (edge, &(target, source, ..)) in EDGES.iter().enumerate() {
            for column in 0..WIDTH {
                let cell = edge * HEADS + column / (WIDTH / HEADS);
                expected[target as usize * WIDTH + column] +=
                    scales[cell] * attention[cell] * h[source as usize * WIDTH + column];
            }
        }
        assert_close(&values(out), &expected, 1e-5);
    }

    #[test]
    fn dropped_weights_average_to_the_whole_attention() {
        const ROWS: usize = 4_000;
        let one = inputs(1);
        let many = Inputs { h: one.h.clone().expand([ROWS, 4, WIDTH]), weights: one.weights.clone() };
        let rng = &mut ChaCha8Rng::seed_from_u64(13);
        let scales = (0..ROWS * EDGES.len() * HEADS)
            .map(|_| if rng.random::<f32>() < 0.25 { 0.0 } else { 1.0 / 0.75 })
            .collect();
        let mean = many.dropped(&drawn(None, Some(scales))).0.mean_dim(0);
        // A term's deviation is 0.58 of itself, over 63: 0.01 for the |h| of about 1 here.
        assert_close(&values(mean), &values(one.fused(&edges(&[0, 1, 2, 3])).0), 0.06);
    }
}
