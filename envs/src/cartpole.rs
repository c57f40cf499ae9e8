//! CartPole-v1 of Gymnasium, step for step.

use gatefold_env::{
    Action, EnvEntry, EnvError, EnvSpec, Environment, EpisodeEnd, NoOptions, ObservationView, StreamRng,
    Transition,
};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// The row of the table.
pub const ENTRY: EnvEntry =
    EnvEntry::new::<CartPole>("cartpole", "Balance a pole on a cart; best return 500, solved at 475");

const GRAVITY: f64 = 9.8;
const POLE_MASS: f64 = 0.1;
const TOTAL_MASS: f64 = POLE_MASS + 1.0;
/// Half the pole's length, in metres.
const LENGTH: f64 = 0.5;
const POLE_MASS_LENGTH: f64 = POLE_MASS * LENGTH;
const FORCE: f64 = 10.0;
/// Seconds per step.
const TAU: f64 = 0.02;
const X_LIMIT: f64 = 2.4;
/// 12 degrees.
const THETA_LIMIT: f64 = 12.0 * 2.0 * std::f64::consts::PI / 360.0;

/// Balance a pole on a cart.
///
/// - Observation: cart position (m), cart velocity (m/s), pole angle (rad), pole velocity (rad/s).
/// - Actions: 0 pushes left, 1 pushes right, with 10 N. Reward: 1 each step, the last one included.
/// - Ends: terminated when the cart leaves +-2.4 m or the pole +-12 degrees; truncated after 500
///   steps. Score: the return so far.
/// - Starts: all four uniform in +-0.05. Best return: 500. Random: about 22.
///
/// The state is kept in f64 and integrated by Euler's method, as Gymnasium does; only the
/// observation is f32. Source: Barto, Sutton and Anderson 1983; `cartpole.py` of Gymnasium 1.3.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CartPole {
    state: [f64; 4],
    score: f64,
}

impl CartPole {
    /// An episode that starts in `state`: position, velocity, angle, angular velocity.
    pub fn from_state(state: [f64; 4]) -> Self {
        Self { state, score: 0.0 }
    }

    /// Position, velocity, angle, angular velocity.
    pub fn state(&self) -> [f64; 4] {
        self.state
    }
}

impl Environment for CartPole {
    type Config = NoOptions;

    fn new(_config: &NoOptions) -> Result<Self, EnvError> {
        Ok(Self::from_state([0.0; 4]))
    }

    fn spec(&self) -> EnvSpec {
        EnvSpec { max_episode_steps: Some(500), ..EnvSpec::new(4, 2) }
    }

    fn reset(&mut self, rng: &mut StreamRng) {
        *self = Self::from_state(std::array::from_fn(|_| rng.random_range(-0.05..0.05)));
    }

    fn step(&mut self, action: Action, _rng: &mut StreamRng) -> Transition {
        let [x, x_dot, theta, theta_dot] = self.state;
        let force = if action.index() == 1 { FORCE } else { -FORCE };
        let (sin, cos) = theta.sin_cos();
        // Rounded in Gymnasium's order: a standing pole doubles any difference every nine steps.
        let push = (force + POLE_MASS_LENGTH * (theta_dot * theta_dot) * sin) / TOTAL_MASS;
        let theta_acc =
            (GRAVITY * sin - cos * push) / (LENGTH * (4.0 / 3.0 - POLE_MASS * (cos * cos) / TOTAL_MASS));
        let x_acc = push - POLE_MASS_LENGTH * theta_acc * cos / TOTAL_MASS;
        self.state =
            [x + TAU * x_dot, x_dot + TAU * x_acc, theta + TAU * theta_dot, theta_dot + TAU * theta_acc];
        self.score += 1.0;
        let fallen = self.state[0].abs() > X_LIMIT || self.state[2].abs() > THETA_LIMIT;
        let end = fallen.then_some(EpisodeEnd::Terminated);
        Transition { reward: 1.0, score: self.score, end }
    }

    fn observe(&self, view: &mut ObservationView<'_>) {
        for (feature, value) in view.features.iter_mut().zip(self.state) {
            *feature = value as f32;
        }
    }

    /// A linear controller that stands until the clock ends the episode.
    fn scripted(&self, _rng: &mut StreamRng) -> Option<Action> {
        let [x, x_dot, theta, theta_dot] = self.state;
        Some(Action::Discrete(usize::from(theta + 0.5 * theta_dot + 0.05 * x + 0.1 * x_dot > 0.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatefold_env::conformance::{Settings, check};
    use gatefold_env::{Purpose, stream};

    #[test]
    fn it_keeps_the_contract() {
        check(&ENTRY, &Settings::default()).unwrap();
    }

    #[test]
    fn episodes_start_anywhere_within_five_hundredths() {
        let mut rng = stream(3, Purpose::Environment, 0);
        let mut env = CartPole::from_state([9.0; 4]);
        let (mut low, mut high) = (0.0_f64, 0.0_f64);
        for _ in 0..500 {
            env.reset(&mut rng);
            low = env.state.iter().copied().fold(low, f64::min);
            high = env.state.iter().copied().fold(high, f64::max);
        }
        assert!((-0.05..-0.049).contains(&low) && (0.049..0.05).contains(&high), "{low} to {high}");
    }

    #[test]
    fn it_ends_beyond_either_edge_and_either_angle() {
        let mut rng = stream(0, Purpose::Environment, 0);
        for (state, fallen) in [
            ([2.39, 1.0, 0.0, 0.0], true),
            ([-2.39, -1.0, 0.0, 0.0], true),
            ([0.0, 0.0, 0.209, 0.1], true),
            ([0.0, 0.0, -0.209, -0.1], true),
            ([2.39, 0.0, 0.209, 0.0], false),
        ] {
            let end = CartPole::from_state(state).step(Action::Discrete(1), &mut rng).end;
            assert_eq!(end, fallen.then_some(EpisodeEnd::Terminated), "{state:?}");
        }
    }
}
