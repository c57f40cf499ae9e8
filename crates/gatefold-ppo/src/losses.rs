//! Auxiliary losses, on the same forward pass as the PPO loss.

use burn::tensor::{Bool, Tensor, backend::Backend};

// B minibatch, R compared rows, K experts, A actions

/// `mean_k (mean_b p_bk - 1/K)^2` over routing probabilities `softmax(z / tau)` `[B, K]`.
///
/// 0 when every expert is chosen equally often on average. It acts on probabilities, not on gates:
/// an expert outside the support gets no gradient through its gate.
pub fn load_balance_mse<B: Backend>(probabilities: Tensor<B, 2>) -> Tensor<B, 1> {
    let [_, num_experts] = probabilities.dims();
    (probabilities.mean_dim(0) - 1.0 / num_experts as f32).square().mean()
}

/// `K sum_k f_k mean_b p_bk`, where `f_k = mean_b 1[alpha_bk > 0] / |S_b|` carries no gradient and
/// `S_b` is row b's support.
///
/// Shapes: both `[B, K]`. 1 when even. Source: Fedus et al. 2022, eq. 4, for a varying support.
pub fn load_balance_switch<B: Backend>(probabilities: Tensor<B, 2>, alpha: Tensor<B, 2>) -> Tensor<B, 1> {
    let [_, num_experts] = probabilities.dims();
    let chosen = alpha.detach().greater_elem(0.0).float();
    let fraction = (chosen.clone() / chosen.sum_dim(1)).mean_dim(0); // [1, K]
    (fraction * probabilities.mean_dim(0)).sum() * num_experts as f32
}

/// `mean_b H(alpha_b)` in nats over gates `[B, K]`; `0 log 0 = 0`, by selection, so that its
/// gradient is finite at gates that are exactly 0.
pub fn gate_entropy<B: Backend>(alpha: Tensor<B, 2>) -> Tensor<B, 1> {
    let [rows, _] = alpha.dims();
    let outside = alpha.clone().detach().equal_elem(0.0);
    let log = alpha.clone().mask_fill(outside, 1.0).log();
    (alpha * log).sum().neg() / rows as f32
}

/// Mean over pairs of experts of the cosine of their centred logits, averaged over rows.
///
/// `cos(x, y) = <x, y> / sqrt((|x|^2 + d) (|y|^2 + d))` with `d = .01 A`: at the initial gain of
/// .01 a bare cosine's gradient would drown PPO. Logits are centred over allowed actions, masked
/// ones count as 0. Shapes: `expert_logits` `[R, K, A]`, `mask` `[R, A]`. Minimal when experts
/// disagree. Panics for fewer than 2 experts.
pub fn diversity<B: Backend>(expert_logits: Tensor<B, 3>, mask: Option<Tensor<B, 2, Bool>>) -> Tensor<B, 1> {
    let [rows, num_experts, num_actions] = expert_logits.dims();
    assert!(num_experts >= 2, "diversity compares pairs of experts");
    let centred = match mask {
        None => expert_logits.clone() - expert_logits.mean_dim(2),
        Some(mask) => {
            let masked = mask.bool_not().unsqueeze_dim::<3>(1).expand([rows, num_experts, num_actions]);
            let allowed = masked.clone().bool_not().float().sum_dim(2); // [R, K, 1]
            let logits = expert_logits.mask_fill(masked.clone(), 0.0);
            let mean = logits.clone().sum_dim(2) / allowed;
            (logits - mean).mask_fill(masked, 0.0)
        }
    };
    let damping = 0.01 * num_actions as f32;
    let unit = centred.clone() / (centred.square().sum_dim(2) + damping).sqrt();
    // sum over i != j of <u_i, u_j> = |sum_i u_i|^2 - sum_i |u_i|^2
    let together = unit.clone().sum_dim(1).square().sum();
    let alone = unit.square().sum();
    (together - alone) / (rows * num_experts * (num_experts - 1)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::TensorData;

    fn matrix<B: Backend>(values: &[f32], width: usize) -> Tensor<B, 2> {
        let data = TensorData::new(values.to_vec(), [values.len() / width, width]);
        Tensor::from_data(data, &Default::default())
    }

    fn value(loss: Tensor<Flex, 1>) -> f32 {
        loss.into_scalar()
    }

    #[test]
    fn balance_is_zero_when_even_and_grows_with_collapse() {
        let even = [1.0, 0.0, 0.0, 1.0];
        assert_eq!(value(load_balance_mse(matrix(&even, 2))), 0.0);
        assert_eq!(value(load_balance_mse(matrix(&[1.0, 0.0], 2))), 0.25);
        assert_eq!(value(load_balance_switch(matrix(&even, 2), matrix(&even, 2))), 1.0);
        assert_eq!(value(load_balance_switch(matrix(&[1.0, 0.0], 2), matrix(&[1.0, 0.0], 2))), 2.0);
    }

    #[test]
    fn gate_entropy_is_finite_with_finite_gradients_at_exact_zeros() {
        let gates = matrix::<Autodiff<Flex>>(&[1.0, 0.0, 0.5, 0.5], 2).require_grad();
        let entropy = gate_entropy(gates.clone());
        assert!((entropy.clone().into_scalar() - 0.5 * 2f32.ln()).abs() < 1e-6);
        let grads = entropy.backward();
        let grad = gates.grad(&grads).unwrap().into_data().to_vec::<f32>().unwrap();
        assert!(grad.iter().all(|g| g.is_finite()), "{grad:?}");
    }

    #[test]
    fn diversity_tells_equal_from_opposite_experts_and_ignores_shifts_and_masked_actions() {
        let of = |values: &[f32]| {
            let logits = Tensor::from_data(TensorData::new(values.to_vec(), [1, 2, 3]), &Default::default());
            value(diversity::<Flex>(logits, None))
        };
        let equal = of(&[100.0, 0.0, 0.0, 105.0, 5.0, 5.0]);
        let opposite = of(&[100.0, 0.0, 0.0, -100.0, 0.0, 0.0]);
        assert!((equal - 1.0).abs() < 1e-4 && (opposite + 1.0).abs() < 1e-4, "{equal} {opposite}");

        let masked = |third: f32| {
            let values = vec![3.0, 1.0, third, 1.0, 2.0, -third];
            let logits = Tensor::from_data(TensorData::new(values, [1, 2, 3]), &Default::default());
            let mask = TensorData::new(vec![true, true, false], [1, 3]);
            value(diversity::<Flex>(logits, Some(Tensor::from_data(mask, &Default::default()))))
        };
        assert_eq!(masked(0.0), masked(1e6));
    }
}
