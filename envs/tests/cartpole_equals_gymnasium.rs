//! CartPole against traces of Gymnasium's CartPole-v1 (`tests/oracles/cartpole.py`), to the last bit:
//! on a standing pole any difference grows to the size of the angle within one episode.

use gatefold_env::{Action, Environment, EpisodeEnd, ObservationBatch, Purpose, StreamRng, stream};
use gatefold_envs::cartpole::CartPole;
use serde::Deserialize;

#[derive(Deserialize)]
struct Oracle {
    reward: f32,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    seed: u64,
    initial_state: [f64; 4],
    initial_observation: [f32; 4],
    final_state: [f64; 4],
    end: String,
    actions: String,
    observations: Vec<[f32; 4]>,
}

fn observed(env: &CartPole) -> Vec<f32> {
    let mut batch = ObservationBatch::new(&env.spec(), 1);
    env.observe(&mut batch.as_mut().row(0));
    batch.features
}

/// How the episode ends in Gatefold, and the steps it takes; the clock is the spec's.
fn play(case: &Case, reward: f32, rng: &mut StreamRng) -> (EpisodeEnd, usize) {
    let mut env = CartPole::from_state(case.initial_state);
    let limit = env.spec().max_episode_steps.expect("CartPole-v1 has a clock") as usize;
    assert_eq!(observed(&env), case.initial_observation, "seed {}", case.seed);
    for (t, action) in case.actions.bytes().enumerate() {
        let transition = env.step(Action::Discrete(usize::from(action - b'0')), rng);
        assert_eq!((transition.reward, transition.score), (reward, (t + 1) as f64), "seed {}", case.seed);
        assert_eq!(observed(&env), case.observations[t], "seed {} step {}", case.seed, t + 1);
        if transition.end.is_some() || t + 1 == limit {
            assert_eq!(env.state(), case.final_state, "seed {}", case.seed);
            return (transition.end.unwrap_or(EpisodeEnd::Truncated), t + 1);
        }
    }
    panic!("seed {}: Gymnasium ended after {} steps, Gatefold did not", case.seed, case.actions.len());
}

#[test]
fn cartpole_equals_gymnasium_step_for_step_and_bit_for_bit_to_both_ends() {
    let oracle: Oracle = serde_json::from_str(include_str!("../../tests/oracles/cartpole.json")).unwrap();
    let mut rng = stream(0, Purpose::Environment, 0);
    let (mut terminated, mut truncated) = (0, 0);
    for case in &oracle.cases {
        let (end, steps) = play(case, oracle.reward, &mut rng);
        assert_eq!(steps, case.actions.len(), "seed {}", case.seed);
        match end {
            EpisodeEnd::Terminated => terminated += steps,
            EpisodeEnd::Truncated => truncated += steps,
        }
        let expected = if end == EpisodeEnd::Terminated { "terminated" } else { "truncated" };
        assert_eq!(case.end, expected, "seed {}", case.seed);
    }
    assert!(terminated >= 1000 && truncated >= 1000, "{terminated} and {truncated} steps");
}
