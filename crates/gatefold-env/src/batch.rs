//! Many environments behind one dynamic call per step, with same-step auto-reset.

use serde::{Deserialize, Serialize};

use crate::{
    Action, EnvError, EnvSpec, EpisodeEnd, ObservationBatch, ObservationBatchMut, Single, StreamRng,
};

/// One finished episode.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// Which environment of the batch it ran in.
    pub env: usize,
    /// Sum of raw rewards.
    pub episode_return: f64,
    /// The last in-game score.
    pub score: f64,
    /// Steps taken.
    pub length: u32,
    /// How it ended.
    pub end: EpisodeEnd,
}

/// What one batched step gave, beside the next observations. Reused from step to step.
#[derive(Debug, Clone, Default)]
pub struct StepResults {
    /// Rewards `[N]`.
    pub rewards: Vec<f32>,
    /// How each environment's episode ended in this step, if it did `[N]`.
    pub ends: Vec<Option<EpisodeEnd>>,
    /// Final observations; row `i` is meaningful only where `ends[i]` is set.
    pub finals: ObservationBatch,
    /// The episodes that ended in this step, by environment.
    pub finished: Vec<Episode>,
}

impl StepResults {
    /// Buffers for `num_envs` environments of `spec`.
    pub fn new(spec: &EnvSpec, num_envs: usize) -> Self {
        Self {
            rewards: vec![0.0; num_envs],
            ends: vec![None; num_envs],
            finals: ObservationBatch::new(spec, num_envs),
            finished: Vec::with_capacity(num_envs),
        }
    }
}

/// A batch of environments behind one dynamic call per step.
pub trait BatchEnv: Send {
    /// Sizes and limits of each environment.
    fn spec(&self) -> &EnvSpec;

    /// Number of environments.
    fn num_envs(&self) -> usize;

    /// Starts a new episode everywhere and writes the first observations.
    fn reset(&mut self, observations: ObservationBatchMut<'_>) -> Result<(), EnvError>;

    /// Writes the current observations without stepping (used after a saved state is loaded).
    fn observe(&self, observations: ObservationBatchMut<'_>) -> Result<(), EnvError>;

    /// Takes one action in every environment. An environment whose episode ends is reset in the
    /// same step: its final observation goes to `results.finals`, and `observations` gets the
    /// first one of the next episode.
    fn step(
        &mut self,
        actions: &[Action],
        observations: ObservationBatchMut<'_>,
        results: &mut StepResults,
    ) -> Result<(), EnvError>;

    /// The batch cut into parts of so many environments each, all of them together; `None` where it steps as a
    /// whole alone. Each part stepped on its own, in whatever order or beside the others, leaves what
    /// [`step`](Self::step) leaves.
    fn parts(&mut self, _sizes: &[usize]) -> Option<Vec<Box<dyn BatchPart + '_>>> {
        None
    }

    /// A copy of the batch in the state that it is in; `None` where none can be had (a bridge to another
    /// process).
    fn duplicate(&self) -> Option<Box<dyn BatchEnv>> {
        None
    }

    /// Everything needed to go on identically.
    fn save(&self) -> Result<Vec<u8>, EnvError>;

    /// Goes on from a [`save`](Self::save) of a batch of the same size; on error nothing changes.
    fn load(&mut self, state: &[u8]) -> Result<(), EnvError>;

    /// Writes the scripted policy's actions; false if the environment has no scripted policy.
    fn scripted(&self, rng: &mut StreamRng, actions: &mut [Action]) -> bool;

    /// Names of the kinds of situation by which an evaluation reports the use of experts; none by
    /// default.
    fn regimes(&self) -> &'static [&'static str] {
        &[]
    }

    /// Index of environment `index`'s present situation in [`regimes`](Self::regimes).
    fn regime(&self, _index: usize) -> usize {
        0
    }

    /// A picture of environment `index` in text, if it can draw one.
    fn render(&self, index: usize) -> Option<String>;

    /// A copy of environment `index` outside the batch; `None` where none can be had (a bridge to
    /// another process). The conformance check replays the batch with it.
    fn single(&self, _index: usize) -> Option<Single> {
        None
    }
}

/// Some neighbouring environments of a batch.
pub trait BatchPart: Send {
    /// [`BatchEnv::step`] of these environments, whose rows alone are given; episodes name an environment by its
    /// number in the batch.
    fn step(
        &mut self,
        actions: &[Action],
        observations: ObservationBatchMut<'_>,
        results: &mut StepResults,
    ) -> Result<(), EnvError>;
}

impl BatchPart for &mut dyn BatchEnv {
    fn step(
        &mut self,
        actions: &[Action],
        observations: ObservationBatchMut<'_>,
        results: &mut StepResults,
    ) -> Result<(), EnvError> {
        (**self).step(actions, observations, results)
    }
}
