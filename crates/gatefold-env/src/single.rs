//! One environment copied out of its batch, for looking between a step and the reset.

use std::fmt;

use crate::clones::type_name;
use crate::{Action, EnvError, Environment, ObservationView, StreamRng, Transition};

/// A copy of one environment with a copy of its stream. Stepped with the same actions it lives
/// through what the batch lives through, without the batch's time limit and automatic reset.
pub struct Single {
    env: Box<dyn Erased>,
    rng: StreamRng,
}

impl Single {
    /// `env` drawing from `rng`.
    pub fn new(env: impl Environment, rng: StreamRng) -> Self {
        Self { env: Box::new(env), rng }
    }

    /// Starts a new episode.
    pub fn reset(&mut self) {
        self.env.reset(&mut self.rng);
    }

    /// Takes one action.
    pub fn step(&mut self, action: Action) -> Transition {
        self.env.step(action, &mut self.rng)
    }

    /// Writes the observation of the current state.
    pub fn observe(&self, view: &mut ObservationView<'_>) {
        self.env.observe(view);
    }

    /// Environment and stream as a checkpoint holds them.
    pub(crate) fn state(&self) -> Result<Vec<u8>, EnvError> {
        self.env.state(&self.rng)
    }

    /// The stream that the next draw comes from.
    pub fn rng(&self) -> &StreamRng {
        &self.rng
    }

    /// The same environment on another stream.
    pub fn with_rng(mut self, rng: StreamRng) -> Self {
        self.rng = rng;
        self
    }
}

impl Clone for Single {
    fn clone(&self) -> Self {
        Self { env: self.env.copy(), rng: self.rng.clone() }
    }
}

impl fmt::Debug for Single {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Single").field("rng", &self.rng).finish_non_exhaustive()
    }
}

/// [`Environment`] without its type; private, because the batch is the way to run one.
trait Erased: Send {
    fn reset(&mut self, rng: &mut StreamRng);
    fn step(&mut self, action: Action, rng: &mut StreamRng) -> Transition;
    fn observe(&self, view: &mut ObservationView<'_>);
    fn state(&self, rng: &StreamRng) -> Result<Vec<u8>, EnvError>;
    fn copy(&self) -> Box<dyn Erased>;
}

impl<E: Environment> Erased for E {
    fn reset(&mut self, rng: &mut StreamRng) {
        Environment::reset(self, rng);
    }

    fn step(&mut self, action: Action, rng: &mut StreamRng) -> Transition {
        Environment::step(self, action, rng)
    }

    fn observe(&self, view: &mut ObservationView<'_>) {
        Environment::observe(self, view);
    }

    fn state(&self, rng: &StreamRng) -> Result<Vec<u8>, EnvError> {
        rmp_serde::to_vec(&(self, rng))
            .map_err(|e| EnvError::State { env: type_name::<E>(), reason: e.to_string() })
    }

    fn copy(&self) -> Box<dyn Erased> {
        Box::new(self.clone())
    }
}
