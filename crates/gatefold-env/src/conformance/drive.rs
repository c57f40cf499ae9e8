//! A batch being driven: buffers, who chooses the actions, and statistics counted independently.

use rand::RngExt;

use crate::conformance::report::Fault;
use crate::conformance::{Lab, NUM_ENVS};
use crate::{Action, BatchEnv, EnvSpec, ObservationBatch, Purpose, StepResults, StreamRng, stream};

/// Who chooses the actions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Driver {
    /// Uniform over allowed actions; environment `i` has a stream of its own.
    Random,
    /// Uniform over allowed actions; every environment has the same stream.
    Unison,
    /// The scripted policy.
    Scripted,
}

pub(super) struct Drive {
    pub(super) spec: EnvSpec,
    pub(super) batch: Box<dyn BatchEnv>,
    pub(super) seen: ObservationBatch,
    pub(super) results: StepResults,
    pub(super) actions: Vec<Action>,
    /// Steps taken since the first reset.
    pub(super) step: usize,
    /// Steps of the running episodes; after a step that ends one, those of the ended episode.
    pub(super) lengths: Vec<u32>,
    /// Sums of rewards, of the same episodes.
    pub(super) returns: Vec<f64>,
    driver: Driver,
    choosers: Vec<StreamRng>,
}

impl Drive {
    /// A batch before its first reset.
    pub(super) fn new(batch: Box<dyn BatchEnv>, driver: Driver) -> Self {
        let (spec, num_envs) = (batch.spec().clone(), batch.num_envs());
        let key = |env| if driver == Driver::Random { env as u64 } else { 0 };
        Self {
            seen: ObservationBatch::new(&spec, num_envs),
            results: StepResults::new(&spec, num_envs),
            actions: vec![Action::Discrete(0); num_envs],
            step: 0,
            lengths: vec![0; num_envs],
            returns: vec![0.0; num_envs],
            driver,
            choosers: (0..num_envs).map(|env| stream(0, Purpose::Actions, key(env))).collect(),
            spec,
            batch,
        }
    }

    pub(super) fn num_envs(&self) -> usize {
        self.actions.len()
    }

    /// Resets every environment.
    pub(super) fn start(&mut self) -> Result<(), Fault> {
        self.batch.reset(self.seen.as_mut())?;
        self.results.ends.fill(None);
        self.lengths.fill(0);
        self.returns.fill(0.0);
        Ok(())
    }

    /// Sets the actions of the next step. Where the mask allows none it is action 0, so that an
    /// empty mask fails its own check only.
    pub(super) fn choose(&mut self) -> Result<(), Fault> {
        if self.driver == Driver::Scripted {
            if !self.batch.scripted(&mut self.choosers[0], &mut self.actions) {
                return Err(Fault::at(self.step, "the scripted policy has stopped answering"));
            }
            return Ok(());
        }
        for (env, action) in self.actions.iter_mut().enumerate() {
            *action = draw(allowed(&self.seen, &self.spec, env), &mut self.choosers[env]);
        }
        Ok(())
    }

    /// Takes the chosen actions.
    pub(super) fn take(&mut self) -> Result<(), Fault> {
        for env in 0..self.num_envs() {
            if self.results.ends[env].is_some() {
                self.lengths[env] = 0;
                self.returns[env] = 0.0;
            }
        }
        self.batch.step(&self.actions, self.seen.as_mut(), &mut self.results)?;
        self.step += 1;
        for env in 0..self.num_envs() {
            self.lengths[env] += 1;
            self.returns[env] += f64::from(self.results.rewards[env]);
        }
        Ok(())
    }

    /// Takes the chosen actions in parts of so many environments, the last part first; `lengths` and `returns` are not
    /// counted.
    pub(super) fn take_in_parts(&mut self, sizes: &[usize]) -> Result<(), Fault> {
        let parts = self.batch.parts(sizes).ok_or_else(|| Fault::new("it can be copied, but not be cut"))?;
        let (mut rest, mut first, mut pieces) = (self.seen.as_mut(), 0, Vec::new());
        for (part, &size) in parts.into_iter().zip(sizes) {
            let (rows, after) = rest.split_at(size);
            pieces.push((part, rows, first..first + size));
            (rest, first) = (after, first + size);
        }
        self.results.finished.clear();
        for (mut part, rows, envs) in pieces.into_iter().rev() {
            let mut results = StepResults::new(&self.spec, envs.len());
            part.step(&self.actions[envs.clone()], rows, &mut results)?;
            self.results.rewards[envs.clone()].copy_from_slice(&results.rewards);
            self.results.ends[envs.clone()].copy_from_slice(&results.ends);
            let finals = self.results.finals.rows_mut(envs.start, envs.len());
            finals.features.copy_from_slice(&results.finals.features);
            finals.activations.copy_from_slice(&results.finals.activations);
            finals.node_features.copy_from_slice(&results.finals.node_features);
            finals.mask.copy_from_slice(&results.finals.mask);
            self.results.finished.append(&mut results.finished);
        }
        self.step += 1;
        Ok(())
    }

    /// Takes `steps` steps.
    pub(super) fn advance(&mut self, steps: usize) -> Result<(), Fault> {
        for _ in 0..steps {
            self.choose()?;
            self.take()?;
        }
        Ok(())
    }
}

/// One of the allowed actions, uniformly; action 0 if none is.
pub(super) fn draw(mask: &[bool], rng: &mut StreamRng) -> Action {
    let count = mask.iter().filter(|&&allowed| allowed).count();
    let draw = rng.random_range(0..count.max(1));
    Action::Discrete((0..mask.len()).filter(|&a| mask[a]).nth(draw).unwrap_or(0))
}

/// The mask of environment `env`.
pub(super) fn allowed<'a>(seen: &'a ObservationBatch, spec: &EnvSpec, env: usize) -> &'a [bool] {
    &seen.mask[env * spec.num_actions()..(env + 1) * spec.num_actions()]
}

impl Lab<'_> {
    /// A fresh batch, reset.
    pub(super) fn drive(&self, num_envs: usize, seed: u64, driver: Driver) -> Result<Drive, Fault> {
        let mut drive = Drive::new(self.build(num_envs, seed)?, driver);
        drive.start()?;
        Ok(drive)
    }

    /// Whether the environment has a scripted policy.
    pub(super) fn is_scripted(&self) -> Result<bool, Fault> {
        let drive = self.drive(1, self.settings.seed, Driver::Random)?;
        let mut action = [Action::Discrete(0)];
        Ok(drive.batch.scripted(&mut stream(0, Purpose::Actions, 0), &mut action))
    }

    /// The drivers that the environment can have.
    pub(super) fn drivers(&self) -> Result<&'static [Driver], Fault> {
        Ok(if self.is_scripted()? { &[Driver::Random, Driver::Scripted] } else { &[Driver::Random] })
    }

    /// Looks at a batch after the first reset and after every step, under each driver.
    pub(super) fn watch(&self, mut look: impl FnMut(&Drive) -> Result<(), Fault>) -> Result<(), Fault> {
        for &driver in self.drivers()? {
            let mut drive = self.drive(NUM_ENVS, self.settings.seed, driver)?;
            look(&drive)?;
            for _ in 0..self.horizon() {
                drive.advance(1)?;
                look(&drive)?;
            }
        }
        Ok(())
    }
}
