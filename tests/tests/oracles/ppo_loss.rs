//! The PPO loss against PyTorch.

use burn::tensor::{Bool, Int, Tensor, TensorData};
use gatefold_ops::{PpoBatch, PpoLossConfig, composed, ppo_loss, ppo_stats};
use gatefold_tests::fixture::{Matrix, cases, flat, matrix, vector};
use gatefold_tests::tolerance::{assert_near, assert_norm, values};
use gatefold_tests::trainee::Train;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    name: String,
    clip: f32,
    value_clip: f32,
    value_coef: f32,
    entropy_coef: f32,
    logits: Matrix,
    mask: Vec<Vec<bool>>,
    actions: Vec<i32>,
    old_log_probs: Vec<f64>,
    returns: Vec<f64>,
    values: Vec<f64>,
    old_values: Vec<f64>,
    normalized_advantages: Vec<f64>,
    policy_loss: f64,
    value_loss: f64,
    entropy: f64,
    loss: f64,
    approx_kl: f64,
    clip_fraction: f64,
    grad_logits_policy: Matrix,
    grad_logits_entropy: Matrix,
    grad_logits: Matrix,
    grad_values_unscaled: Vec<f64>,
    grad_values: Vec<f64>,
}

type PpoLoss = fn(
    Tensor<Train, 2>,
    Tensor<Train, 1>,
    PpoBatch<Train>,
    &PpoLossConfig,
) -> (Tensor<Train, 1>, Tensor<Train, 1>);

/// Loss, statistics, and the gradients by logits and values.
struct Outcome {
    loss: f64,
    stats: Vec<f32>,
    grad_logits: Vec<f32>,
    grad_values: Vec<f32>,
}

impl Case {
    /// The loss with these weights; `policy` scales the advantages.
    fn run(&self, ppo_loss: PpoLoss, policy: f64, value_coef: f32, entropy_coef: f32) -> Outcome {
        let device = Default::default();
        let mask = TensorData::new(self.mask.concat(), [self.mask.len(), self.mask[0].len()]);
        let actions = TensorData::new(self.actions.clone(), [self.actions.len()]);
        let advantages: Vec<f64> = self.normalized_advantages.iter().map(|a| policy * a).collect();
        let batch = PpoBatch {
            actions: Tensor::<Train, 1, Int>::from_data(actions, &device),
            mask: Some(Tensor::<Train, 2, Bool>::from_data(mask, &device)),
            old_log_probs: vector(&self.old_log_probs),
            advantages: vector(&advantages),
            returns: vector(&self.returns),
            old_values: vector(&self.old_values),
        };
        let config = PpoLossConfig {
            clip: self.clip,
            value_clip: (self.value_clip > 0.0).then_some(self.value_clip),
            value_coef,
            entropy_coef,
        };
        let logits = matrix::<Train>(&self.logits).require_grad();
        let predicted = vector::<Train>(&self.values).require_grad();
        let (loss, stats) = ppo_loss(logits.clone(), predicted.clone(), batch, &config);
        let grads = loss.clone().backward();
        Outcome {
            loss: f64::from(values(loss)[0]),
            stats: values(stats),
            grad_logits: values(logits.grad(&grads).expect("logits get a gradient")),
            grad_values: values(predicted.grad(&grads).expect("values get a gradient")),
        }
    }
}

fn check(path: &str, ppo_loss: PpoLoss) {
    for case in cases::<Case>("ppo_loss") {
        let what = |part: &str| format!("{path}, {}, {part}", case.name);
        let whole = case.run(ppo_loss, 1.0, case.value_coef, case.entropy_coef);
        assert_near(&what("loss"), whole.loss, case.loss, 2e-6);
        for (part, index, expected) in [
            ("policy loss", ppo_stats::POLICY_LOSS, case.policy_loss),
            ("value loss", ppo_stats::VALUE_LOSS, case.value_loss),
            ("entropy", ppo_stats::ENTROPY, case.entropy),
            ("approx_kl", ppo_stats::APPROX_KL, case.approx_kl),
            ("clip_fraction", ppo_stats::CLIP_FRACTION, case.clip_fraction),
        ] {
            assert_near(&what(part), f64::from(whole.stats[index]), expected, 2e-6);
        }
        if case.name == "every ratio is 1" {
            let deviation = whole.stats[ppo_stats::MAX_RATIO_DEVIATION];
            assert!(deviation <= 1e-6, "{}: {deviation}", what("ratio"));
        }

        let policy = case.run(ppo_loss, 1.0, 0.0, 0.0);
        let value = case.run(ppo_loss, 0.0, 1.0, 0.0);
        let entropy = case.run(ppo_loss, 0.0, 0.0, -1.0);
        for (part, got, expected) in [
            ("logits' gradient", &whole.grad_logits, flat(&case.grad_logits)),
            ("values' gradient", &whole.grad_values, case.grad_values.clone()),
            ("policy gradient", &policy.grad_logits, flat(&case.grad_logits_policy)),
            ("entropy gradient", &entropy.grad_logits, flat(&case.grad_logits_entropy)),
            ("value gradient", &value.grad_values, case.grad_values_unscaled.clone()),
        ] {
            assert_norm(&what(part), got, &expected, 1e-5);
        }
        let masked = case.mask.concat().into_iter().map(|allowed| !allowed);
        for (gradient, masked) in whole.grad_logits.iter().zip(masked) {
            assert!(!masked || *gradient == 0.0, "{}: a masked entry gets {gradient}", what("mask"));
        }
    }
}

#[test]
fn the_ppo_loss_and_its_gradients_equal_pytorch() {
    check("fused", ppo_loss);
    check("composed", composed::ppo_loss);
}
