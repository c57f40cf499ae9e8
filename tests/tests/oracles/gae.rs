//! Advantages against Stable-Baselines3's `RolloutBuffer`.

// T steps, N environments

use gatefold_env::EpisodeEnd::{self, Terminated, Truncated};
use gatefold_ppo::advantages;
use gatefold_tests::fixture::{Matrix, cases, flat};
use gatefold_tests::tolerance::assert_near;
use ndarray::Array2;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    name: String,
    gamma: f32,
    gae_lambda: f32,
    rewards: Matrix,
    values: Matrix,
    ends: Vec<Vec<u8>>,
    final_values: Matrix,
    last_values: Vec<f64>,
    advantages: Matrix,
    returns: Matrix,
}

fn array(rows: &Matrix) -> Array2<f32> {
    let values = flat(rows).into_iter().map(|x| x as f32).collect();
    Array2::from_shape_vec((rows.len(), rows[0].len()), values).expect("rows of one length")
}

#[test]
fn advantages_over_both_ends_equal_stable_baselines3() {
    let mut seen = [0; 3];
    for case in cases::<Case>("gae") {
        let (rewards, values, finals) =
            (array(&case.rewards), array(&case.values), array(&case.final_values));
        let (steps, envs) = rewards.dim();
        let ends = Array2::from_shape_fn((steps, envs), |(t, env)| -> Option<EpisodeEnd> {
            seen[case.ends[t][env] as usize] += 1;
            [None, Some(Terminated), Some(Truncated)][case.ends[t][env] as usize]
        });
        let next_values = Array2::from_shape_fn((steps, envs), |(t, env)| match ends[(t, env)] {
            Some(Terminated) => 0.0,
            Some(Truncated) => finals[(t, env)],
            None if t + 1 < steps => values[(t + 1, env)],
            None => case.last_values[env] as f32,
        });
        let got = advantages(
            rewards.view(),
            values.view(),
            next_values.view(),
            ends.view(),
            case.gamma,
            case.gae_lambda,
        );
        let returns = &got + &values;
        for (part, got, expected) in
            [("advantages", got, flat(&case.advantages)), ("returns", returns, flat(&case.returns))]
        {
            let scale = expected.iter().fold(1.0, |most: f64, x| most.max(x.abs()));
            for (i, (&got, expected)) in got.iter().zip(expected).enumerate() {
                let what = format!("{}, {part} {i}", case.name);
                assert_near(&what, f64::from(got) / scale, expected / scale, 1e-6);
            }
        }
    }
    assert!(seen.iter().all(|&count| count > 30), "the cases go on, terminate and are truncated: {seen:?}");
}
