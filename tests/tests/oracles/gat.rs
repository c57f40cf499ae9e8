//! Graph attention against PyTorch Geometric's `GATConv`.

// N nodes, E edges, F inputs, H heads, C width of a head, R relations

use std::collections::HashMap;

use burn::tensor::Tensor;
use gatefold_graph::Csr;
use gatefold_ops::{Activation, GatEdges, composed, gat_attention, linear};
use gatefold_tests::fixture::{Matrix, cases, flat, matrix};
use gatefold_tests::tolerance::{assert_norm, values};
use gatefold_tests::trainee::Train;
use serde::Deserialize;

/// What a case is called, its edges, and the reference's attention.
#[derive(Deserialize)]
pub(crate) struct Graph {
    pub(crate) name: String,
    pub(crate) nodes: usize,
    pub(crate) heads: usize,
    pub(crate) channels: usize,
    concat: bool,
    sources: Vec<usize>,
    targets: Vec<usize>,
    relations: Vec<usize>,
    alpha: Matrix,
}

#[derive(Deserialize)]
struct Case {
    #[serde(flatten)]
    graph: Graph,
    x: Matrix,
    weight: Matrix,
    att_src: Matrix,
    att_dst: Matrix,
    relation_bias: Matrix,
    upstream: Matrix,
    output: Matrix,
    grad_x: Matrix,
    grad_weight: Matrix,
    grad_att_src: Matrix,
    grad_att_dst: Matrix,
    grad_relation_bias: Matrix,
    f32_error: HashMap<String, f64>,
}

pub(crate) type Linear =
    fn(Tensor<Train, 2>, Tensor<Train, 2>, Tensor<Train, 1>, Activation) -> Tensor<Train, 2>;
type Attention = fn(
    Tensor<Train, 3>,
    Tensor<Train, 2>,
    Tensor<Train, 2>,
    Tensor<Train, 2>,
    &GatEdges,
    f32,
) -> (Tensor<Train, 3>, Tensor<Train, 3>);

impl Graph {
    /// The edges by target, parallel copies merged, and the reference's attention of each: the sum over
    /// its copies.
    pub(crate) fn edges(&self, num_relations: usize) -> (GatEdges, Vec<f64>) {
        let triples = || self.sources.iter().zip(&self.targets).zip(&self.relations);
        let csr = Csr::from_edges(self.nodes, num_relations, triples().map(|((&s, &t), &r)| (s, t, r)));
        assert!(csr.num_edges() < self.sources.len(), "{}: parallel edges are part of the case", self.name);
        let mut attention = Vec::new();
        for target in 0..self.nodes {
            for (source, relation, _) in csr.in_edges(target) {
                let merged = (source as usize, target, relation as usize);
                let copies = triples().zip(&self.alpha).filter(|(((s, t), r), _)| (**s, **t, **r) == merged);
                let copies: Vec<_> = copies.map(|(_, alpha)| alpha).collect();
                let sum = |head| copies.iter().map(|alpha| alpha[head]).sum::<f64>();
                attention.extend((0..self.heads).map(sum));
            }
        }
        let log_multiplicity = csr.multiplicity.iter().map(|&copies| (copies as f32).ln()).collect();
        let targets = (0..self.nodes as u32).collect();
        let edges = GatEdges::new(
            csr.offsets,
            csr.sources,
            csr.relations,
            log_multiplicity,
            targets,
            self.nodes,
            num_relations,
        );
        (edges.expect("edges of the fixture fit"), attention)
    }

    /// New rows `[1, N, H * C]` with their heads side by side or averaged.
    pub(crate) fn combined(&self, out: Tensor<Train, 3>) -> Tensor<Train, 2> {
        let (nodes, heads, channels) = (self.nodes, self.heads, self.channels);
        if self.concat {
            out.reshape([nodes, heads * channels])
        } else {
            out.reshape([nodes, heads, channels]).mean_dim(1).reshape([nodes, channels])
        }
    }
}

fn check(path: &str, linear: Linear, attention: Attention) {
    for case in cases::<Case>("gat") {
        let graph = &case.graph;
        let (edges, expected_attention) = graph.edges(case.relation_bias.len());
        let leaf = |rows: &Matrix| matrix::<Train>(rows).require_grad();
        let (x, weight) = (leaf(&case.x), leaf(&case.weight));
        let (source, target, bias) = (leaf(&case.att_src), leaf(&case.att_dst), leaf(&case.relation_bias));

        let (nodes, width) = (graph.nodes, graph.heads * graph.channels);
        let zero = Tensor::zeros([width], &Default::default());
        let h = linear(x.clone(), weight.clone(), zero, Activation::Identity); // [N, H * C]
        let (out, alpha) = attention(
            h.reshape([1, nodes, width]),
            source.clone(),
            target.clone(),
            bias.clone(),
            &edges,
            0.2,
        );
        let output = graph.combined(out);
        let grads = (output.clone() * matrix(&case.upstream)).sum().backward();
        let gradient = |of: &Tensor<Train, 2>| values(of.grad(&grads).expect("every input gets a gradient"));

        let compared = [
            ("output", values(output), flat(&case.output)),
            ("alpha", values(alpha), expected_attention),
            ("grad_x", gradient(&x), flat(&case.grad_x)),
            ("grad_weight", gradient(&weight), flat(&case.grad_weight)),
            ("grad_att_src", gradient(&source), flat(&case.grad_att_src)),
            ("grad_att_dst", gradient(&target), flat(&case.grad_att_dst)),
            ("grad_relation_bias", gradient(&bias), flat(&case.grad_relation_bias)),
        ];
        for (name, got, expected) in compared {
            let tolerance = (4.0 * case.f32_error[name]).max(1e-5);
            assert_norm(&format!("{path}, {}, {name}", graph.name), &got, &expected, tolerance);
        }
    }
}

#[test]
fn attention_and_its_gradients_equal_pytorch_geometric() {
    check("fused", linear, gat_attention);
    check("composed", composed::linear, composed::gat_attention);
}
