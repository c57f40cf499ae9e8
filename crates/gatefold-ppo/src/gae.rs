//! Generalised advantage estimates.

use gatefold_env::EpisodeEnd;
use ndarray::{Array2, ArrayView2};

/// Generalised advantage estimates for one rollout.
///
/// `A_t = d_t + gamma * lambda * A_{t+1}`, with `d_t = r_t + gamma * V(s_{t+1}) - V(s_t)`.
/// The sum stops at every episode end. `next_values` already holds 0 after a termination and
/// V(final observation) after a truncation, so the two ends are not confused here.
///
/// Shapes: all inputs and the result are `[T, N]` (steps, environments), time ascending.
/// Panics if shapes differ. Source: Schulman et al. 2016, arXiv 1506.02438, eq. 16.
pub fn advantages(
    rewards: ArrayView2<'_, f32>,
    values: ArrayView2<'_, f32>,
    next_values: ArrayView2<'_, f32>,
    ends: ArrayView2<'_, Option<EpisodeEnd>>,
    gamma: f32,
    lambda: f32,
) -> Array2<f32> {
    let (steps, envs) = rewards.dim();
    assert!(
        values.dim() == (steps, envs) && next_values.dim() == (steps, envs) && ends.dim() == (steps, envs),
        "advantages: shapes of values, next values and ends differ from rewards"
    );
    let mut advantages = Array2::zeros((steps, envs));
    let mut later = vec![0.0; envs];
    for t in (0..steps).rev() {
        for (env, later) in later.iter_mut().enumerate() {
            let after = if ends[(t, env)].is_some() { 0.0 } else { *later };
            let delta = rewards[(t, env)] + gamma * next_values[(t, env)] - values[(t, env)];
            *later = delta + gamma * lambda * after;
            advantages[(t, env)] = *later;
        }
    }
    advantages
}

#[cfg(test)]
mod tests {
    use super::*;
    use EpisodeEnd::{Terminated, Truncated};
    use ndarray::array;

    /// Three steps of one environment, V = 1 everywhere, V(final) = 7 after a truncation.
    #[test]
    fn each_pair_of_ends_has_its_hand_computed_advantages() {
        let (gamma, lambda) = (0.5f32, 0.5f32);
        let bootstrap = |end: Option<EpisodeEnd>| match end {
            Some(Terminated) => 0.0,
            Some(Truncated) => 7.0,
            None => 1.0,
        };
        // d = r + 0.5 * next - 1, with r = 2: 1 after a termination, 4.5 after a truncation, 1.5 on.
        let on = 1.5;
        let cases = [
            (None, None, [on + 0.25 * (on + 0.25 * on), on + 0.25 * on, on]),
            (Some(Terminated), None, [1.0, on + 0.25 * on, on]),
            (Some(Truncated), None, [4.5, on + 0.25 * on, on]),
            (None, Some(Terminated), [on + 0.25, 1.0, on]),
            (None, Some(Truncated), [on + 0.25 * 4.5, 4.5, on]),
            (Some(Terminated), Some(Truncated), [1.0, 4.5, on]),
            (Some(Truncated), Some(Terminated), [4.5, 1.0, on]),
            (Some(Truncated), Some(Truncated), [4.5, 4.5, on]),
            (Some(Terminated), Some(Terminated), [1.0, 1.0, on]),
        ];
        for (first, second, expected) in cases {
            let ends = array![[first], [second], [None]];
            let next = ends.mapv(bootstrap);
            let rewards = Array2::from_elem((3, 1), 2.0);
            let values = Array2::from_elem((3, 1), 1.0);
            let got = advantages(rewards.view(), values.view(), next.view(), ends.view(), gamma, lambda);
            assert_eq!(got.column(0).to_vec(), expected, "{first:?} then {second:?}");
        }
    }
}
