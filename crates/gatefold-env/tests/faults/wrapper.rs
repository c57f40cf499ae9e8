//! The generic batch in a wrapper that adds one fault of batching.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use gatefold_env::{
    Action, Batch, BatchEnv, BatchPart, EnvEntry, EnvError, EnvSpec, Episode, ObservationBatch,
    ObservationBatchMut, Params, Single, StepResults, StreamRng,
};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::Fault;
use crate::probe::{Probe, ProbeConfig};

/// A batch of probes that breaks the contract in one way.
struct Wrapper<const FAULT: u8> {
    inner: Batch<Probe<FAULT>>,
    spec: EnvSpec,
    finished_before: Vec<Episode>,
    was_reset: bool,
    observed: AtomicU32,
}

/// The row of a probe with `FAULT`.
pub(crate) const fn entry<const FAULT: u8>() -> EnvEntry {
    EnvEntry { name: "probe", about: "a probe", build: build::<FAULT>, options: options::<FAULT> }
}

fn build<const FAULT: u8>(params: &Params) -> Result<Box<dyn BatchEnv>, EnvError> {
    let is = |fault| FAULT == fault as u8;
    let mut params = params.clone();
    if is(Fault::NoCopiesAccepted) {
        params.num_envs = params.num_envs.max(1);
    }
    if is(Fault::CopiesMiscounted) {
        params.num_envs += 1;
    }
    if is(Fault::SeedIgnored) {
        params.seed = 0;
    }
    let config = match toml::Value::Table(params.options.clone()).try_into::<ProbeConfig>() {
        Ok(config) => config,
        Err(_) if is(Fault::UnknownOptionAccepted) => ProbeConfig::default(),
        Err(error) => {
            let reason = if is(Fault::UnknownOptionUnnamed) { "no" } else { error.message() };
            return Err(EnvError::Options { env: "probe".to_string(), reason: reason.to_string() });
        }
    };
    let inner = Batch::<Probe<FAULT>>::new(&config, params.num_envs, params.seed)?;
    let mut spec = inner.spec().clone();
    if is(Fault::LimitUnderstated) {
        spec.max_episode_steps = spec.max_episode_steps.map(|limit| limit - 1);
    }
    let (finished_before, was_reset, observed) = (Vec::new(), false, AtomicU32::new(0));
    Ok(Box::new(Wrapper { inner, spec, finished_before, was_reset, observed }))
}

#[derive(Default, Serialize, JsonSchema)]
#[serde(default)]
struct Undocumented {
    limit: u32,
}

/// Options whose default is not the environment's.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct OtherDefault {
    /// Steps until the clock cuts.
    limit: u32,
}

impl Default for OtherDefault {
    fn default() -> Self {
        Self { limit: 13 }
    }
}

fn options<const FAULT: u8>() -> Schema {
    match FAULT {
        f if f == Fault::OptionUndocumented as u8 => {
            let mut schema = schemars::schema_for!(Undocumented);
            schema.get_mut("properties").unwrap()["limit"]["default"] = 12.into();
            schema
        }
        f if f == Fault::DefaultMisstated as u8 => schemars::schema_for!(OtherDefault),
        _ => schemars::schema_for!(ProbeConfig),
    }
}

impl<const FAULT: u8> Wrapper<FAULT> {
    fn has(&self, fault: Fault) -> bool {
        FAULT == fault as u8
    }

    /// Faults of everything that writes observations.
    fn tint(&self, observations: &mut ObservationBatchMut<'_>) {
        if self.has(Fault::BatchSizeShows) {
            observations.features[0] += 0.001 * self.num_envs() as f32;
        }
        if self.has(Fault::ThreadsShow) && rayon::current_num_threads() == 3 {
            observations.features[0] += 0.001;
        }
    }
}

impl<const FAULT: u8> BatchEnv for Wrapper<FAULT> {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn num_envs(&self) -> usize {
        self.inner.num_envs()
    }

    fn reset(&mut self, mut observations: ObservationBatchMut<'_>) -> Result<(), EnvError> {
        let first = !std::mem::replace(&mut self.was_reset, true);
        if first || !self.has(Fault::SecondResetIgnored) {
            self.inner.reset(observations.reborrow())?;
        } else {
            self.inner.observe(observations.reborrow())?;
        }
        self.tint(&mut observations);
        Ok(())
    }

    fn observe(&self, mut observations: ObservationBatchMut<'_>) -> Result<(), EnvError> {
        self.observed.fetch_add(1, Relaxed);
        self.inner.observe(observations.reborrow())?;
        if self.has(Fault::ObservesAnew) {
            observations.features[0] += 1.0;
        }
        self.tint(&mut observations);
        Ok(())
    }

    fn step(
        &mut self,
        actions: &[Action],
        mut observations: ObservationBatchMut<'_>,
        results: &mut StepResults,
    ) -> Result<(), EnvError> {
        let (held_mask, held_reward) = (observations.mask[0], results.rewards[1]);
        self.finished_before.clone_from(&results.finished);
        self.inner.step(actions, observations.reborrow(), results)?;
        self.tint(&mut observations);
        let ended = |env: &usize| results.ends[*env].is_some();
        match results.finished.first_mut() {
            Some(episode) if self.has(Fault::ReturnWrong) => episode.episode_return += 0.5,
            Some(episode) if self.has(Fault::LengthWrong) => episode.length += 1,
            Some(episode) if self.has(Fault::ScoreZeroed) => episode.score = 0.0,
            _ => {}
        }
        for env in (0..actions.len()).filter(ended) {
            let row = env * 2..env * 2 + 2;
            if self.has(Fault::FinalAfterReset) {
                results.finals.features[row.clone()].copy_from_slice(&observations.features[row.clone()]);
            }
            if self.has(Fault::FirstBeforeReset) {
                observations.features[row.clone()].copy_from_slice(&results.finals.features[row]);
            }
        }
        if self.has(Fault::EndUnreported) {
            results.finished.pop();
        }
        if self.has(Fault::FinishedKept) {
            let new = std::mem::replace(&mut results.finished, self.finished_before.clone());
            results.finished.extend(new);
        }
        if self.has(Fault::MaskUnwritten) {
            observations.mask[0] = held_mask;
        }
        if self.has(Fault::RewardKept) && results.rewards[1] < 0.3 {
            results.rewards[1] = held_reward;
        }
        Ok(())
    }

    // Parts know nothing of the other faults.
    fn parts(&mut self, sizes: &[usize]) -> Option<Vec<Box<dyn BatchPart + '_>>> {
        let mixed_up = self.has(Fault::PartsMixedUp);
        let cut = mixed_up || self.has(Fault::Nothing);
        let mut parts = self.inner.parts(sizes).filter(|_| cut)?;
        if mixed_up {
            parts.reverse();
        }
        Some(parts)
    }

    fn duplicate(&self) -> Option<Box<dyn BatchEnv>> {
        let copied = [Fault::Nothing, Fault::PartsMixedUp, Fault::PartsMissing];
        if !copied.iter().any(|&fault| self.has(fault)) {
            return None;
        }
        Some(Box::new(Self {
            inner: self.inner.clone(),
            spec: self.spec.clone(),
            finished_before: self.finished_before.clone(),
            was_reset: self.was_reset,
            observed: AtomicU32::new(self.observed.load(Relaxed)),
        }))
    }

    fn save(&self) -> Result<Vec<u8>, EnvError> {
        let mut state = self.inner.save()?;
        if self.has(Fault::ObservingCounts) {
            // `load` takes this byte off again.
            state.push(self.observed.load(Relaxed) as u8);
        }
        if self.has(Fault::SaveFlickers) {
            static SAVES: AtomicU32 = AtomicU32::new(0);
            state.push(SAVES.fetch_add(1, Relaxed) as u8);
        }
        Ok(state)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), EnvError> {
        let tail = usize::from(self.has(Fault::ObservingCounts) || self.has(Fault::SaveFlickers));
        let body = &state[..state.len().saturating_sub(tail)];
        if self.has(Fault::ObservingCounts) {
            self.observed.store(u32::from(state.last().copied().unwrap_or(0)), Relaxed);
        }
        let loaded = self.inner.load(body);
        let mut scratch = ObservationBatch::new(&self.spec, self.num_envs());
        match loaded {
            Ok(()) if self.has(Fault::LoadResets) => self.inner.reset(scratch.as_mut()),
            Err(_) if self.has(Fault::GarbageAccepted) => Ok(()),
            Err(error) if self.has(Fault::OtherSizeAccepted) && error.to_string().contains("holds") => Ok(()),
            Err(error) if self.has(Fault::FailedLoadResets) => {
                self.inner.reset(scratch.as_mut())?;
                Err(error)
            }
            other => other,
        }
    }

    fn scripted(&self, rng: &mut StreamRng, actions: &mut [Action]) -> bool {
        self.inner.scripted(rng, actions)
    }

    fn render(&self, index: usize) -> Option<String> {
        self.inner.render(index)
    }

    fn single(&self, index: usize) -> Option<Single> {
        let mut env = self.inner.env(index).clone();
        env.stranger = self.has(Fault::StepsAStranger);
        Some(Single::new(env, self.inner.single(index)?.rng().clone()))
    }
}
