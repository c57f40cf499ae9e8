//! What a routing draws or selects: made in the rollout, stored, and used again in the update.

use std::cmp::Ordering;

use burn::tensor::{DType, Tensor, TensorData, backend::Backend};
use rand::Rng;
use rand::RngExt as _;
use rand::distr::Open01;

/// Standard Gumbel noise `-ln(-ln u)` `[rows, K]`, row-major; always finite.
pub fn gumbel_noise(rows: usize, num_experts: usize, rng: &mut impl Rng) -> Vec<f32> {
    // f64, because an f32 just below 1 has too few neighbours: the largest draw would be 17, and 16
    // million draws would show a lattice at the upper end.
    let draw = |_| -(-rng.sample::<f64, _>(Open01).ln()).ln() as f32;
    (0..rows * num_experts).map(draw).collect()
}

/// Gates `[rows, K]`, row-major, that give each row to one expert, drawn uniformly.
pub fn random_gates(rows: usize, num_experts: usize, rng: &mut impl Rng) -> Vec<f32> {
    let mut gates = vec![0.0; rows * num_experts];
    for row in gates.chunks_exact_mut(num_experts) {
        row[rng.random_range(0..num_experts)] = 1.0;
    }
    gates
}

/// The `k` experts of each row with the largest `z + bias`: 1 where selected, 0 elsewhere, `[B, K]`.
///
/// The bias `[K]` moves the selection only, never the gates (the loss-free balance of DeepSeek-V3,
/// arXiv 2408.15664); without one the logits decide. Ties go to the lower index. A NaN counts as
/// largest, so that it reaches the gates. `k` above K selects all. Panics unless `k >= 1`.
pub fn select_top_k<B: Backend>(logits: &Tensor<B, 2>, k: usize, bias: Option<&[f32]>) -> Tensor<B, 2> {
    let [rows, num_experts] = logits.dims();
    assert!(k >= 1, "top-k routing selects at least one expert");
    if let Some(bias) = bias {
        assert_eq!(bias.len(), num_experts, "selection biases, one per expert");
    }
    let scores = logits.to_data().convert_dtype(DType::F32).into_vec::<f32>().expect("converted to f32");
    let mut selected = vec![0.0f32; rows * num_experts];
    let mut order: Vec<usize> = Vec::with_capacity(num_experts);
    let mut biased = vec![0.0; num_experts];
    for (z, selected) in scores.chunks_exact(num_experts).zip(selected.chunks_exact_mut(num_experts)) {
        for (e, (biased, &z)) in biased.iter_mut().zip(z).enumerate() {
            *biased = bias.map_or(z, |bias| z + bias[e]);
        }
        order.clear();
        order.extend(0..num_experts);
        let k = k.min(num_experts);
        order.select_nth_unstable_by(k - 1, |&a, &b| larger_first(biased[a], biased[b]).then(a.cmp(&b)));
        order[..k].iter().for_each(|&expert| selected[expert] = 1.0);
    }
    let selected = TensorData::new(selected, [rows, num_experts]);
    Tensor::from_data(selected, (&logits.device(), logits.dtype()))
}

fn larger_first(a: f32, b: f32) -> Ordering {
    let rank = |x: f32| if x.is_nan() { f32::INFINITY } else { x };
    rank(b).partial_cmp(&rank(a)).expect("no NaN is left")
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

    fn select(logits: &[f32], k: usize, bias: Option<&[f32]>) -> Vec<f32> {
        let data = TensorData::new(logits.to_vec(), [1, logits.len()]);
        let logits = Tensor::<Flex, 2>::from_data(data, &Default::default());
        select_top_k(&logits, k, bias).into_data().to_vec().unwrap()
    }

    #[test]
    fn the_largest_scores_are_selected_and_ties_go_to_the_lower_index() {
        let nan = f32::NAN;
        let cases: [(&[f32], usize, &[f32]); 7] = [
            (&[0.1, 0.9, -0.4, 0.5], 1, &[0.0, 1.0, 0.0, 0.0]),
            (&[0.1, 0.9, -0.4, 0.5], 2, &[0.0, 1.0, 0.0, 1.0]),
            (&[0.0, 1.0, 1.0, 1.0], 2, &[0.0, 1.0, 1.0, 0.0]),
            (&[-0.0, 0.0, 0.0], 1, &[1.0, 0.0, 0.0]),
            (&[2.0, 1.0], 9, &[1.0, 1.0]),
            (&[2.0, nan, 1.0], 1, &[0.0, 1.0, 0.0]),
            (&[f32::NEG_INFINITY, -1e38, f32::NEG_INFINITY], 1, &[0.0, 1.0, 0.0]),
        ];
        for (logits, k, expected) in cases {
            assert_eq!(select(logits, k, None), expected, "{logits:?}, {k}");
        }
    }

    #[test]
    fn a_bias_moves_the_selection() {
        let logits = [0.5, 0.4, 0.3];
        assert_eq!(select(&logits, 1, Some(&[0.0; 3])), [1.0, 0.0, 0.0]);
        assert_eq!(select(&logits, 1, Some(&[-0.2, 0.0, 0.0])), [0.0, 1.0, 0.0]);
        assert_eq!(select(&logits, 2, Some(&[-0.3, 0.0, 0.05])), [0.0, 1.0, 1.0]);
    }

    #[test]
    fn gumbel_noise_is_finite_and_has_the_mean_and_variance_of_its_law() {
        let noise = gumbel_noise(50_000, 4, &mut ChaCha8Rng::seed_from_u64(1));
        assert!(noise.iter().all(|g| g.is_finite()));
        let n = noise.len() as f64;
        let mean = noise.iter().map(|&g| f64::from(g)).sum::<f64>() / n;
        let variance = noise.iter().map(|&g| (f64::from(g) - mean).powi(2)).sum::<f64>() / n;
        // Euler's constant and pi^2 / 6; the standard errors are 0.003 and 0.008.
        assert!(
            (mean - 0.577_215_66).abs() < 0.012 && (variance - 1.644_934).abs() < 0.03,
            "{mean} {variance}"
        );
    }

    #[test]
    fn random_gates_are_one_hot_and_even() {
        let gates = random_gates(9_000, 3, &mut ChaCha8Rng::seed_from_u64(2));
        let mut counts = [0.0; 3];
        for row in gates.chunks_exact(3) {
            assert_eq!(row.iter().filter(|&&gate| gate == 1.0).count(), 1);
            assert_eq!(row.iter().filter(|&&gate| gate == 0.0).count(), 2);
            row.iter().zip(&mut counts).for_each(|(gate, count)| *count += gate);
        }
        assert!(counts.iter().all(|&count| (count - 3_000.0f32).abs() < 200.0), "{counts:?}");
    }

    #[test]
    fn one_seed_draws_the_same_again() {
        let draw = |seed| {
            let rng = &mut ChaCha8Rng::seed_from_u64(seed);
            (gumbel_noise(3, 4, rng), random_gates(30, 4, rng))
        };
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5).0, draw(6).0);
        assert_ne!(draw(5).1, draw(6).1);
    }
}
