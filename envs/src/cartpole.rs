//! CartPole-v1 of Gymnasium, step for step.

use gatefold_env::{
    Action, EnvEntry, EnvError, EnvSpec, Environment, EpisodeEnd, NoOptions, ObservationBatchMut,
    ObservationView, StreamRng, Transition,
};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::number::{Number, Vectors};
use crate::small_angle;

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

    /// One step; nothing in it is drawn.
    fn push(&mut self, action: Action) -> Transition {
        let theta = self.state[2];
        let turned = if leans_little(theta) { small_angle::sin_cos(theta) } else { theta.sin_cos() };
        self.arrive(moved(self.state, force(action), turned))
    }

    /// Takes on the state after a step.
    #[inline(always)]
    fn arrive(&mut self, state: [f64; 4]) -> Transition {
        self.state = state;
        self.score += 1.0;
        let fallen = state[0].abs() > X_LIMIT || state[2].abs() > THETA_LIMIT;
        let end = fallen.then_some(EpisodeEnd::Terminated);
        Transition { reward: 1.0, score: self.score, end }
    }
}

/// Whether the angle is one for [`small_angle`]; in a running episode it always is.
#[inline(always)]
fn leans_little(theta: f64) -> bool {
    theta.abs() <= small_angle::RANGE
}

/// The push of an action, in newtons.
fn force(action: Action) -> f64 {
    if action.index() == 1 { FORCE } else { -FORCE }
}

/// The state one step of time later; `turned` is sine and cosine of its angle.
#[inline(always)]
fn moved<N: Number>([x, x_dot, theta, theta_dot]: [N; 4], force: N, (sin, cos): (N, N)) -> [N; 4] {
    let number = |value| x.constant(value);
    let [mass, pole, tau] = [number(TOTAL_MASS), number(POLE_MASS_LENGTH), number(TAU)];
    // Rounded in Gymnasium's order: a standing pole doubles any difference every nine steps.
    let push = (force + pole * (theta_dot * theta_dot) * sin) / mass;
    let theta_acc = (number(GRAVITY) * sin - cos * push)
        / (number(LENGTH) * (number(4.0 / 3.0) - number(POLE_MASS) * (cos * cos) / mass));
    let x_acc = push - pole * theta_acc * cos / mass;
    [x + tau * x_dot, x_dot + tau * x_acc, theta + tau * theta_dot, theta_dot + tau * theta_acc]
}

/// A step of many copies, in registers as wide as the processor has them. The bits are the same on each: no
/// operation is reordered, and two are fused only where that is exact.
struct PushAll<'a> {
    envs: &'a mut [CartPole],
    actions: &'a [Action],
    transitions: &'a mut [Transition],
}

impl pulp::WithSimd for PushAll<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        /// Numbers in the widest two registers.
        const MOST: usize = 16;
        let count = Vectors::<S>::COUNT;
        let groups = self.envs.chunks_mut(count).zip(self.actions.chunks(count));
        for ((envs, actions), transitions) in groups.zip(self.transitions.chunks_mut(count)) {
            let (mut states, mut forces) = ([[0.0; MOST]; 4], [0.0; MOST]);
            for (lane, (env, &action)) in envs.iter().zip(actions).enumerate() {
                for (all, value) in states.iter_mut().zip(env.state) {
                    all[lane] = value;
                }
                forces[lane] = force(action);
            }
            // Of all angles, without a branch for each.
            let lean_little = states[2].iter().fold(true, |all, &theta| all & leans_little(theta));
            if envs.len() < count || !lean_little {
                let all = envs.iter_mut().zip(actions).zip(transitions);
                all.for_each(|((env, &action), transition)| *transition = env.push(action));
                continue;
            }
            let load = |all| Vectors::load(simd, all);
            let state = [load(&states[0]), load(&states[1]), load(&states[2]), load(&states[3])];
            let next = moved(state, load(&forces), small_angle::sin_cos(state[2]));
            for (next, all) in next.into_iter().zip(&mut states) {
                next.store(all);
            }
            let [x, x_dot, theta, theta_dot] = &states;
            for (lane, (env, transition)) in envs.iter_mut().zip(transitions).enumerate() {
                *transition = env.arrive([x[lane], x_dot[lane], theta[lane], theta_dot[lane]]);
            }
        }
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
        self.push(action)
    }

    fn step_all(
        envs: &mut [Self],
        actions: &[Action],
        _rngs: &mut [StreamRng],
        transitions: &mut [Transition],
    ) {
        pulp::Arch::new().dispatch(PushAll { envs, actions, transitions });
    }

    fn observe(&self, view: &mut ObservationView<'_>) {
        view.features.copy_from_slice(&self.state.map(|value| value as f32));
    }

    fn observe_all(envs: &[Self], observations: ObservationBatchMut<'_>) {
        observations.mask.fill(true);
        let (rows, _) = observations.features.as_chunks_mut::<4>();
        for (env, row) in envs.iter().zip(rows) {
            *row = env.state.map(|value| value as f32);
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
    fn copies_step_together_as_each_does_alone_however_far_they_lean() {
        let mut rng = stream(4, Purpose::Environment, 0);
        for reach in [1e-160, 1e-105, 0.2, 0.3, 3.0] {
            let state = |rng: &mut StreamRng| std::array::from_fn(|_| rng.random_range(-reach..reach));
            let mut together: Vec<_> = (0..37).map(|_| CartPole::from_state(state(&mut rng))).collect();
            let mut alone = together.clone();
            let actions: Vec<_> = (0..37).map(|_| Action::Discrete(rng.random_range(0..2))).collect();
            let mut transitions = vec![Transition { reward: 0.0, score: 0.0, end: None }; 37];
            let mut rngs = vec![rng.clone(); 37];
            CartPole::step_all(&mut together, &actions, &mut rngs, &mut transitions);
            for (i, env) in alone.iter_mut().enumerate() {
                assert_eq!(transitions[i], env.step(actions[i], &mut rngs[i]));
                assert_eq!(together[i].state.map(f64::to_bits), env.state.map(f64::to_bits), "copy {i}");
            }
        }
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
