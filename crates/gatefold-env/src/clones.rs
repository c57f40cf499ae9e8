//! The generic batch: clones of one [`Environment`], each with a stream of its own.

use std::time::Instant;

use crate::run::{Run, list_finished};
use crate::slot::{Slots, SlotsMut, Tally};
use crate::{
    Action, BatchEnv, BatchPart, EnvError, EnvSpec, Environment, ObservationBatchMut, Purpose, Single,
    StepResults, StreamRng, stream,
};

/// Work worth a thread of its own, in nanoseconds: handing it over costs about 10 microseconds.
const PIECE_NANOS: u64 = 30_000;
/// The cost of a step is measured on this many environments ...
const MEASURED: usize = 32;
/// ... once in this many batched steps.
const MEASURE_EVERY: u32 = 16;

/// The generic batch: `num_envs` clones of one environment, each with a stream of its own.
///
/// Heavy environments are spread over rayon's threads, light ones are not worth it; which they are
/// is measured now and then. Each environment draws from its own stream and nothing is summed over
/// environments, so the split decides only who computes, never what.
#[derive(Clone)]
pub struct Batch<E> {
    spec: EnvSpec,
    slots: Slots<E>,
    /// Cost of one environment's step in nanoseconds, as measured.
    step_nanos: u64,
    steps_until_measured: u32,
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
        let rngs = (0..num_envs).map(|i| stream(seed, Purpose::Environment, i as u64)).collect();
        let slots = Slots::new(&env, rngs);
        Ok(Self { spec, slots, step_nanos: 32, steps_until_measured: 0 })
    }

    fn state_error(&self, reason: String) -> EnvError {
        EnvError::State { env: type_name::<E>(), reason }
    }

    /// Environment `index`, for tests and studies that look inside.
    pub fn env(&self, index: usize) -> &E {
        &self.slots.envs[index]
    }
}

/// Some neighbouring environments of a batch.
struct Part<'a, E> {
    limit: Option<u32>,
    slots: SlotsMut<'a, E>,
    /// Number of its first environment in the batch.
    first: usize,
}

impl<E: Environment> BatchPart for Part<'_, E> {
    fn step(
        &mut self,
        actions: &[Action],
        observations: ObservationBatchMut<'_>,
        results: &mut StepResults,
    ) -> Result<(), EnvError> {
        Run::new(self.slots.reborrow(), actions, observations, results).step(self.limit, usize::MAX);
        list_finished(results, self.slots.ended, self.first);
        Ok(())
    }
}

/// What messages and saved states call the environment `E`.
pub(crate) fn type_name<E>() -> String {
    std::any::type_name::<E>().rsplit("::").next().unwrap_or_default().to_lowercase()
}

impl<E: Environment> BatchEnv for Batch<E> {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn num_envs(&self) -> usize {
        self.slots.len()
    }

    fn reset(&mut self, observations: ObservationBatchMut<'_>) -> Result<(), EnvError> {
        for (env, rng) in self.slots.envs.iter_mut().zip(&mut self.slots.rngs) {
            env.reset(rng);
        }
        self.slots.tallies.fill(Tally::default());
        self.observe(observations)
    }

    fn observe(&self, observations: ObservationBatchMut<'_>) -> Result<(), EnvError> {
        E::observe_all(&self.slots.envs, observations);
        Ok(())
    }

    fn step(
        &mut self,
        actions: &[Action],
        observations: ObservationBatchMut<'_>,
        results: &mut StepResults,
    ) -> Result<(), EnvError> {
        let limit = self.spec.max_episode_steps;
        let mut run = Run::new(self.slots.as_mut(), actions, observations, results);
        if rayon::current_num_threads() > 1 {
            if self.steps_until_measured == 0 {
                self.steps_until_measured = MEASURE_EVERY;
                let measured = MEASURED.min(run.len());
                let (first, rest) = run.split_at(measured);
                let start = Instant::now();
                first.step(limit, usize::MAX);
                let nanos = start.elapsed().as_nanos() as u64 / measured as u64;
                // At most doubled: a measurement that was interrupted must not decide the next steps.
                self.step_nanos = nanos.clamp(1, 2 * self.step_nanos);
                run = rest;
            }
            self.steps_until_measured -= 1;
            run.step(limit, (PIECE_NANOS / self.step_nanos).max(1) as usize);
        } else {
            run.step(limit, usize::MAX);
        }
        list_finished(results, &self.slots.ended, 0);
        Ok(())
    }

    fn parts(&mut self, sizes: &[usize]) -> Option<Vec<Box<dyn BatchPart + '_>>> {
        assert_eq!(sizes.iter().sum::<usize>(), self.slots.len(), "parts of all environments");
        let limit = self.spec.max_episode_steps;
        let (mut rest, mut first) = (self.slots.as_mut(), 0);
        let mut parts: Vec<Box<dyn BatchPart + '_>> = Vec::with_capacity(sizes.len());
        for &size in sizes {
            let (slots, after) = rest.split_at(size);
            parts.push(Box::new(Part { limit, slots, first }));
            (rest, first) = (after, first + size);
        }
        Some(parts)
    }

    fn duplicate(&self) -> Option<Box<dyn BatchEnv>> {
        Some(Box::new(self.clone()))
    }

    fn save(&self) -> Result<Vec<u8>, EnvError> {
        rmp_serde::to_vec(&(type_name::<E>(), &self.slots)).map_err(|e| self.state_error(e.to_string()))
    }

    fn load(&mut self, state: &[u8]) -> Result<(), EnvError> {
        let mut unread = state;
        let (env, slots): (String, Slots<E>) =
            rmp_serde::from_read(&mut unread).map_err(|e| self.state_error(e.to_string()))?;
        let fault = if env != type_name::<E>() {
            format!("was saved by `{env}`")
        } else if !unread.is_empty() {
            format!("{} bytes too long", unread.len())
        } else if slots.len() != self.slots.len() {
            format!("holds {} environments, this run has {}", slots.len(), self.slots.len())
        } else if slots.envs.iter().any(|env| !env.spec().same_sizes(&self.spec)) {
            "was saved with options that give other sizes".to_string()
        } else {
            self.slots = slots;
            return Ok(());
        };
        Err(self.state_error(fault))
    }

    fn scripted(&self, rng: &mut StreamRng, actions: &mut [Action]) -> bool {
        self.slots.envs.iter().zip(actions).all(|(env, action)| match env.scripted(rng) {
            Some(choice) => {
                *action = choice;
                true
            }
            None => false,
        })
    }

    fn regimes(&self) -> &'static [&'static str] {
        E::regimes()
    }

    fn regime(&self, index: usize) -> usize {
        self.slots.envs[index].regime()
    }

    fn render(&self, index: usize) -> Option<String> {
        self.slots.envs[index].render()
    }

    fn single(&self, index: usize) -> Option<Single> {
        Some(Single::new(self.slots.envs[index].clone(), self.slots.rngs[index].clone()))
    }
}
