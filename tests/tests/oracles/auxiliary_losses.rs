//! Auxiliary losses, through the routing that they act on, against PyTorch.

use std::collections::HashMap;

use burn::tensor::{Bool, Tensor, TensorData};
use gatefold_curriculum::Routing;
use gatefold_ppo::losses;
use gatefold_router::{Gates, route};
use gatefold_tests::fixture::{Matrix, cases, flat, matrix};
use gatefold_tests::tolerance::{assert_near, assert_norm, relative_error, values};
use gatefold_tests::trainee::Train;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    name: String,
    routing: Routing,
    temperature: f32,
    z: Matrix,
    gates: Matrix,
    expert_logits: Vec<Matrix>,
    mask: Vec<Vec<bool>>,
    losses: HashMap<String, Expected>,
}

#[derive(Deserialize)]
struct Expected {
    value: f64,
    grad_z: Matrix,
    grad_expert_logits: Option<Vec<Matrix>>,
}

type Loss = fn(Gates<Train>, Tensor<Train, 3>, Tensor<Train, 2, Bool>) -> Tensor<Train, 1>;

const LOSSES: [(&str, Loss); 4] = [
    ("balance_mse", |gates, _, _| losses::load_balance_mse(gates.probabilities)),
    ("balance_switch", |gates, _, _| losses::load_balance_switch(gates.probabilities, gates.alpha)),
    ("diversity", |_, logits, mask| losses::diversity(logits, Some(mask))),
    ("alpha_entropy", |gates, _, _| losses::gate_entropy(gates.alpha)),
];

impl Case {
    fn expert_logits(&self) -> Tensor<Train, 3> {
        let shape = [self.z.len(), self.z[0].len(), self.mask[0].len()];
        let values = self.expert_logits.iter().flatten().flatten().map(|&x| x as f32).collect::<Vec<_>>();
        Tensor::from_data(TensorData::new(values, shape), &Default::default())
    }

    fn mask(&self) -> Tensor<Train, 2, Bool> {
        let shape = [self.mask.len(), self.mask[0].len()];
        Tensor::from_data(TensorData::new(self.mask.concat(), shape), &Default::default())
    }
}

#[test]
fn auxiliary_losses_and_their_gradients_equal_pytorch() {
    for case in cases::<Case>("losses") {
        for (name, loss) in LOSSES {
            let what = |part: &str| format!("{}, {name}, {part}", case.name);
            let expected = &case.losses[name];
            let z = matrix::<Train>(&case.z).require_grad();
            let logits = case.expert_logits().require_grad();
            let gates = route(z.clone(), case.routing, case.temperature, None);
            assert_norm(&what("gates"), &values(gates.alpha.clone()), &flat(&case.gates), 1e-6);

            let loss = loss(gates, logits.clone(), case.mask());
            let grads = loss.clone().backward();
            assert_near(&what("value"), f64::from(values(loss)[0]), expected.value, 2e-6);
            check_gradient(&what("gradient by z"), z.grad(&grads), &flat(&expected.grad_z));
            let by_logits = match &expected.grad_expert_logits {
                Some(rows) => rows.iter().flat_map(|row| flat(row)).collect(),
                None => vec![0.0; case.expert_logits.iter().flatten().flatten().count()],
            };
            check_gradient(&what("gradient by expert logits"), logits.grad(&grads), &by_logits);
        }
    }
}

/// Relative to the norm, but where differences cancel no closer than the rounding of their terms.
fn check_gradient<const D: usize>(what: &str, got: Option<Tensor<burn::backend::Flex, D>>, expected: &[f64]) {
    let got = got.map_or_else(|| vec![0.0; expected.len()], values);
    let norm = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
    let scale = if norm > 0.0 { norm } else { 1.0 };
    let difference = relative_error(&got, expected) * scale;
    assert!(difference <= 1e-5 * norm + 2e-7, "{what}: off by {difference:.2e} of {norm:.2e}");
}
