//! The trait a new environment implements.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{EnvError, EnvSpec, ObservationBatchMut, ObservationView, StreamRng};

/// One action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// The index of a discrete action.
    Discrete(usize),
}

impl Action {
    /// Index of a discrete action.
    pub fn index(self) -> usize {
        match self {
            Action::Discrete(index) => index,
        }
    }
}

/// Why an episode ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
pub enum EpisodeEnd {
    /// The task itself ended: nothing comes after, the future is worth 0.
    Terminated,
    /// The clock ended it: the future is worth V(final observation).
    Truncated,
}

/// What one step gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transition {
    /// The reward of this step.
    pub reward: f32,
    /// The in-game score after this step, read before anything is reset.
    pub score: f64,
    /// Set if this step ended the episode.
    pub end: Option<EpisodeEnd>,
}

/// One environment: about 30 lines for a small one.
///
/// All randomness comes from the `rng` passed in, and everything that matters lives in the
/// (serialisable) value itself: a clone, or a copy read back from disk, goes on identically.
/// Steps cannot fail; a fault in the parameters is an error of [`Environment::new`].
pub trait Environment: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The options a user can set under `[env]`; [`NoOptions`](crate::NoOptions) if there are none.
    type Config: Default + Serialize + DeserializeOwned + JsonSchema;

    /// Builds the environment; [`reset`](Self::reset) follows before anything else.
    fn new(config: &Self::Config) -> Result<Self, EnvError>;

    /// Sizes and limits; the same for every instance of one configuration.
    fn spec(&self) -> EnvSpec;

    /// Starts a new episode.
    fn reset(&mut self, rng: &mut StreamRng);

    /// Takes one action that the mask allows. The batch adds the time limit of the spec.
    fn step(&mut self, action: Action, rng: &mut StreamRng) -> Transition;

    /// Writes the whole observation of the current state: every feature, every activation and,
    /// if the spec is `masked`, every mask entry.
    fn observe(&self, view: &mut ObservationView<'_>);

    /// Takes one action in each of `envs`; transition `i` is that of `envs[i]`.
    ///
    /// There is no need to write this. An environment whose arithmetic is faster on several copies at
    /// once may; what it does must be [`step`](Self::step) in each, bit for bit, which the conformance
    /// check demands of every batch.
    fn step_all(
        envs: &mut [Self],
        actions: &[Action],
        rngs: &mut [StreamRng],
        transitions: &mut [Transition],
    ) {
        let copies = envs.iter_mut().zip(actions).zip(rngs);
        for (((env, &action), rng), transition) in copies.zip(transitions) {
            *transition = env.step(action, rng);
        }
    }

    /// Writes the observation of each of `envs`, with the mask set to all true where
    /// [`observe`](Self::observe) leaves it. Like [`step_all`](Self::step_all), there for speed.
    fn observe_all(envs: &[Self], mut observations: ObservationBatchMut<'_>) {
        for (i, env) in envs.iter().enumerate() {
            env.observe(&mut observations.row(i));
        }
    }

    /// The action of the environment's scripted policy, if it has one.
    fn scripted(&self, _rng: &mut StreamRng) -> Option<Action> {
        None
    }

    /// Names of the kinds of situation by which an evaluation reports the use of experts; none by
    /// default.
    fn regimes() -> &'static [&'static str] {
        &[]
    }

    /// Index of the present situation in [`regimes`](Self::regimes).
    fn regime(&self) -> usize {
        0
    }

    /// A picture of the state in text, if the environment can draw one.
    fn render(&self) -> Option<String> {
        None
    }
}
