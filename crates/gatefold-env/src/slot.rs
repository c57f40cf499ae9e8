//! One environment of the generic batch with its stream and statistics, and how a run of them steps.

use serde::{Deserialize, Serialize};

use crate::{Action, Environment, EpisodeEnd, ObservationBatchMut, StreamRng, Transition};

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Slot<E> {
    pub(crate) env: E,
    pub(crate) rng: StreamRng,
    pub(crate) episode_return: f64,
    pub(crate) length: u32,
    pub(crate) score: f64,
    /// Return, score and length of the episode that the current step ended.
    #[serde(skip)]
    pub(crate) finished: Option<(f64, f64, u32)>,
}

impl<E: Environment> Slot<E> {
    pub(crate) fn reset(&mut self) {
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

/// A run of environments with their places in the caller's buffers.
pub(crate) struct Run<'a, E> {
    pub(crate) slots: &'a mut [Slot<E>],
    pub(crate) actions: &'a [Action],
    pub(crate) observations: ObservationBatchMut<'a>,
    pub(crate) rewards: &'a mut [f32],
    pub(crate) ends: &'a mut [Option<EpisodeEnd>],
    pub(crate) finals: ObservationBatchMut<'a>,
}

impl<'a, E: Environment> Run<'a, E> {
    pub(crate) fn split_at(self, middle: usize) -> (Self, Self) {
        let (slots0, slots1) = self.slots.split_at_mut(middle);
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
        if self.slots.len() > piece {
            let middle = self.slots.len() / 2;
            let (left, right) = self.split_at(middle);
            rayon::join(|| left.step(limit, piece), || right.step(limit, piece));
            return;
        }
        for (i, slot) in self.slots.iter_mut().enumerate() {
            let transition = slot.step(self.actions[i], limit);
            self.rewards[i] = transition.reward;
            self.ends[i] = transition.end;
            if transition.end.is_some() {
                slot.env.observe(&mut self.finals.row(i));
                slot.finished = Some((slot.episode_return, slot.score, slot.length));
                slot.reset();
            }
            slot.env.observe(&mut self.observations.row(i));
        }
    }
}
