use burn::backend::Flex;
use burn::tensor::{DType, Tensor};
use gatefold_ops::{GatEdges, composed, gatv2_attention};
use proptest::prelude::*;

use crate::gat::{RELATIONS, random_edges};
use crate::support::*;

type Layer = fn(
    Tensor<Train, 3>,
    Tensor<Train, 2>,
    Tensor<Train, 2>,
    &GatEdges,
    f32,
) -> (Tensor<Train, 3>, Tensor<Train, 3>);

struct Case {
    h: Tensor<Flex, 3>,
    a: Tensor<Flex, 2>,
    relation_bias: Tensor<Flex, 2>,
    g: Tensor<Flex, 3>,
    edges: GatEdges,
}

struct Outcome {
    out: Tensor<Flex, 3>,
    attention: Tensor<Flex, 3>,
    h: Tensor<Flex, 3>,
    a: Tensor<Flex, 2>,
    relation_bias: Tensor<Flex, 2>,
}

impl Case {
    fn new([batch, sources, targets, heads, channels]: [usize; 5], seed: u64) -> Self {
        let mut n = Numbers::new(seed);
        let edges = random_edges(sources, targets, &mut n);
        Self {
            h: n.tensor([batch, sources, 2 * heads * channels]),
            a: n.tensor([heads, channels]),
            relation_bias: n.tensor([RELATIONS, heads]),
            g: n.tensor([batch, targets, heads * channels]),
            edges,
        }
    }

    fn run(&self, layer: Layer) -> Outcome {
        let (h, a, relation_bias) = (leaf(&self.h), leaf(&self.a), leaf(&self.relation_bias));
        let (out, attention) = layer(h.clone(), a.clone(), relation_bias.clone(), &self.edges, 0.2);
        let grads = (out.clone() * data(&self.g)).sum().backward();
        let missing = "a gradient for every input";
        Outcome {
            out: out.inner(),
            attention: attention.inner(),
            h: h.grad(&grads).expect(missing),
            a: a.grad(&grads).expect(missing),
            relation_bias: relation_bias.grad(&grads).expect(missing),
        }
    }
}

proptest! {
    #![proptest_config(cases(40))]
    #[test]
    fn the_kernel_equals_the_composition(
        batch in 1usize..11, sources in 1usize..9, targets in 1usize..9, heads in 1usize..10,
        channels in prop::sample::select(vec![1usize, 3, 4, 8, 16, 21, 32]), seed: u64,
    ) {
        let case = Case::new([batch, sources, targets, heads, channels], seed);
        prop_assume!(case.edges.num_edges() > 0);
        let (fused, plain) = (case.run(gatv2_attention), case.run(composed::gatv2_attention));
        assert_close("value", &fused.out, &plain.out);
        assert_close("attention", &fused.attention, &plain.attention);
        assert_close("gradient of h", &fused.h, &plain.h);
        assert_close("gradient of a", &fused.a, &plain.a);
        assert_close("gradient of the relation bias", &fused.relation_bias, &plain.relation_bias);
    }
}

#[test]
fn kernel_and_composition_equal_the_formula_in_f64() {
    let [batch, rows, targets, heads, channels] = [2, 5, 4, 2, 3];
    let case = Case::new([batch, rows, targets, heads, channels], 11);
    let width = heads * channels;
    let [h, a, bias] = [values(&case.h), values(&case.a), values(&case.relation_bias)].map(|values| {
        let exact = values.into_iter().map(f64::from);
        exact.collect::<Vec<_>>()
    });
    let mut expected = vec![0.0f32; batch * targets * width];
    for b in 0..batch {
        for t in 0..targets {
            let row = |node: u32, half: usize| &h[((b * rows + node as usize) * 2 + half) * width..][..width];
            let asked = row(case.edges.targets()[t], 1);
            let range = case.edges.offsets()[t] as usize..case.edges.offsets()[t + 1] as usize;
            for k in 0..heads {
                let weights: Vec<f64> = range
                    .clone()
                    .map(|e| {
                        let (sent, relation) =
                            (row(case.edges.sources()[e], 0), case.edges.relations()[e] as usize);
                        let met = (k * channels..(k + 1) * channels).map(|c| {
                            let z = sent[c] + asked[c];
                            a[c] * if z < 0.0 { f64::from(0.2f32) * z } else { z }
                        });
                        let score = met.sum::<f64>() + bias[relation * heads + k];
                        (score + f64::from(case.edges.log_multiplicity()[e])).exp()
                    })
                    .collect();
                let sum: f64 = weights.iter().sum();
                for c in k * channels..(k + 1) * channels {
                    let messages = range.clone().zip(&weights);
                    let total: f64 =
                        messages.map(|(e, w)| w / sum * row(case.edges.sources()[e], 0)[c]).sum();
                    expected[(b * targets + t) * width + c] = total as f32;
                }
            }
        }
    }
    let expected = from_vec(expected, [batch, targets, width]);
    let f64s = |t: &Tensor<Flex, 2>| t.clone().cast(DType::F64);
    let (exact, _) = gatv2_attention(
        case.h.clone().cast(DType::F64),
        f64s(&case.a),
        f64s(&case.relation_bias),
        &case.edges,
        0.2,
    );
    assert_within("composition in f64", 1e-6, 1e-3, &exact.cast(DType::F32), &expected);
    assert_close("kernel", &case.run(gatv2_attention).out, &expected);
}

#[test]
fn multiplicity_equals_keeping_the_parallel_edges() {
    let mut n = Numbers::new(3);
    let (h, a, bias) = (n.tensor([2, 3, 16]), n.tensor([2, 4]), n.tensor([1, 2]));
    let merged = GatEdges::new(vec![0, 2], vec![1, 2], vec![0, 0], vec![3f32.ln(), 0.0], vec![0], 3, 1);
    let copies = GatEdges::new(vec![0, 4], vec![1, 1, 1, 2], vec![0; 4], vec![0.0; 4], vec![0], 3, 1);
    let run = |edges: GatEdges| gatv2_attention(h.clone(), a.clone(), bias.clone(), &edges, 0.2).0;
    assert_close("merged", &run(merged.expect("valid")), &run(copies.expect("valid")));
}

#[test]
fn the_neighbour_looked_at_most_may_differ_between_targets() {
    // What GAT cannot do: two targets with opposite rankings of the same two sources.
    let ends = GatEdges::new(vec![0, 2, 4], vec![0, 1, 0, 1], vec![0; 4], vec![0.0; 4], vec![2, 3], 4, 1);
    let a = from_vec(vec![1.0, 1.0], [1, 2]);
    // Rows [s ; d] of one head of two channels: the sources say +-1 in turn, the targets what they want.
    let rows = vec![2.0, -2.0, 0.0, 0.0, -2.0, 2.0, 0.0, 0.0, 0.0, 0.0, 2.0, -9.0, 0.0, 0.0, -9.0, 2.0];
    let (_, attention) = gatv2_attention(
        from_vec(rows, [1, 4, 4]),
        a,
        from_vec(vec![0.0], [1, 1]),
        &ends.expect("valid"),
        0.2,
    );
    let alpha = values(&attention);
    assert!(alpha[0] > 0.9 && alpha[3] > 0.9, "{alpha:?}");
}

#[test]
fn a_target_without_edges_is_zero_and_a_graph_without_edges_too() {
    let mut n = Numbers::new(3);
    let (h, a, bias) = (n.tensor([2, 3, 16]), n.tensor([2, 4]), n.tensor([1, 2]));
    let isolated =
        GatEdges::new(vec![0, 0, 1], vec![1], vec![0], vec![0.0], vec![0, 2], 3, 1).expect("valid");
    let empty = GatEdges::new(vec![0, 0], vec![], vec![], vec![], vec![1], 3, 1).expect("valid");
    for layer in [gatv2_attention::<Flex>, composed::gatv2_attention::<Flex>] {
        let run = |edges| layer(h.clone(), a.clone(), bias.clone(), edges, 0.2).0;
        assert!(values(&run(&isolated).narrow(1, 0, 1)).iter().all(|&x| x == 0.0));
        assert!(values(&run(&empty)).iter().all(|&x| x == 0.0));
        // One edge alone has attention 1: the row is what its source sends.
        let sent = h.clone().narrow(1, 1, 1).narrow(2, 0, 8);
        assert_eq!(values(&run(&isolated).narrow(1, 1, 1)), values(&sent));
    }
}

#[test]
fn a_graph_has_the_same_bits_alone_and_in_a_batch() {
    let case = Case::new([19, 12, 7, 4, 16], 5);
    let alone = |b: usize| {
        let h = case.h.clone().narrow(0, b, 1);
        gatv2_attention(h, case.a.clone(), case.relation_bias.clone(), &case.edges, 0.2).0
    };
    let all = case.run(gatv2_attention).out;
    for b in [0, 8, 18] {
        assert_eq!(bits(&alone(b)), bits(&all.clone().narrow(0, b, 1)));
    }
}

#[test]
fn gradients_do_not_depend_on_the_number_of_threads() {
    let at = |threads| {
        with_threads(threads, || {
            let o = Case::new([64, 40, 40, 4, 16], 2).run(gatv2_attention);
            (bits(&o.out), bits(&o.h), bits(&o.a), bits(&o.relation_bias))
        })
    };
    assert!(at(1) == at(2));
}

#[test]
fn a_nan_reaches_every_row_that_sees_it() {
    let case = Case::new([1, 6, 6, 2, 4], 4);
    let mut h = values(&case.h);
    let seen = case.edges.sources()[0] as usize;
    h[seen * 16] = f32::NAN;
    let h = from_vec(h, [1, 6, 16]);
    let out = gatv2_attention(h, case.a.clone(), case.relation_bias.clone(), &case.edges, 0.2).0;
    let target = case.edges.offsets().iter().position(|&o| o > 0).expect("an edge") - 1;
    assert!(values(&out)[target * 8].is_nan());
}
