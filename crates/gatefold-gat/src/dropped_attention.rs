//! Graph attention by plain tensor operations: without some of its edges and weights, or with a gradient
//! through its weights.

use burn::tensor::{Tensor, backend::Backend};
use gatefold_ops::{GatEdges, GatScoring};

use crate::draws::LayerDraws;
use crate::edge_table::EdgeTable;

// B batch, S source rows, T target rows, E edges (at least one), M largest in-degree, H heads, C width of a head

/// [`GatScoring::attend`] over the edges that are kept, its weights then scaled as drawn.
///
/// By plain tensor operations; an update with dropped edges or weights pays for it. The attention
/// `[B, E, H]` is that of the softmax, before weights are dropped; 0 on an edge left out.
pub(crate) fn dropped_attention<B: Backend>(
    h: Tensor<B, 3>,
    scoring: &GatScoring<B>,
    edges: &GatEdges,
    drawn: &LayerDraws<B>,
) -> (Tensor<B, 3>, Tensor<B, 3>) {
    let [batch, _, _] = h.dims();
    let [heads, channels] = scoring.dims();
    let table = EdgeTable::new(edges);
    let dropped = drawn.dropped_edges.as_deref();
    let alpha = table.attention(h.clone(), scoring, edges, dropped); // [B, T, M, H]
    let attention = table.by_edge(alpha.clone().detach());
    let alpha = match &drawn.attention {
        None => alpha,
        Some(scale) => alpha * table.spread(scale.clone()),
    };
    let out = (table.messages(scoring.sent(h), edges) * alpha.unsqueeze_dim(4)).sum_dim(2);
    (out.reshape([batch, edges.num_targets(), heads * channels]), attention)
}

/// The weights `[B, E, H]` alone that [`GatScoring::attend`] attends with, with their gradient.
pub(crate) fn attention_weights<B: Backend>(
    h: Tensor<B, 3>,
    scoring: &GatScoring<B>,
    edges: &GatEdges,
) -> Tensor<B, 3> {
    let table = EdgeTable::new(edges);
    table.by_edge(table.attention(h, scoring, edges, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::LEAKY_SLOPE;
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::TensorData;
    use gatefold_ops::init;
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

    #[derive(Clone)]
    struct Inputs {
        h: Tensor<Train, 3>,
        /// a_s, a_d and the relation bias of GAT; a and the relation bias of GATv2
        weights: Vec<Tensor<Train, 2>>,
    }

    fn leaf<const D: usize>(shape: [usize; D], rng: &mut impl Rng) -> Tensor<Train, D> {
        init::normal(1.0, shape, rng, &Default::default()).val().detach().require_grad()
    }

    /// Inputs of both attentions.
    fn inputs(rows: usize) -> [Inputs; 2] {
        let rng = &mut ChaCha8Rng::seed_from_u64(11);
        let head = [HEADS, WIDTH / HEADS];
        let gat = vec![leaf(head, rng), leaf(head, rng), leaf([2, HEADS], rng)];
        let gatv2 = vec![leaf(head, rng), leaf([2, HEADS], rng)];
        [
            Inputs { h: leaf([rows, 4, WIDTH], rng), weights: gat },
            Inputs { h: leaf([rows, 4, 2 * WIDTH], rng), weights: gatv2 },
        ]
    }

    impl Inputs {
        fn scoring(&self) -> GatScoring<Train> {
            match self.weights.as_slice() {
                [source, target, relation_bias] => {
                    let [source, target] = [source.clone(), target.clone()];
                    GatScoring::Gat { source, target, relation_bias: relation_bias.clone() }
                }
                [weight, relation_bias] => {
                    GatScoring::Gatv2 { weight: weight.clone(), relation_bias: relation_bias.clone() }
                }
                _ => unreachable!("two or three weights"),
            }
        }

        fn fused(&self, edges: &GatEdges) -> (Tensor<Train, 3>, Tensor<Train, 3>) {
            self.scoring().attend(self.h.clone(), edges, LEAKY_SLOPE)
        }

        fn dropped(&self, drawn: &LayerDraws<Train>) -> (Tensor<Train, 3>, Tensor<Train, 3>) {
            dropped_attention(self.h.clone(), &self.scoring(), &edges(&[0, 1, 2, 3]), drawn)
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
        for inputs in inputs(3) {
            let all = drawn(Some(vec![false; 12]), Some(vec![1.0; 24]));
            let ((out, attention), (fused, expected)) =
                (inputs.dropped(&all), inputs.fused(&edges(&[0, 1, 2, 3])));
            assert_close(&values(attention), &values(expected), 1e-6);
            assert_close(&values(out.clone()), &values(fused.clone()), 1e-5);
            assert_close(&inputs.gradients(out), &inputs.gradients(fused), 1e-5);
        }
    }

    #[test]
    fn the_weights_alone_are_those_of_graph_attention_and_their_gradient_its_finite_difference() {
        let edges = edges(&[0, 1, 2, 3]);
        for inputs in inputs(2) {
            let of = |inputs: &Inputs| attention_weights(inputs.h.clone(), &inputs.scoring(), &edges);
            let alpha = of(&inputs);
            assert_close(&values(alpha.clone()), &values(inputs.fused(&edges).1), 1e-6);

            let upstream = leaf(alpha.dims(), &mut ChaCha8Rng::seed_from_u64(14)).detach();
            let loss = |inputs: &Inputs| values((of(inputs) * upstream.clone()).sum())[0];
            let grads = (alpha * upstream.clone()).sum().backward();
            for which in 0..inputs.weights.len() {
                let gradient = values(inputs.weights[which].grad(&grads).expect("a gradient"));
                assert!(gradient.iter().any(|g| g.abs() > 1e-3), "weight {which}: {gradient:?}");
                for (i, &got) in gradient.iter().enumerate() {
                    let at = |step: f32| {
                        let mut moved = inputs.clone();
                        let weight = &mut moved.weights[which];
                        let (mut numbers, shape) = (values(weight.clone()), weight.dims());
                        numbers[i] += step;
                        *weight = Tensor::from_data(TensorData::new(numbers, shape), &Default::default());
                        loss(&moved)
                    };
                    let expected = (at(0.01) - at(-0.01)) / 0.02;
                    assert!((got - expected).abs() < 2e-3, "weight {which}, {i}: {got}, expected {expected}");
                }
            }
        }
    }

    #[test]
    fn what_is_left_of_the_edges_is_attended_to_as_if_nothing_else_were_there() {
        for inputs in inputs(1) {
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
    }

    #[test]
    fn rows_leave_out_edges_of_their_own() {
        for inputs in inputs(2) {
            let only_in_the_second_row = [false, false, false, false, true, false, false, false];
            let out = values(inputs.dropped(&drawn(Some(only_in_the_second_row.to_vec()), None)).0);
            let (first, second) = out.split_at(3 * WIDTH);
            let whole = values(inputs.fused(&edges(&[0, 1, 2, 3])).0);
            assert_close(first, &whole[..3 * WIDTH], 1e-5);
            assert_close(second, &values(inputs.fused(&edges(&[1, 2, 3])).0)[3 * WIDTH..], 1e-5);
        }
    }

    #[test]
    fn scales_multiply_the_weights_of_the_softmax() {
        for inputs in inputs(1) {
            let scales = [2.0, 0.0, 0.0, 2.0, 2.0, 2.0, 0.0, 2.0f32]; // [E, H]
            let (out, attention) = inputs.dropped(&drawn(None, Some(scales.to_vec())));
            let (_, undropped) = inputs.fused(&edges(&[0, 1, 2, 3]));
            let (h, row, attention) = (values(inputs.h.clone()), inputs.h.dims()[2], values(attention));
            assert_close(&attention, &values(undropped), 1e-6);
            let mut expected = vec![0.0f32; 3 * WIDTH];
            for (edge, &(target, source, ..)) in EDGES.iter().enumerate() {
                for column in 0..WIDTH {
                    let cell = edge * HEADS + column / (WIDTH / HEADS);
                    expected[target as usize * WIDTH + column] +=
                        scales[cell] * attention[cell] * h[source as usize * row + column];
                }
            }
            assert_close(&values(out), &expected, 1e-5);
        }
    }

    #[test]
    fn dropped_weights_average_to_the_whole_attention() {
        const ROWS: usize = 4_000;
        for one in inputs(1) {
            let [_, _, row] = one.h.dims();
            let many = Inputs { h: one.h.clone().expand([ROWS, 4, row]), weights: one.weights.clone() };
            let rng = &mut ChaCha8Rng::seed_from_u64(13);
            let scales = (0..ROWS * EDGES.len() * HEADS)
                .map(|_| if rng.random::<f32>() < 0.25 { 0.0 } else { 1.0 / 0.75 })
                .collect();
            let mean = many.dropped(&drawn(None, Some(scales))).0.mean_dim(0);
            // A term's deviation is 0.58 of itself, over 63: 0.01 for the |h| of about 1 here.
            assert_close(&values(mean), &values(one.fused(&edges(&[0, 1, 2, 3])).0), 0.06);
        }
    }
}
