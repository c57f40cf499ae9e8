//! The copies of the generic batch: each has a stream and a running episode, and is saved as one slot.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Environment, StreamRng};

/// Sums of one episode.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) episode_return: f64,
    pub(crate) score: f64,
    pub(crate) length: u32,
}

/// The copies, each kind of data in an array of its own: a step reads neighbouring environments and
/// leaves the streams, which are large and seldom drawn from, where they are.
#[derive(Clone)]
pub(crate) struct Slots<E> {
    pub(crate) envs: Vec<E>,
    pub(crate) rngs: Vec<StreamRng>,
    /// Of the running episodes.
    pub(crate) tallies: Vec<Tally>,
    /// Of the episodes that the current step ended; meaningful only where one has.
    pub(crate) ended: Vec<Tally>,
}

/// One copy as it is saved.
#[derive(Serialize, Deserialize)]
struct Slot<E, R> {
    env: E,
    rng: R,
    episode_return: f64,
    length: u32,
    score: f64,
}

impl<E: Environment> Slots<E> {
    /// A copy of `env` for each stream.
    pub(crate) fn new(env: &E, rngs: Vec<StreamRng>) -> Self {
        let tallies = vec![Tally::default(); rngs.len()];
        Self { envs: vec![env.clone(); rngs.len()], rngs, ended: tallies.clone(), tallies }
    }

    pub(crate) fn len(&self) -> usize {
        self.envs.len()
    }

    pub(crate) fn as_mut(&mut self) -> SlotsMut<'_, E> {
        let Self { envs, rngs, tallies, ended } = self;
        SlotsMut { envs, rngs, tallies, ended }
    }
}

/// Neighbouring copies, borrowed.
pub(crate) struct SlotsMut<'a, E> {
    pub(crate) envs: &'a mut [E],
    pub(crate) rngs: &'a mut [StreamRng],
    pub(crate) tallies: &'a mut [Tally],
    pub(crate) ended: &'a mut [Tally],
}

impl<E> SlotsMut<'_, E> {
    /// The same copies, borrowed for a shorter time.
    pub(crate) fn reborrow(&mut self) -> SlotsMut<'_, E> {
        SlotsMut { envs: self.envs, rngs: self.rngs, tallies: self.tallies, ended: self.ended }
    }

    /// Splits after `count` copies.
    pub(crate) fn split_at(self, count: usize) -> (Self, Self) {
        let (envs0, envs1) = self.envs.split_at_mut(count);
        let (rngs0, rngs1) = self.rngs.split_at_mut(count);
        let (tallies0, tallies1) = self.tallies.split_at_mut(count);
        let (ended0, ended1) = self.ended.split_at_mut(count);
        (
            Self { envs: envs0, rngs: rngs0, tallies: tallies0, ended: ended0 },
            Self { envs: envs1, rngs: rngs1, tallies: tallies1, ended: ended1 },
        )
    }
}

impl<E: Serialize> Serialize for Slots<E> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.envs.iter().zip(&self.rngs).zip(&self.tallies).map(
            |((env, rng), &Tally { episode_return, score, length })| Slot {
                env,
                rng,
                episode_return,
                length,
                score,
            },
        ))
    }
}

impl<'de, E: DeserializeOwned> Deserialize<'de> for Slots<E> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let saved = Vec::<Slot<E, StreamRng>>::deserialize(deserializer)?;
        let ended = vec![Tally::default(); saved.len()];
        let mut slots = Self { envs: Vec::new(), rngs: Vec::new(), tallies: Vec::new(), ended };
        for Slot { env, rng, episode_return, length, score } in saved {
            slots.envs.push(env);
            slots.rngs.push(rng);
            slots.tallies.push(Tally { episode_return, score, length });
        }
        Ok(slots)
    }
}
