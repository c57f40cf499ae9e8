//! AdamW behind global-norm clipping, against PyTorch.

use burn::backend::Flex;
use burn::module::{Param, ParamId};
use burn::nn::Linear;
use burn::tensor::Tensor;
use gatefold_optim::{AdamW, Gradients, OptimizerConfig, export};
use gatefold_tests::fixture::{Matrix, cases, flat, matrix, vector};
use gatefold_tests::tolerance::{assert_near, assert_norm};
use gatefold_tests::trainee::Train;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    name: String,
    betas: [f32; 2],
    epsilon: f32,
    weight_decay: f32,
    max_norm: f32,
    initial_weight: Matrix,
    initial_bias: Vec<f64>,
    steps: Vec<Step>,
    r#final: Moments,
    f32_error: f64,
}

#[derive(Deserialize)]
struct Step {
    lr: f64,
    grad_weight: Matrix,
    grad_bias: Vec<f64>,
    norm: f64,
    weight: Matrix,
    bias: Vec<f64>,
}

#[derive(Deserialize)]
struct Moments {
    first_moment_weight: Matrix,
    first_moment_bias: Vec<f64>,
    second_moment_weight: Matrix,
    second_moment_bias: Vec<f64>,
}

#[test]
fn a_trajectory_of_adamw_equals_pytorch() {
    let (mut clipped, mut free) = (0, 0);
    for case in cases::<Case>("adamw") {
        let parameter = |t: Tensor<Train, 2>| Param::initialized(ParamId::new(), t.require_grad());
        let bias = vector::<Train>(&case.initial_bias).require_grad();
        // Two parameters of any shape: it is never evaluated.
        let mut module = Linear::<Train> {
            weight: parameter(matrix(&case.initial_weight)),
            bias: Some(Param::initialized(ParamId::new(), bias)),
        };
        let [beta1, beta2] = case.betas;
        let config = OptimizerConfig { beta1, beta2, eps: case.epsilon, weight_decay: case.weight_decay };
        let mut optimizer = AdamW::<Flex>::new::<Train, _>(config, &module);

        for (t, step) in case.steps.iter().enumerate() {
            let what = |part: &str| format!("{}, step {t}, {part}", case.name);
            // A loss with these gradients.
            let bias = module.bias.as_ref().expect("a bias").val();
            let of_weight = (module.weight.val() * matrix(&step.grad_weight)).sum();
            let loss = of_weight + (bias * vector(&step.grad_bias)).sum();
            let grads = Gradients::of::<Train, _>(&module, loss.backward());
            let (next, done) = optimizer.step::<Train, _>(module, grads, step.lr, case.max_norm);
            module = next;

            assert_near(&what("norm"), done.grad_norm, step.norm, 1e-6);
            assert_eq!(done.clipped, step.norm > f64::from(case.max_norm), "{}", what("clipped"));
            if done.clipped {
                clipped += 1
            } else {
                free += 1
            }
            let now = export::<Train, _>(&module);
            let expected = [("weight", flat(&step.weight)), ("bias", step.bias.clone())];
            for (saved, (name, expected)) in now.iter().zip(expected) {
                assert_eq!(saved.path, name);
                for (&got, expected) in saved.data.iter().zip(expected) {
                    assert_near(&what(name), f64::from(got), expected, 4.0 * case.f32_error);
                }
            }
        }

        let moments = optimizer.export();
        for (path, expected) in [
            ("weight/first", flat(&case.r#final.first_moment_weight)),
            ("bias/first", case.r#final.first_moment_bias.clone()),
            ("weight/second", flat(&case.r#final.second_moment_weight)),
            ("bias/second", case.r#final.second_moment_bias.clone()),
        ] {
            let saved = moments.iter().find(|moment| moment.path == path).expect("a moment of that name");
            // PyTorch keeps the betas in f64: 1 - .999 is 1.3e-5 off in f32, and so is the second moment.
            // Its bias correction is off alike, so the step is not.
            assert_norm(&format!("{}, {path}", case.name), &saved.data, &expected, 2e-5);
        }
    }
    assert!(clipped > 10 && free > 10, "the cases lie on both sides of the largest norm");
}
