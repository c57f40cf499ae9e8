//! How alike the experts' logits are: one matrix of cosines, and the losses that read it.

use burn::tensor::{Bool, Tensor, TensorData, backend::Backend};

use crate::collect::to_host;

// R compared rows, K experts, A actions

/// Cosines between the centred logits of every two experts, for some rows.
///
/// `cos(x, y) = <x, y> / sqrt((|x|^2 + d) (|y|^2 + d))` with `d = .01 A`: at the initial gain of
/// .01 a bare cosine's gradient would drown PPO. Logits are centred over allowed actions, masked
/// ones count as 0, so neither a shift of an expert's logits nor a masked action changes anything.
/// With two actions centred logits are always collinear: leave these losses out where `A <= 2`.
#[derive(Debug, Clone)]
pub struct ExpertCosines<B: Backend> {
    cosines: Tensor<B, 3>, // [R, K, K], 0 on the diagonal
}

impl<B: Backend> ExpertCosines<B> {
    /// Of `expert_logits` `[R, K, A]`, where `mask` `[R, A]` is true for allowed actions and has
    /// one in every row. Panics for fewer than 2 experts.
    pub fn new(expert_logits: Tensor<B, 3>, mask: Option<Tensor<B, 2, Bool>>) -> Self {
        let [rows, num_experts, num_actions] = expert_logits.dims();
        assert!(num_experts >= 2, "cosines compare pairs of experts");
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
        let apart: Vec<f32> = (0..num_experts * num_experts)
            .map(|i| if i / num_experts == i % num_experts { 0.0 } else { 1.0 })
            .collect();
        let apart = TensorData::new(apart, [1, num_experts, num_experts]);
        let apart = Tensor::from_data(apart, &unit.device());
        Self { cosines: unit.clone().matmul(unit.transpose()) * apart }
    }

    /// Diversity: the mean cosine over pairs of experts and rows, -1/(K-1) to 1. Minimal when
    /// experts disagree.
    pub fn diversity(&self) -> Tensor<B, 1> {
        self.cosines.clone().sum() / self.num_pairs()
    }

    /// Semantic orthogonality: the mean `|cos|` over pairs of experts and rows, 0 to 1. Minimal
    /// when experts say unrelated things; opposite ones cost as much as equal ones.
    pub fn semantic_orthogonality(&self) -> Tensor<B, 1> {
        self.cosines.clone().abs().sum() / self.num_pairs()
    }

    /// Overlap: `mean_r sum_{i != j} alpha_ri alpha_rj cos_rij` with gates `[R, K]` of the same
    /// rows. Minimal when experts that act together disagree, or act alone: 0 for one-hot gates.
    pub fn overlap(&self, alpha: Tensor<B, 2>) -> Tensor<B, 1> {
        let [rows, num_experts, _] = self.cosines.dims();
        assert_eq!(alpha.dims(), [rows, num_experts], "gates of the compared rows");
        let together = alpha.clone().unsqueeze_dim::<3>(2) * alpha.unsqueeze_dim::<3>(1); // [R, K, K]
        (together * self.cosines.clone()).sum() / rows as f32
    }

    /// The extremes over pairs and rows. Reads from the device.
    pub fn statistics(&self) -> CosineStatistics {
        let [_, num_experts, _] = self.cosines.dims();
        let cosines = to_host(self.cosines.clone());
        let apart = |&(i, _): &(usize, &f32)| i / num_experts % num_experts != i % num_experts;
        let pairs = || cosines.iter().enumerate().filter(apart).map(|(_, &cos)| f64::from(cos));
        CosineStatistics {
            min: pairs().fold(f64::INFINITY, f64::min),
            max: pairs().fold(f64::NEG_INFINITY, f64::max),
        }
    }

    fn num_pairs(&self) -> f32 {
        let [rows, num_experts, _] = self.cosines.dims();
        (rows * num_experts * (num_experts - 1)) as f32 // each pair twice
    }
}

/// The two most opposed and the two most alike experts of any row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CosineStatistics {
    /// Smallest cosine of a pair.
    pub min: f64,
    /// Largest cosine of a pair.
    pub max: f64,
}

/// [`ExpertCosines::diversity`] on its own: the mean over pairs of experts of the cosine of their
/// centred logits, averaged over rows.
///
/// Shapes: `expert_logits` `[R, K, A]`, `mask` `[R, A]`. Panics for fewer than 2 experts.
pub fn diversity<B: Backend>(expert_logits: Tensor<B, 3>, mask: Option<Tensor<B, 2, Bool>>) -> Tensor<B, 1> {
    ExpertCosines::new(expert_logits, mask).diversity()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::probe::{Train, assert_close, probe, tensor};
    use burn::backend::Flex;

    fn cosines(values: &[f32]) -> ExpertCosines<Flex> {
        ExpertCosines::new(tensor(values, [1, values.len() / 3, 3]), None)
    }

    #[test]
    fn diversity_tells_equal_from_opposite_experts() {
        let of = |values| diversity::<Flex>(tensor(values, [1, 2, 3]), None).into_scalar();
        let equal = of(&[100.0, 0.0, 0.0, 105.0, 5.0, 5.0]);
        let opposite = of(&[100.0, 0.0, 0.0, -100.0, 0.0, 0.0]);
        assert!((equal - 1.0).abs() < 1e-4 && (opposite + 1.0).abs() < 1e-4, "{equal} {opposite}");
    }

    #[test]
    fn three_experts_have_their_closed_form() {
        // Centred: x = (1, -1, 0), y = -x, z = (1, 1, -2); d = .03; cos(x, y) = -2 / 2.03, else 0.
        let cosines = cosines(&[1.0, -1.0, 0.0, -1.0, 1.0, 0.0, 1.0, 1.0, -2.0]);
        let cos = -2.0 / 2.03;
        let values = [
            cosines.diversity().into_scalar(),
            cosines.semantic_orthogonality().into_scalar(),
            cosines.overlap(tensor(&[0.5, 0.25, 0.25], [1, 3])).into_scalar(),
            cosines.overlap(tensor(&[0.0, 1.0, 0.0], [1, 3])).into_scalar(),
        ];
        assert_close(&values, &[cos / 3.0, -cos / 3.0, 2.0 * 0.5 * 0.25 * cos, 0.0]);
        let statistics = cosines.statistics();
        assert!((statistics.min - f64::from(cos)).abs() < 1e-6 && statistics.max.abs() < 1e-6);
    }

    #[test]
    fn a_shift_of_one_experts_logits_changes_no_loss() {
        let logits = [0.5, 1.5, -1.0, 2.0, 0.25, 0.5];
        let shifted = [8.5, 9.5, 7.0, -14.0, -15.75, -15.5];
        let gates = || tensor(&[0.5, 0.5], [1, 2]);
        let of = |values| {
            let cosines = cosines(values);
            [cosines.diversity(), cosines.semantic_orthogonality(), cosines.overlap(gates())]
                .map(Tensor::into_scalar)
        };
        assert_close(&of(&shifted), &of(&logits));
    }

    #[test]
    fn masked_actions_change_nothing_and_get_no_gradient() {
        let losses: [fn(ExpertCosines<Train>) -> Tensor<Train, 1>; 3] = [
            |cosines| cosines.diversity(),
            |cosines| cosines.semantic_orthogonality(),
            |cosines| cosines.overlap(tensor(&[0.25, 0.75], [1, 2])),
        ];
        for loss in losses {
            let of = |masked: f32| {
                probe(&[3.0, 1.0, 2.5, masked, 1.0, 2.0, 0.0, -masked], [1, 2, 4], |logits| {
                    let mask = TensorData::new(vec![true, true, true, false], [1, 4]);
                    let mask = Tensor::from_data(mask, &Default::default());
                    loss(ExpertCosines::new(logits, Some(mask)))
                })
            };
            let (value, grad) = of(0.0);
            assert_eq!((value, grad.clone()), of(1e6));
            assert!(grad[3] == 0.0 && grad[7] == 0.0 && grad[0] != 0.0, "{grad:?}");
        }
    }

    #[test]
    fn overlap_has_finite_gradients_at_gates_of_exactly_zero() {
        let logits = tensor::<Train, 3>(&[1.0, -1.0, 0.0, 1.0, 0.0, -1.0], [1, 2, 3]);
        let (value, grad) =
            probe(&[1.0, 0.0], [1, 2], |alpha| ExpertCosines::new(logits.clone(), None).overlap(alpha));
        // d/d alpha_j = 2 sum_i alpha_i cos_ij
        assert_eq!(value, 0.0);
        assert_close(&grad, &[0.0, 2.0 / 2.03]);
    }

    #[test]
    fn a_row_with_one_allowed_action_has_no_cosine_and_no_gradient() {
        let (value, grad) = probe(&[5.0, 2.0, 1.0, -3.0, 2.0, 1.0], [1, 2, 3], |logits| {
            let mask = TensorData::new(vec![true, false, false], [1, 3]);
            ExpertCosines::new(logits, Some(Tensor::from_data(mask, &Default::default()))).diversity()
        });
        assert_eq!((value, grad), (0.0, vec![0.0; 6]));
    }
}
