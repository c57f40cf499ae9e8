//! GATv2 against PyTorch Geometric's `GATv2Conv`, and with relations against its definition in f64.

// N nodes, E edges, F inputs, H heads, C width of a head, R relations

use std::collections::HashMap;

use burn::tensor::Tensor;
use gatefold_ops::{Activation, GatEdges, composed, gatv2_attention, linear};
use gatefold_tests::fixture::{Matrix, cases, flat, matrix};
use gatefold_tests::tolerance::{assert_norm, values};
use gatefold_tests::trainee::Train;
use serde::Deserialize;

use crate::gat::{Graph, Linear};

#[derive(Deserialize)]
struct Case {
    #[serde(flatten)]
    graph: Graph,
    by: String,
    x: Matrix,
    weight: Matrix,
    att: Matrix,
    relation_bias: Matrix,
    upstream: Matrix,
    output: Matrix,
    grad_x: Matrix,
    grad_weight: Matrix,
    grad_att: Matrix,
    grad_relation_bias: Matrix,
    f32_error: HashMap<String, f64>,
}

type Attention = fn(
    Tensor<Train, 3>,
    Tensor<Train, 2>,
    Tensor<Train, 2>,
    &GatEdges,
    f32,
) -> (Tensor<Train, 3>, Tensor<Train, 3>);

fn check(path: &str, linear: Linear, attention: Attention) {
    let mut checked = HashMap::from([("PyG", 0), ("definition", 0)]);
    for case in cases::<Case>("gatv2") {
        let graph = &case.graph;
        *checked.get_mut(case.by.as_str()).expect("a known reference") += 1;
        let (edges, expected_attention) = graph.edges(case.relation_bias.len());
        let leaf = |rows: &Matrix| matrix::<Train>(rows).require_grad();
        let (x, weight) = (leaf(&case.x), leaf(&case.weight));
        let (att, bias) = (leaf(&case.att), leaf(&case.relation_bias));

        let width = 2 * graph.heads * graph.channels;
        let zero = Tensor::zeros([width], &Default::default());
        let h = linear(x.clone(), weight.clone(), zero, Activation::Identity); // [N, 2 * H * C]
        let h = h.reshape([1, graph.nodes, width]);
        let (out, alpha) = attention(h, att.clone(), bias.clone(), &edges, 0.2);
        let output = graph.combined(out);
        let grads = (output.clone() * matrix(&case.upstream)).sum().backward();
        let gradient = |of: &Tensor<Train, 2>| values(of.grad(&grads).expect("every input gets a gradient"));

        let compared = [
            ("output", values(output), flat(&case.output)),
            ("alpha", values(alpha), expected_attention),
            ("grad_x", gradient(&x), flat(&case.grad_x)),
            ("grad_weight", gradient(&weight), flat(&case.grad_weight)),
            ("grad_att", gradient(&att), flat(&case.grad_att)),
            ("grad_relation_bias", gradient(&bias), flat(&case.grad_relation_bias)),
        ];
        for (name, got, expected) in compared {
            let tolerance = (4.0 * case.f32_error[name]).max(1e-5);
            assert_norm(&format!("{path}, {}, {name}", graph.name), &got, &expected, tolerance);
        }
    }
    assert!(checked.values().all(|&count| count >= 4), "{checked:?}");
}

#[test]
fn attention_and_its_gradients_equal_pytorch_geometric_and_the_definition() {
    check("fused", linear, gatv2_attention);
    check("composed", composed::linear, composed::gatv2_attention);
}
