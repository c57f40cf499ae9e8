//! Sparsemax and 1.5-entmax against the `entmax` package.

use burn::tensor::{Tensor, TensorData};
use gatefold_ops::{composed, entmax15, sparsemax};
use gatefold_tests::fixture::{Matrix, cases, flat, matrix};
use gatefold_tests::tolerance::{assert_norm, values};
use gatefold_tests::trainee::Train;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    name: String,
    temperature: f32,
    /// `None` is minus infinity: a masked entry.
    logits: Vec<Vec<Option<f32>>>,
    upstream: Matrix,
    gates: Matrix,
    gradient: Matrix,
}

type Projection = fn(Tensor<Train, 2>, f32) -> Tensor<Train, 2>;

fn check(oracle: &str, path: &str, project: Projection) {
    let (mut sparse, mut dense) = (0, 0);
    for case in cases::<Case>(oracle) {
        let what = |part: &str| format!("{path} {oracle}, {}, {part}", case.name);
        let shape = [case.logits.len(), case.logits[0].len()];
        let logits: Vec<f32> = case.logits.iter().flatten().map(|z| z.unwrap_or(f32::NEG_INFINITY)).collect();
        let logits = Tensor::<Train, 2>::from_data(TensorData::new(logits, shape), &Default::default());
        let logits = logits.require_grad();
        let gates = project(logits.clone(), case.temperature);
        let grads = (gates.clone() * matrix(&case.upstream)).sum().backward();

        let (gates, expected) = (values(gates), flat(&case.gates));
        assert_norm(&what("gates"), &gates, &expected, 1e-6);
        for (i, (gate, expected)) in gates.iter().zip(&expected).enumerate() {
            assert_eq!(*gate == 0.0, *expected == 0.0, "{}: entry {i} is {gate}", what("support"));
            if *gate == 0.0 { sparse += 1 } else { dense += 1 }
        }
        let gradient = values(logits.grad(&grads).expect("logits get a gradient"));
        assert_norm(&what("gradient"), &gradient, &flat(&case.gradient), 1e-6);
    }
    assert!(sparse > 100 && dense > 100, "the cases have gates inside and outside the support");
}

#[test]
fn gates_and_gradients_equal_entmax() {
    let table: [(&str, &str, Projection); 4] = [
        ("sparsemax", "fused", |z, t| sparsemax(z, t).expect("a score in every row")),
        ("sparsemax", "composed", composed::sparsemax),
        ("entmax15", "fused", |z, t| entmax15(z, t).expect("a score in every row")),
        ("entmax15", "composed", composed::entmax15),
    ];
    for (oracle, path, project) in table {
        check(oracle, path, project);
    }
}
