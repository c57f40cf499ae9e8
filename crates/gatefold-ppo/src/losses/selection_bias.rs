//! Balance without a loss: a bias on each expert's score, moved against its load.

/// How far a bias moves per iteration. Source: Wang et al. 2024, arXiv 2408.15664; DeepSeek-V3.
pub const SELECTION_BIAS_STEP: f32 = 1e-3;

/// Moves each expert's selection bias by `step` towards even load:
/// `bias_k += step * sign(mean load - load_k)`.
///
/// `load` is how often each expert was chosen in the rollout, as counts or as shares. The bias
/// is added to the scores that pick the top k, never to the gates, so it needs no gradient; it is
/// constant within an iteration and part of the saved state. An expert at the mean stays.
/// Panics if the lengths differ or a load is not finite.
pub fn update_selection_bias(bias: &mut [f32], load: &[f64], step: f32) {
    assert_eq!(bias.len(), load.len(), "one load per bias");
    assert!(load.iter().all(|x| x.is_finite()), "loads are finite: {load:?}");
    let mean = load.iter().sum::<f64>() / load.len() as f64;
    for (bias, &load) in bias.iter_mut().zip(load) {
        if load < mean {
            *bias += step;
        } else if load > mean {
            *bias -= step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bias_moves_one_step_against_the_load_and_stays_at_the_mean() {
        let mut bias = [0.0, 0.5, 0.0];
        update_selection_bias(&mut bias, &[30.0, 10.0, 20.0], 0.25);
        assert_eq!(bias, [-0.25, 0.75, 0.0]);
        update_selection_bias(&mut bias, &[7.0; 3], SELECTION_BIAS_STEP);
        assert_eq!(bias, [-0.25, 0.75, 0.0], "even load moves nothing");
    }

    #[test]
    fn the_bias_evens_out_a_router_that_prefers_one_expert() {
        let scores = [1.0f32, 0.9, 0.0, -0.2];
        let mut bias = [0.0; 4];
        let mut chosen = [0u32; 4];
        for iteration in 0..4000 {
            let biased = |k: &usize| scores[*k] + bias[*k];
            let first = (0..4).max_by(|a, b| biased(a).total_cmp(&biased(b))).unwrap();
            let mut load = [0.0; 4];
            load[first] = 1.0;
            update_selection_bias(&mut bias, &load, SELECTION_BIAS_STEP);
            if iteration >= 2000 {
                chosen[first] += 1;
            }
        }
        assert!(chosen.iter().all(|&n| n.abs_diff(500) < 50), "{chosen:?}");
    }
}
