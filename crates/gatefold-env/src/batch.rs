//! Many copies of one environment, stepped together with same-step auto-reset.

use serde::{Deserialize, Serialize};

use crate::{
    Action, EnvError, EnvSpec, Environment, EpisodeEnd, ObservationBatch, ObservationBatchMut, Purpose,
    StreamRng, Transition, stream,
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

    /// Everything needed to go on identically.
    fn save(&self) -> Result<Vec<u8>, EnvError>;

    /// Goes on from a [`save`](Self::save) of a batch of the same size; on error nothing changes.
    fn load(&mut self, state: &[u8]) -> Result<(), EnvError>;

    /// Writes the scripted policy's actions; false if the environment has no scripted policy.
    fn scripted(&self, rng: &mut StreamRng, actions: &mut [Action]) -> bool;

    /// A picture of environment `index` in text, if it can draw one.
    fn render(&self, index: usize) -> Option<String>;
}

/// Environments per parallel piece. Each has its own stream, so the split cannot change a result.
const PIECE: usize = 16;

#[derive(Clone, Serialize, Deserialize)]
struct Slot<E> {
    env: E,
    rng: StreamRng,
    episode_return: f64,
    length: u32,
    score: f64,
    /// Return, score and length of the episode that the current step ended.
    #[serde(skip)]
    finished: Option<(f64, f64, u32)>,
}

/// The generic batch: `num_envs` clones of one environment, each with a stream of its own.
pub struct Batch<E> {
    spec: EnvSpec,
    slots: Vec<Slot<E>>,
}

impl<E: Environment> Batch<E> {
    /// `num_envs` environments of one configuration; environment `i` draws from stream `i` of `seed`.
    pub fn new(config: &E::Config, num_envs: usize, seed: u64) -> Result<Self, EnvError> {
        if num_envs == 0 {
            return Err(EnvError::Option {
                key: "num_envs".to_string(),
                value: "0".to_string(),
                expected: "need at least 1".to_string(),
            });
        }
        let env = E::new(config)?;
        let spec = env.spec();
        let slots = (0..num_envs)
            .map(|i| Slot {
                env: env.clone(),
                rng: stream(seed, Purpose::Environment, i as u64),
                episode_return: 0.0,
                length: 0,
                score: 0.0,
                finished: None,
            })
            .collect();
        Ok(Self { spec, slots })
    }

    fn state_error(&self, reason: String) -> EnvError {
        let env = std::any::type_name::<E>().rsplit("::").next().unwrap_or_default().to_lowercase();
        EnvError::State { env, reason }
    }

    /// Environment `index`, for tests and studies that look inside.
    pub fn env(&self, index: usize) -> &E {
        &self.slots[index].env
    }
}

impl<E: Environment> Slot<E> {
    fn reset(&mut self) {
        self.env.reset(&mut self.rng);
        self.episode_return = 0.0;
        self.length = 0;
        self.score = 0.0;
    }

    fn step(&mut self, action: Action, limit: Option<u32>) -> Transition {
        let mut transition = self.env.step(action, &mut self.rng);
        self.episode_return += f64::from(transition.reward);
        self.score = transition.score;
        self.length += 1;
        if transition.end.is_none() && limit.is_some_and(|limit| self.length >= limit) {
            transition.end = Some(EpisodeEnd::Truncated);
        }
        transition
    }
}

/// Steps a run of slots, halving it for rayon while it is longer than a [`PIECE`].
fn step_slots<E: Environment>(
    slots: &mut [Slot<E>],
    actions: &[Action],
    limit: Option<u32>,
    mut observations: ObservationBatchMut<'_>,
    rewards: &mut [f32],
    ends: &mut [Option<EpisodeEnd>],
    mut finals: ObservationBatchMut<'_>,
) {
    if slots.len() > PIECE {
        let middle = slots.len() / 2;
        let (slots0, slots1) = slots.split_at_mut(middle);
        let (actions0, actions1) = actions.split_at(middle);
        let (observations0, observations1) = observations.split_at(middle);
        let (rewards0, rewards1) = rewards.split_at_mut(middle);
        let (ends0, ends1) = ends.split_at_mut(middle);
        let (finals0, finals1) = finals.split_at(middle);
        rayon::join(
            || step_slots(slots0, actions0, limit, observations0, rewards0, ends0, finals0),
            || step_slots(slots1, actions1, limit, observations1, rewards1, ends1, finals1),
        );
        return;
    }
    for (i, slot) in slots.iter_mut().enumerate() {
        let transition = slot.step(actions[i], limit);
        rewards[i] = transition.reward;
        ends[i] = transition.end;
        if transition.end.is_some() {
            slot.env.observe(&mut finals.row(i));
            slot.finished = Some((slot.episode_return, slot.score, slot.length));
            slot.reset();
        }
        slot.env.observe(&mut observations.row(i));
    }
}

impl<E: Environment> BatchEnv for Batch<E> {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn num_envs(&self) -> usize {
        self.slots.len()
    }

    fn reset(&mut self, mut observations: ObservationBatchMut<'_>) -> Result<(), EnvError> {
        for (i, slot) in self.slots.iter_mut().enumerate() {
            slot.reset();
            slot.env.observe(&mut observations.row(i));
        }
        Ok(())
    }

    fn observe(&self, mut observations: ObservationBatchMut<'_>) -> Result<(), EnvError> {
        for (i, slot) in self.slots.iter().enumerate() {
            slot.env.observe(&mut observations.row(i));
        }
        Ok(())
    }

    fn step(
        &mut self,
        actions: &[Action],
        observations: ObservationBatchMut<'_>,
        results: &mut StepResults,
    ) -> Result<(), EnvError> {
        assert_eq!(actions.len(), self.slots.len(), "one action per environment");
        let limit = self.spec.max_episode_steps;
        results.finished.clear();
        let StepResults { rewards, ends, finals, finished } = results;
        step_slots(&mut self.slots, actions, limit, observations, rewards, ends, finals.as_mut());
        for (env, slot) in self.slots.iter_mut().enumerate() {
            if let (Some((episode_return, score, length)), Some(end)) = (slot.finished.take(), ends[env]) {
                finished.push(Episode { env, episode_return, score, length, end });
            }
        }
        Ok(())
    }

    fn save(&self) -> Result<Vec<u8>, EnvError> {
        rmp_serde::to_vec(&self.slots).map_err(|e| self.state_error(e.to_string()))
    }

    fn load(&mut self, state: &[u8]) -> Result<(), EnvError> {
        let slots: Vec<Slot<E>> =
            rmp_serde::from_slice(state).map_err(|e| self.state_error(e.to_string()))?;
        if slots.len() != self.slots.len() {
            let reason = format!("holds {} environments, this run has {}", slots.len(), self.slots.len());
            return Err(self.state_error(reason));
        }
        self.slots = slots;
        Ok(())
    }

    fn scripted(&self, rng: &mut StreamRng, actions: &mut [Action]) -> bool {
        self.slots.iter().zip(actions).all(|(slot, action)| match slot.env.scripted(rng) {
            Some(choice) => {
                *action = choice;
                true
            }
            None => false,
        })
    }

    fn render(&self, index: usize) -> Option<String> {
        self.slots[index].env.render()
    }
}
