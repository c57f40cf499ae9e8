use burn::backend::Flex;
use burn::tensor::{
    DType, Tensor,
    backend::{AutodiffBackend, Backend},
};
use gatefold_ops::{GatEdges, GatHeads, GatRows, GatScoring, composed, gat_layer, gat_layer_each};
use proptest::prelude::*;

use crate::gat::{RELATIONS, random_edges};
use crate::support::*;

type Layer<B> = fn(
    GatRows<B>,
    GatScoring<B>,
    GatHeads,
    [Tensor<B, 1>; 2],
    &GatEdges,
    f32,
) -> (Tensor<B, 3>, Tensor<B, 3>);

type Gradients = <Train as AutodiffBackend>::Gradients;

/// Which rows a layer is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    Project,
    Projected,
    Embedded,
}

use Rows::{Embedded, Project, Projected};

/// What a case is about, its sizes apart.
#[derive(Debug, Clone, Copy)]
struct Kind {
    gatv2: bool,
    rows: Rows,
    heads: GatHeads,
    /// Whether targets are all rows in their order.
    in_place: bool,
}

const ALL: Kind = Kind { gatv2: false, rows: Project, heads: GatHeads::Concatenate, in_place: true };

/// Numbers of an embedded node.
const NUMBERS: usize = 3;

struct Case {
    kind: Kind,
    x: Tensor<Flex, 3>,
    weight: Tensor<Flex, 2>,
    h: Tensor<Flex, 3>,
    /// Numbers of embedded nodes; base and directions of `x`, and those of `h`.
    numbers: Tensor<Flex, 3>,
    embedding: [[Tensor<Flex, 2>; 2]; 2],
    /// a_src, a_dst and the relation bias, or a and the relation bias
    scores: Vec<Tensor<Flex, 2>>,
    norm: [Tensor<Flex, 1>; 2],
    g: Tensor<Flex, 3>,
    edges: GatEdges,
}

/// Values, attention, and gradients by name.
struct Outcome {
    out: Tensor<Flex, 3>,
    attention: Tensor<Flex, 3>,
    /// Of the tensors that [`Case::rows`] are made of, first `x` or its base.
    of_rows: Vec<Vec<f32>>,
    of_scores: Vec<Tensor<Flex, 2>>,
    of_norm: [Tensor<Flex, 1>; 2],
}

impl Case {
    fn new(kind: Kind, [batch, sources, targets, heads, channels]: [usize; 5], seed: u64) -> Self {
        let mut n = Numbers::new(seed);
        let mut edges = random_edges(sources, if kind.in_place { sources } else { targets }, &mut n);
        if kind.in_place {
            let (offsets, from) = (edges.offsets().to_vec(), edges.sources().to_vec());
            let (relations, merged) = (edges.relations().to_vec(), edges.log_multiplicity().to_vec());
            let rows = (0..sources as u32).collect();
            edges = GatEdges::new(offsets, from, relations, merged, rows, sources, RELATIONS).expect("valid");
        }
        let wide = heads * channels;
        let width = if kind.heads == GatHeads::Average { channels } else { wide };
        let projected = if kind.gatv2 { 2 * wide } else { wide };
        let scores = if kind.gatv2 { 1 } else { 2 };
        let mut scores: Vec<_> = (0..scores).map(|_| n.tensor([heads, channels])).collect();
        scores.push(n.tensor([RELATIONS, heads]));
        Self {
            kind,
            x: n.tensor([batch, sources, width]),
            weight: n.tensor([width, projected]) * (width as f32).sqrt().recip(),
            h: n.tensor([batch, sources, projected]),
            numbers: n.tensor([batch, sources, NUMBERS]),
            embedding: [width, projected].map(|width| [sources, NUMBERS].map(|rows| n.tensor([rows, width]))),
            scores,
            norm: [n.tensor([width]), n.tensor([width])],
            g: n.tensor([batch, edges.num_targets(), width]),
            edges,
        }
    }

    fn scoring<B: Backend>(&self, scores: &[Tensor<B, 2>]) -> GatScoring<B> {
        match scores {
            [source, target, bias] => GatScoring::Gat {
                source: source.clone(),
                target: target.clone(),
                relation_bias: bias.clone(),
            },
            [weight, bias] => GatScoring::Gatv2 { weight: weight.clone(), relation_bias: bias.clone() },
            _ => unreachable!("two or three"),
        }
    }

    /// The rows of some elements of the batch.
    fn rows(&self, batch: std::ops::Range<usize>) -> GatRows<Flex> {
        let some = |t: &Tensor<Flex, 3>| t.clone().narrow(0, batch.start, batch.len());
        match self.kind.rows {
            Project => GatRows::Project { x: some(&self.x), weight: self.weight.clone() },
            Projected => GatRows::Projected { x: some(&self.x), h: some(&self.h) },
            Embedded => {
                let [x, h] = self.embedding.clone();
                GatRows::Embedded { inputs: some(&self.numbers), x, h }
            }
        }
    }

    fn batch(&self) -> usize {
        self.x.dims()[0]
    }

    fn run(&self, layer: Layer<Train>) -> Outcome {
        let (rows, of_rows) = leaves(self.rows(0..self.batch()));
        let scores: Vec<_> = self.scores.iter().map(leaf).collect();
        let norm = self.norm.each_ref().map(leaf);
        let scoring = self.scoring(&scores);
        let (out, attention) = layer(rows, scoring, self.kind.heads, norm.clone(), &self.edges, 0.2);
        let grads = (out.clone() * data(&self.g)).sum().backward();
        let missing = "a gradient for every input";
        Outcome {
            out: out.inner(),
            attention: attention.inner(),
            of_rows: of_rows(&grads),
            of_scores: scores.iter().map(|score| score.grad(&grads).expect(missing)).collect(),
            of_norm: norm.map(|norm| norm.grad(&grads).expect(missing)),
        }
    }

    /// Without gradients.
    fn forward(&self, batch: std::ops::Range<usize>) -> Tensor<Flex, 3> {
        let (rows, scoring) = (self.rows(batch), self.scoring(&self.scores));
        gat_layer(rows, scoring, self.kind.heads, self.norm.clone(), &self.edges, 0.2).0
    }
}

/// Rows whose tensors are leaves, and what fetches their gradients.
fn leaves(rows: GatRows<Flex>) -> (GatRows<Train>, impl Fn(&Gradients) -> Vec<Vec<f32>>) {
    let (mut of_batch, mut of_all) = (Vec::new(), Vec::new());
    let mut batched = |t: &Tensor<Flex, 3>| {
        of_batch.push(leaf(t));
        of_batch[of_batch.len() - 1].clone()
    };
    let mut shared = |t: &Tensor<Flex, 2>| {
        of_all.push(leaf(t));
        of_all[of_all.len() - 1].clone()
    };
    let rows = match rows {
        GatRows::Project { x, weight } => GatRows::Project { x: batched(&x), weight: shared(&weight) },
        GatRows::Projected { x, h } => GatRows::Projected { x: batched(&x), h: batched(&h) },
        GatRows::Embedded { inputs, x, h } => {
            let [x, h] = [x, h].map(|embedding| embedding.each_ref().map(&mut shared));
            GatRows::Embedded { inputs: data(&inputs), x, h }
        }
    };
    let gradients = move |grads: &Gradients| {
        let missing = "a gradient for every input";
        let of_batch = of_batch.iter().map(|t| values(&t.grad(grads).expect(missing)));
        of_batch.chain(of_all.iter().map(|t| values(&t.grad(grads).expect(missing)))).collect()
    };
    (rows, gradients)
}

fn assert_same(fused: &Outcome, plain: &Outcome) {
    assert_within("value", 1e-5, 1.0, &fused.out, &plain.out);
    assert_close("attention", &fused.attention, &plain.attention);
    // Through a norm of few numbers gradients are of the order of 10 and cancel.
    for (fused, plain) in fused.of_rows.iter().zip(&plain.of_rows) {
        let [fused, plain] = [fused, plain].map(|of| from_vec(of.clone(), [of.len()]));
        assert_within("gradient of the rows", 1e-5, 5.0, &fused, &plain);
    }
    for (fused, plain) in fused.of_scores.iter().zip(&plain.of_scores) {
        assert_within("gradient of the scores", 1e-5, 5.0, fused, plain);
    }
    for (fused, plain) in fused.of_norm.iter().zip(&plain.of_norm) {
        assert_within("gradient of the norm", 1e-5, 5.0, fused, plain);
    }
}

proptest! {
    #![proptest_config(cases(60))]
    #[test]
    fn the_kernel_equals_the_composition(
        gatv2: bool, rows in prop::sample::select(vec![Project, Projected, Embedded]), average: bool, in_place: bool,
        batch in 1usize..11, sources in 1usize..9, targets in 1usize..9,
        (heads, channels) in prop::sample::select(vec![
            (1usize, 8usize), (2, 5), (3, 16), (4, 8), (4, 16), (4, 12), (6, 8), (8, 8), (8, 16), (12, 8),
            (1, 32), (2, 16), (2, 32),
        ]),
        seed: u64,
    ) {
        let heads_as = if average { GatHeads::Average } else { GatHeads::Concatenate };
        let kind = Kind { gatv2, rows, heads: heads_as, in_place };
        let case = Case::new(kind, [batch, sources, targets, heads, channels], seed);
        prop_assume!(case.edges.num_edges() > 0);
        assert_same(&case.run(gat_layer), &case.run(composed::gat_layer));
    }
}

#[test]
fn every_common_size_equals_the_composition() {
    let whole = [(4, 8), (4, 16), (4, 32), (4, 64), (8, 8), (8, 32), (12, 16)];
    let in_parts = [(1, 32), (1, 64), (1, 128), (1, 256), (2, 16), (2, 32), (2, 64), (2, 128)];
    for (heads, channels) in whole.into_iter().chain(in_parts) {
        for (gatv2, rows) in [(false, Project), (true, Project), (false, Embedded), (true, Embedded)] {
            let case = Case::new(Kind { gatv2, rows, ..ALL }, [3, 20, 20, heads, channels], 7);
            assert_same(&case.run(gat_layer), &case.run(composed::gat_layer));
        }
    }
}

#[test]
fn targets_of_many_edges_equal_the_composition_and_have_the_bits_of_a_rollout() {
    let kinds = [
        Kind { gatv2: false, ..ALL },
        Kind { gatv2: true, ..ALL },
        Kind { heads: GatHeads::Average, ..ALL },
        Kind { rows: Embedded, ..ALL },
    ];
    for kind in kinds {
        let mut case = Case::new(kind, [3, 12, 12, 4, 16], 13);
        let mut n = Numbers::new(4);
        let [from, relations] =
            [12, RELATIONS].map(|below| (0..12 * 20).map(|_| n.below(below) as u32).collect());
        let offsets = (0..=12).map(|target| target * 20).collect();
        let edges = GatEdges::new(offsets, from, relations, vec![0.0; 240], (0..12).collect(), 12, RELATIONS);
        case.edges = edges.expect("valid");
        let fused = case.run(gat_layer);
        assert_same(&fused, &case.run(composed::gat_layer));
        assert_eq!(bits(&fused.out), bits(&case.forward(0..3)));
    }
}

#[test]
fn in_f64_it_is_the_composition() {
    for gatv2 in [false, true] {
        let case = Case::new(Kind { gatv2, ..ALL }, [2, 5, 5, 4, 8], 11);
        let exact = |t: Tensor<Flex, 2>| t.cast(DType::F64);
        let scores: Vec<_> = case.scores.iter().cloned().map(exact).collect();
        let norm = case.norm.clone().map(|t| t.cast(DType::F64));
        let rows =
            GatRows::Project { x: case.x.clone().cast(DType::F64), weight: exact(case.weight.clone()) };
        let (out, _) = gat_layer(rows, case.scoring(&scores), GatHeads::Concatenate, norm, &case.edges, 0.2);
        assert_eq!(out.dtype(), DType::F64);
        assert_within("kernel", 1e-5, 1.0, &case.forward(0..2), &out.cast(DType::F32));
    }
}

/// Each kind of rows, in GAT and GATv2.
fn every_kind_of_rows() -> impl Iterator<Item = (bool, Rows)> {
    [Project, Projected, Embedded].into_iter().flat_map(|rows| [(false, rows), (true, rows)])
}

#[test]
fn a_rollout_has_the_bits_of_an_update_and_a_graph_those_it_has_alone() {
    for (gatv2, rows) in every_kind_of_rows() {
        for (heads, channels) in [(4, 16), (4, 12), (8, 8), (1, 64), (2, 16)] {
            let case = Case::new(Kind { gatv2, rows, ..ALL }, [19, 12, 7, heads, channels], 5);
            let all = case.run(gat_layer).out;
            assert_eq!(bits(&all), bits(&case.forward(0..19)));
            for b in [0, 8, 18] {
                assert_eq!(bits(&case.forward(b..b + 1)), bits(&all.clone().narrow(0, b, 1)));
            }
        }
    }
}

#[test]
fn many_chunks_equal_the_composition_and_do_not_depend_on_the_number_of_threads() {
    for (gatv2, rows) in every_kind_of_rows() {
        for in_place in [true, false] {
            let kind = Kind { gatv2, rows, in_place, ..ALL };
            let case = || Case::new(kind, [64, 40, 30, 4, 16], 2);
            let at = |threads| {
                with_threads(threads, || {
                    let o = case().run(gat_layer);
                    let of_scores: Vec<_> = o.of_scores.iter().map(bits).collect();
                    (bits(&o.out), o.of_rows, of_scores, o.of_norm.map(|norm| bits(&norm)))
                })
            };
            assert!(at(1) == at(2), "{kind:?}");
            assert_same(&case().run(gat_layer), &case().run(composed::gat_layer));
        }
    }
}

/// Rows of several cases, which share what is learned with the first, one after the other.
fn joined(cases: &[Case]) -> GatRows<Flex> {
    let all = |of: fn(&Case) -> &Tensor<Flex, 3>| {
        Tensor::cat(cases.iter().map(|case| of(case).clone()).collect(), 1)
    };
    match cases[0].kind.rows {
        Project => GatRows::Project { x: all(|case| &case.x), weight: cases[0].weight.clone() },
        Projected => GatRows::Projected { x: all(|case| &case.x), h: all(|case| &case.h) },
        Embedded => {
            let embedding = |i: usize| {
                let bases = cases.iter().map(|case| case.embedding[i][0].clone()).collect();
                [Tensor::cat(bases, 0), cases[0].embedding[i][1].clone()]
            };
            GatRows::Embedded { inputs: all(|case| &case.numbers), x: embedding(0), h: embedding(1) }
        }
    }
}

/// Several cases with the parameters of the first as one call: new rows, the gradients of the rows, and those of
/// scores and norm, joined.
fn each(cases: &[Case]) -> (Tensor<Flex, 3>, Vec<Vec<f32>>, Vec<f32>) {
    let case = &cases[0];
    let (rows, of_rows) = leaves(joined(cases));
    let scores: Vec<_> = case.scores.iter().map(leaf).collect();
    let norm = case.norm.each_ref().map(leaf);
    let graphs: Vec<_> = cases.iter().map(|case| case.edges.clone()).collect();
    let (scoring, heads) = (case.scoring(&scores), case.kind.heads);
    let out = gat_layer_each(rows, scoring, heads, norm.clone(), &graphs, 0.2);
    let g = Tensor::cat(cases.iter().map(|case| case.g.clone()).collect(), 1);
    let grads = (out.clone() * data(&g)).sum().backward();
    let mut of_parameters = Vec::new();
    scores.iter().for_each(|score| of_parameters.extend(values(&score.grad(&grads).expect("a gradient"))));
    norm.iter().for_each(|norm| of_parameters.extend(values(&norm.grad(&grads).expect("a gradient"))));
    (out.inner(), of_rows(&grads), of_parameters)
}

#[test]
fn graphs_of_their_own_have_the_bits_that_each_has_alone_and_gradients_that_add_up() {
    for (gatv2, rows) in every_kind_of_rows() {
        let kind = Kind { gatv2, rows, heads: GatHeads::Concatenate, in_place: false };
        let sizes = [[1, 12, 7, 4, 16], [1, 300, 280, 4, 16], [1, 5, 9, 4, 16]];
        let mut cases: Vec<_> =
            sizes.into_iter().zip(3..).map(|(size, seed)| Case::new(kind, size, seed)).collect();
        for i in 1..cases.len() {
            let directions = cases[0].embedding.each_ref().map(|[_, directions]| directions.clone());
            cases[i].embedding.iter_mut().zip(directions).for_each(|(of_case, shared)| of_case[1] = shared);
            let (weight, scores, norm) =
                (cases[0].weight.clone(), cases[0].scores.clone(), cases[0].norm.clone());
            (cases[i].weight, cases[i].scores, cases[i].norm) = (weight, scores, norm);
        }
        let (out, of_rows, of_parameters) = each(&cases);
        // Gradients of tensors with rows for each graph, one after the other; of others, the sum.
        let of_each = match rows {
            Project => [true, false].to_vec(),
            Projected => [true, true].to_vec(),
            Embedded => [true, false, true, false].to_vec(),
        };
        let mut expected = vec![Vec::new(); of_rows.len()];
        let (mut new_rows, mut sum) = (0, vec![0.0; of_parameters.len()]);
        let add = |sum: &mut [f32], more: &[f32]| sum.iter_mut().zip(more).for_each(|(sum, d)| *sum += d);
        for case in &cases {
            let alone = case.run(gat_layer);
            let targets = case.edges.num_targets();
            assert_eq!(bits(&out.clone().narrow(1, new_rows, targets)), bits(&alone.out));
            new_rows += targets;
            for ((expected, of_alone), &of_each) in expected.iter_mut().zip(alone.of_rows).zip(&of_each) {
                if of_each || expected.is_empty() {
                    expected.extend(of_alone);
                } else {
                    add(expected, &of_alone);
                }
            }
            let mut of_alone = Vec::new();
            alone.of_scores.iter().for_each(|score| of_alone.extend(values(score)));
            alone.of_norm.iter().for_each(|norm| of_alone.extend(values(norm)));
            add(&mut sum, &of_alone);
        }
        let near = |what: &str, got: &[f32], expected: &[f32]| {
            let [got, expected] = [got, expected].map(|of| from_vec(of.to_vec(), [of.len()]));
            assert_within(what, 1e-5, 5.0, &got, &expected);
        };
        for ((got, expected), of_each) in of_rows.iter().zip(&expected).zip(of_each) {
            if of_each {
                assert_eq!(got, expected, "rows of a graph have the gradient that they have alone");
            } else {
                near("gradient of what all graphs' rows share", got, expected);
            }
        }
        near("sum of gradients", &of_parameters, &sum);
        let at = |threads| {
            with_threads(threads, || {
                let (out, of_rows, rest) = each(&cases);
                (bits(&out), of_rows, rest)
            })
        };
        assert!(at(1) == at(2), "the number of threads changes nothing");
        let graphs: Vec<_> = cases.iter().map(|case| case.edges.clone()).collect();
        let (scoring, norm) = (cases[0].scoring(&cases[0].scores), cases[0].norm.clone());
        let one_by_one = composed::gat_layer_each(joined(&cases), scoring, kind.heads, norm, &graphs, 0.2);
        assert_within("composition", 1e-5, 1.0, &out, &one_by_one);
    }
}

#[test]
fn a_graph_without_edges_passes_on_the_norm_of_nothing() {
    let empty = GatEdges::new(vec![0, 0], vec![], vec![], vec![], vec![1], 3, RELATIONS).expect("valid");
    for (gatv2, rows) in [(false, Project), (true, Projected)] {
        let mut case = Case::new(Kind { gatv2, rows, ..ALL }, [2, 3, 3, 4, 8], 3);
        case.edges = empty.clone();
        case.g = case.g.clone().narrow(1, 0, 1);
        let fused = case.run(gat_layer);
        // The norm of zeros is the bias, for each of the two graphs.
        let (bias, g) = (values(&case.norm[1]), values(&case.g));
        let row =
            case.x.clone().narrow(1, 1, 1) + from_vec(bias.iter().map(|b| b.max(0.0)).collect(), [1, 1, 32]);
        assert_close("value", &fused.out, &row);
        let of_x = from_vec(fused.of_rows[0].clone(), [2, 3, 32]);
        assert_eq!(values(&of_x.clone().narrow(1, 1, 1)), g);
        assert!(values(&of_x.narrow(1, 0, 1)).iter().all(|&d| d == 0.0));
        let of_bias = |c: usize| if bias[c] > 0.0 { g[c] + g[32 + c] } else { 0.0 };
        assert_close("bias", &fused.of_norm[1], &from_vec((0..32).map(of_bias).collect(), [32]));
        assert!(fused.of_rows[1].iter().all(|&d| d == 0.0));
    }
}

#[test]
fn a_nan_stays_one() {
    for gatv2 in [false, true] {
        let mut case = Case::new(Kind { gatv2, ..ALL }, [1, 6, 6, 4, 8], 4);
        let mut x = values(&case.x);
        let seen = case.edges.sources()[0] as usize;
        x[seen * 32] = f32::NAN;
        case.x = from_vec(x, [1, 6, 32]);
        let target = case.edges.offsets().iter().position(|&o| o > 0).expect("an edge") - 1;
        assert!(values(&case.forward(0..1))[target * 32].is_nan());
    }
}
