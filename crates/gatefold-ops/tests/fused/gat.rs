use burn::backend::Flex;
use burn::tensor::{DType, Tensor};
use gatefold_ops::{GatEdges, composed, gat_attention};
use proptest::prelude::*;

use crate::support::*;

type Layer = fn(
    Tensor<Train, 3>,
    Tensor<Train, 2>,
    Tensor<Train, 2>,
    Tensor<Train, 2>,
    &GatEdges,
    f32,
) -> (Tensor<Train, 3>, Tensor<Train, 3>);

struct Case {
    h: Tensor<Flex, 3>,
    a_src: Tensor<Flex, 2>,
    a_dst: Tensor<Flex, 2>,
    relation_bias: Tensor<Flex, 2>,
    g: Tensor<Flex, 3>,
    edges: GatEdges,
}

struct Outcome {
    out: Tensor<Flex, 3>,
    attention: Tensor<Flex, 3>,
    h: Tensor<Flex, 3>,
    a_src: Tensor<Flex, 2>,
    a_dst: Tensor<Flex, 2>,
    relation_bias: Tensor<Flex, 2>,
}

pub(crate) const RELATIONS: usize = 3;

/// Random in-edges, up to 5 per target row and sometimes none.
pub(crate) fn random_edges(sources: usize, targets: usize, n: &mut Numbers) -> GatEdges {
    let mut offsets = vec![0];
    let (mut from, mut relations, mut multiplicity) = (vec![], vec![], vec![]);
    for _ in 0..targets {
        for _ in 0..n.below(6) {
            from.push(n.below(sources) as u32);
            relations.push(n.below(RELATIONS) as u32);
            multiplicity.push(((1 + n.below(3)) as f32).ln());
        }
        offsets.push(from.len() as u32);
    }
    let rows = (0..targets).map(|_| n.below(sources) as u32).collect();
    GatEdges::new(offsets, from, relations, multiplicity, rows, sources, RELATIONS).expect("valid edges")
}

impl Case {
    fn new([batch, sources, targets, heads, channels]: [usize; 5], seed: u64) -> Self {
        let mut n = Numbers::new(seed);
        let edges = random_edges(sources, targets, &mut n);
        Self {
            h: n.tensor([batch, sources, heads * channels]),
            a_src: n.tensor([heads, channels]),
            a_dst: n.tensor([heads, channels]),
            relation_bias: n.tensor([RELATIONS, heads]),
            g: n.tensor([batch, targets, heads * channels]),
            edges,
        }
    }

    fn run(&self, layer: Layer) -> Outcome {
        let (h, a_src, a_dst) = (leaf(&self.h), leaf(&self.a_src), leaf(&self.a_dst));
        let relation_bias = leaf(&self.relation_bias);
        let (out, attention) =
            layer(h.clone(), a_src.clone(), a_dst.clone(), relation_bias.clone(), &self.edges, 0.2);
        let grads = (out.clone() * data(&self.g)).sum().backward();
        let missing = "a gradient for every input";
        Outcome {
            out: out.inner(),
            attention: attention.inner(),
            h: h.grad(&grads).expect(missing),
            a_src: a_src.grad(&grads).expect(missing),
            a_dst: a_dst.grad(&grads).expect(missing),
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
        let (fused, plain) = (case.run(gat_attention), case.run(composed::gat_attention));
        assert_close("value", &fused.out, &plain.out);
        assert_close("attention", &fused.attention, &plain.attention);
        assert_close("gradient of h", &fused.h, &plain.h);
        assert_close("gradient of a_src", &fused.a_src, &plain.a_src);
        assert_close("gradient of a_dst", &fused.a_dst, &plain.a_dst);
        assert_close("gradient of the relation bias", &fused.relation_bias, &plain.relation_bias);
    }
}

#[test]
fn the_composition_equals_the_formula_in_f64() {
    let case = Case::new([2, 5, 4, 2, 3], 11);
    let (heads, channels) = (2, 3);
    let row = |t: &[f32], at: usize| t[at * channels..(at + 1) * channels].to_vec();
    let [h, a_src, a_dst, bias] =
        [values(&case.h), values(&case.a_src), values(&case.a_dst), values(&case.relation_bias)];
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
    let mut expected = vec![0.0f32; 2 * 4 * heads * channels];
    for b in 0..2 {
        for t in 0..4 {
            for k in 0..heads {
                let node = |j: u32| row(&h, (b * 5 + j as usize) * heads + k);
                let own = dot(&row(&a_dst, k), &node(case.edges.targets()[t]));
                let range = case.edges.offsets()[t] as usize..case.edges.offsets()[t + 1] as usize;
                let weights: Vec<f64> = range
                    .clone()
                    .map(|e| {
                        let relation = case.edges.relations()[e] as usize;
                        let score = dot(&row(&a_src, k), &node(case.edges.sources()[e]))
                            + own
                            + f64::from(bias[relation * heads + k]);
                        let leaky = if score < 0.0 { f64::from(0.2f32) * score } else { score };
                        (leaky + f64::from(case.edges.log_multiplicity()[e])).exp()
                    })
                    .collect();
                let sum: f64 = weights.iter().sum();
                for c in 0..channels {
                    let messages = range.clone().zip(&weights);
                    let total: f64 =
                        messages.map(|(e, w)| w / sum * f64::from(node(case.edges.sources()[e])[c])).sum();
                    expected[((b * 4 + t) * heads + k) * channels + c] = total as f32;
                }
            }
        }
    }
    let expected = from_vec(expected, [2, 4, heads * channels]);
    let inputs = (case.h.clone(), case.a_src.clone(), case.a_dst.clone(), case.relation_bias.clone());
    let f64s = |t: Tensor<Flex, 2>| t.cast(DType::F64);
    let (exact, _) = gat_attention(
        inputs.0.cast(DType::F64),
        f64s(inputs.1),
        f64s(inputs.2),
        f64s(inputs.3),
        &case.edges,
        0.2,
    );
    assert_within("composition in f64", 1e-6, 1e-3, &exact.cast(DType::F32), &expected);
    assert_close("kernel", &case.run(gat_attention).out, &expected);
}

#[test]
fn multiplicity_equals_keeping_the_parallel_edges() {
    let mut n = Numbers::new(3);
    let (h, a_src, a_dst) = (n.tensor([2, 3, 8]), n.tensor([2, 4]), n.tensor([2, 4]));
    let bias = n.tensor([1, 2]);
    let merged = GatEdges::new(vec![0, 2], vec![1, 2], vec![0, 0], vec![3f32.ln(), 0.0], vec![0], 3, 1);
    let copies = GatEdges::new(vec![0, 4], vec![1, 1, 1, 2], vec![0; 4], vec![0.0; 4], vec![0], 3, 1);
    let run =
        |edges: GatEdges| gat_attention(h.clone(), a_src.clone(), a_dst.clone(), bias.clone(), &edges, 0.2).0;
    assert_close("merged", &run(merged.expect("valid")), &run(copies.expect("valid")));
}

#[test]
fn a_target_without_edges_is_zero_and_a_graph_without_edges_too() {
    let mut n = Numbers::new(3);
    let (h, a_src, a_dst) = (n.tensor([2, 3, 8]), n.tensor([2, 4]), n.tensor([2, 4]));
    let bias = n.tensor([1, 2]);
    let isolated =
        GatEdges::new(vec![0, 0, 1], vec![1], vec![0], vec![0.0], vec![0, 2], 3, 1).expect("valid");
    let empty = GatEdges::new(vec![0, 0], vec![], vec![], vec![], vec![1], 3, 1).expect("valid");
    for layer in [gat_attention::<Flex>, composed::gat_attention::<Flex>] {
        let run = |edges| layer(h.clone(), a_src.clone(), a_dst.clone(), bias.clone(), edges, 0.2).0;
        let out = values(&run(&isolated).narrow(1, 0, 1));
        assert!(out.iter().all(|&x| x == 0.0));
        assert!(values(&run(&empty)).iter().all(|&x| x == 0.0));
        // One edge alone has attention 1: the row is its source.
        assert_eq!(values(&run(&isolated).narrow(1, 1, 1)), values(&h.clone().narrow(1, 1, 1)));
    }
}

#[test]
fn a_graph_has_the_same_bits_alone_and_in_a_batch() {
    let case = Case::new([19, 12, 7, 4, 16], 5);
    let alone = |b: usize| {
        let h = case.h.clone().narrow(0, b, 1);
        let (a_src, a_dst) = (case.a_src.clone(), case.a_dst.clone());
        gat_attention(h, a_src, a_dst, case.relation_bias.clone(), &case.edges, 0.2).0
    };
    let all = case.run(gat_attention).out;
    for b in [0, 8, 18] {
        assert_eq!(bits(&alone(b)), bits(&all.clone().narrow(0, b, 1)));
    }
}

#[test]
fn gradients_do_not_depend_on_the_number_of_threads() {
    let at = |threads| {
        with_threads(threads, || {
            let o = Case::new([64, 40, 40, 4, 16], 2).run(gat_attention);
            (bits(&o.out), bits(&o.h), bits(&o.a_src), bits(&o.a_dst), bits(&o.relation_bias))
        })
    };
    assert!(at(1) == at(2));
}

#[test]
fn a_nan_reaches_every_row_that_sees_it() {
    let case = Case::new([1, 6, 6, 2, 4], 4);
    let mut h = values(&case.h);
    let seen = case.edges.sources()[0] as usize;
    h[seen * 8] = f32::NAN;
    let h = from_vec(h, [1, 6, 8]);
    let (a_src, a_dst) = (case.a_src.clone(), case.a_dst.clone());
    let out = gat_attention(h, a_src, a_dst, case.relation_bias.clone(), &case.edges, 0.2).0;
    let target = case.edges.offsets().iter().position(|&o| o > 0).expect("an edge") - 1;
    assert!(values(&out)[target * 8].is_nan());
}
