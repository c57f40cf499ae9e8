//! Reward scaling against NumPy's two-pass statistics.

use gatefold_env::EpisodeEnd;
use gatefold_ppo::{RewardConfig, RewardScaler, RewardScaling};
use gatefold_tests::fixture::{Matrix, cases, flat};
use gatefold_tests::tolerance::{assert_near, assert_norm};
use ndarray::Array2;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    name: String,
    gamma: f32,
    num_envs: usize,
    rollouts: Vec<Rollout>,
}

#[derive(Deserialize)]
struct Rollout {
    rewards: Matrix,
    ends: Vec<Vec<bool>>,
    return_count: f64,
    return_mean: f64,
    return_variance: f64,
    scaled: Matrix,
    reward_mean: f64,
    reward_variance: f64,
    standardized: Matrix,
}

#[test]
fn scaled_rewards_and_their_statistics_equal_numpy() {
    for case in cases::<Case>("reward_scaling") {
        let scaler = |scaling, clip| RewardScaler::new(RewardConfig { scaling, clip }, case.num_envs);
        let mut by_returns = scaler(RewardScaling::Returns, 10.0);
        let mut standardizing = scaler(RewardScaling::Standardize, 0.0);
        for (i, rollout) in case.rollouts.iter().enumerate() {
            let shape = (rollout.rewards.len(), case.num_envs);
            let rewards = Array2::from_shape_fn(shape, |(t, env)| rollout.rewards[t][env] as f32);
            // Either end starts the discounted return anew.
            let ends = Array2::from_shape_fn(shape, |(t, env)| {
                let end = if t % 2 == 0 { EpisodeEnd::Terminated } else { EpisodeEnd::Truncated };
                rollout.ends[t][env].then_some(end)
            });
            let expected = [
                (rollout.return_mean, rollout.return_variance, &rollout.scaled),
                (rollout.reward_mean, rollout.reward_variance, &rollout.standardized),
            ];
            for (scaler, (mean, variance, scaled)) in
                [&mut by_returns, &mut standardizing].into_iter().zip(expected)
            {
                let what = |part: &str| format!("{}, rollout {i}, {part}", case.name);
                let got = scaler.scale(rewards.view(), ends.view(), case.gamma);
                let got: Vec<f32> = got.iter().copied().collect();
                assert_norm(&what("scaled"), &got, &flat(scaled), 1e-6);
                let statistics = scaler.statistics();
                assert_eq!(statistics.count, rollout.return_count, "{}", what("count"));
                assert_near(&what("mean"), statistics.mean, mean, 1e-6);
                assert_near(&what("variance"), statistics.variance(), variance, 1e-6);
            }
        }
    }
}
