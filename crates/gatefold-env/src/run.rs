//! How a run of neighbouring environments takes a step, alone or spread over threads.

use crate::slot::{Slots, Tally};
use crate::{Action, Environment, EpisodeEnd, ObservationBatchMut, StepResults, StreamRng, Transition};

/// Environments that step, end and are observed together: few enough to stay in the fastest cache
/// between the three, many enough for [`Environment::step_all`] to gain from.
const BLOCK: usize = 64;

/// A run of environments with their places in the caller's buffers.
pub(crate) struct Run<'a, E> {
    envs: &'a mut [E],
    rngs: &'a mut [StreamRng],
    tallies: &'a mut [Tally],
    ended: &'a mut [Tally],
    actions: &'a [Action],
    observations: ObservationBatchMut<'a>,
    rewards: &'a mut [f32],
    ends: &'a mut [Option<EpisodeEnd>],
    finals: ObservationBatchMut<'a>,
}

impl<'a, E: Environment> Run<'a, E> {
    /// All environments of a batch.
    pub(crate) fn new(
        slots: &'a mut Slots<E>,
        actions: &'a [Action],
        observations: ObservationBatchMut<'a>,
        results: &'a mut StepResults,
    ) -> Self {
        let Slots { envs, rngs, tallies, ended } = slots;
        let StepResults { rewards, ends, finals, .. } = results;
        Self { envs, rngs, tallies, ended, actions, observations, rewards, ends, finals: finals.as_mut() }
    }

    pub(crate) fn len(&self) -> usize {
        self.envs.len()
    }

    pub(crate) fn split_at(self, middle: usize) -> (Self, Self) {
        let (envs0, envs1) = self.envs.split_at_mut(middle);
        let (rngs0, rngs1) = self.rngs.split_at_mut(middle);
        let (tallies0, tallies1) = self.tallies.split_at_mut(middle);
        let (ended0, ended1) = self.ended.split_at_mut(middle);
        let (actions0, actions1) = self.actions.split_at(middle);
        let (observations0, observations1) = self.observations.split_at(middle);
        let (rewards0, rewards1) = self.rewards.split_at_mut(middle);
        let (ends0, ends1) = self.ends.split_at_mut(middle);
        let (finals0, finals1) = self.finals.split_at(middle);
        (
            Self {
                envs: envs0,
                rngs: rngs0,
                tallies: tallies0,
                ended: ended0,
                actions: actions0,
                observations: observations0,
                rewards: rewards0,
                ends: ends0,
                finals: finals0,
            },
            Self {
                envs: envs1,
                rngs: rngs1,
                tallies: tallies1,
                ended: ended1,
                actions: actions1,
                observations: observations1,
                rewards: rewards1,
                ends: ends1,
                finals: finals1,
            },
        )
    }

    /// Steps every environment, halving the run for rayon while it is longer than `piece`.
    pub(crate) fn step(mut self, limit: Option<u32>, piece: usize) {
        if self.len() > piece {
            let middle = self.len() / 2;
            let (left, right) = self.split_at(middle);
            rayon::join(|| left.step(limit, piece), || right.step(limit, piece));
            return;
        }
        while self.len() > BLOCK {
            let (block, rest) = self.split_at(BLOCK);
            block.step_block(limit);
            self = rest;
        }
        self.step_block(limit);
    }

    /// Steps up to [`BLOCK`] environments, resets those that end, and observes all.
    fn step_block(mut self, limit: Option<u32>) {
        let mut transitions = [Transition { reward: 0.0, score: 0.0, end: None }; BLOCK];
        let transitions = &mut transitions[..self.envs.len()];
        E::step_all(self.envs, self.actions, self.rngs, transitions);
        let results = self.rewards.iter_mut().zip(self.ends.iter_mut());
        for ((tally, transition), (reward, end)) in self.tallies.iter_mut().zip(transitions).zip(results) {
            tally.episode_return += f64::from(transition.reward);
            tally.score = transition.score;
            tally.length += 1;
            let cut = limit.is_some_and(|limit| tally.length >= limit);
            *end = transition.end.or(cut.then_some(EpisodeEnd::Truncated));
            *reward = transition.reward;
        }
        for i in 0..self.envs.len() {
            if self.ends[i].is_some() {
                self.envs[i].observe(&mut self.finals.row(i));
                self.ended[i] = std::mem::take(&mut self.tallies[i]);
                self.envs[i].reset(&mut self.rngs[i]);
            }
        }
        E::observe_all(self.envs, self.observations);
    }
}
