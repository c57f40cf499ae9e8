//! How a run of neighbouring environments takes a step, alone or spread over threads.

use crate::slot::{SlotsMut, Tally};
use crate::{Action, Environment, Episode, EpisodeEnd, ObservationBatchMut, StepResults, Transition};

/// Environments that step, end and are observed together: few enough to stay in the fastest cache
/// between the three, many enough for [`Environment::step_all`] to gain from.
const BLOCK: usize = 64;

/// A run of environments with their places in the caller's buffers.
pub(crate) struct Run<'a, E> {
    slots: SlotsMut<'a, E>,
    actions: &'a [Action],
    observations: ObservationBatchMut<'a>,
    rewards: &'a mut [f32],
    ends: &'a mut [Option<EpisodeEnd>],
    finals: ObservationBatchMut<'a>,
}

impl<'a, E: Environment> Run<'a, E> {
    /// These environments, to which `actions`, `observations` and `results` belong.
    pub(crate) fn new(
        slots: SlotsMut<'a, E>,
        actions: &'a [Action],
        observations: ObservationBatchMut<'a>,
        results: &'a mut StepResults,
    ) -> Self {
        assert_eq!(actions.len(), slots.envs.len(), "one action per environment");
        let StepResults { rewards, ends, finals, .. } = results;
        Self { slots, actions, observations, rewards, ends, finals: finals.as_mut() }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.envs.len()
    }

    pub(crate) fn split_at(self, middle: usize) -> (Self, Self) {
        let (slots0, slots1) = self.slots.split_at(middle);
        let (actions0, actions1) = self.actions.split_at(middle);
        let (observations0, observations1) = self.observations.split_at(middle);
        let (rewards0, rewards1) = self.rewards.split_at_mut(middle);
        let (ends0, ends1) = self.ends.split_at_mut(middle);
        let (finals0, finals1) = self.finals.split_at(middle);
        (
            Self {
                slots: slots0,
                actions: actions0,
                observations: observations0,
                rewards: rewards0,
                ends: ends0,
                finals: finals0,
            },
            Self {
                slots: slots1,
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
        let SlotsMut { envs, rngs, tallies, ended } = self.slots;
        let mut transitions = [Transition { reward: 0.0, score: 0.0, end: None }; BLOCK];
        let transitions = &mut transitions[..envs.len()];
        E::step_all(envs, self.actions, rngs, transitions);
        let results = self.rewards.iter_mut().zip(self.ends.iter_mut());
        for ((tally, transition), (reward, end)) in tallies.iter_mut().zip(transitions).zip(results) {
            tally.episode_return += f64::from(transition.reward);
            tally.score = transition.score;
            tally.length += 1;
            let cut = limit.is_some_and(|limit| tally.length >= limit);
            *end = transition.end.or(cut.then_some(EpisodeEnd::Truncated));
            *reward = transition.reward;
        }
        for i in 0..envs.len() {
            if self.ends[i].is_some() {
                envs[i].observe(&mut self.finals.row(i));
                ended[i] = std::mem::take(&mut tallies[i]);
                envs[i].reset(&mut rngs[i]);
            }
        }
        E::observe_all(envs, self.observations);
    }
}

/// Lists the episodes that a step ended, whose sums are in `ended`; the first environment is number `first` of its
/// batch.
pub(crate) fn list_finished(results: &mut StepResults, ended: &[Tally], first: usize) {
    results.finished.clear();
    for (i, (end, &ended)) in results.ends.iter().zip(ended).enumerate() {
        if let Some(end) = *end {
            let Tally { episode_return, score, length } = ended;
            results.finished.push(Episode { env: first + i, episode_return, score, length, end });
        }
    }
}
