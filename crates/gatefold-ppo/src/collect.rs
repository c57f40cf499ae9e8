//! Rolling the policy out.

use burn::tensor::{Tensor, backend::Backend};
use gatefold_curriculum::Plan;
use gatefold_env::{
    Action, BatchEnv, EnvError, EnvSpec, EpisodeEnd, ObservationBatch, StepResults, StreamRng,
};
use gatefold_ops::OpsBackend;
use gatefold_policy::{ActorCritic, Choice, ChoiceError, Observation, ObservationScaling, Pick};
use thiserror::Error;

use crate::Rollout;

/// What can end a rollout early.
#[derive(Debug, Error)]
pub enum RolloutError {
    /// The environment failed.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// No action could be chosen.
    #[error("step {step} of the rollout: {source}")]
    Choice {
        /// Step within the rollout.
        step: usize,
        /// What was wrong.
        source: ChoiceError,
    },
}

/// A batch of environments with the rollout buffer that they write into.
pub struct Collector {
    envs: Box<dyn BatchEnv>,
    spec: EnvSpec,
    results: StepResults,
    actions: Vec<Action>,
    choices: Vec<Choice>,
    scaling: Option<ObservationScaling>,
    started: bool,
    num_steps: usize,
}

impl Collector {
    /// Collects `num_steps` steps at a time; `scaling`, if given, scales observations.
    pub fn new(envs: Box<dyn BatchEnv>, num_steps: usize, scaling: Option<ObservationScaling>) -> Self {
        let (spec, num_envs) = (envs.spec().clone(), envs.num_envs());
        Self {
            results: StepResults::new(&spec, num_envs),
            actions: vec![Action::Discrete(0); num_envs],
            choices: Vec::with_capacity(num_envs),
            scaling,
            started: false,
            num_steps,
            envs,
            spec,
        }
    }

    /// Steps every environment `num_steps` times under `policy` and `plan`.
    ///
    /// Observe, evaluate, choose, step; the environments write their observations straight into
    /// the buffer. The policy must be without autodiff. `rng` draws the actions.
    pub fn collect<B: OpsBackend>(
        &mut self,
        policy: &ActorCritic<B>,
        plan: &Plan,
        rng: &mut StreamRng,
        device: &B::Device,
    ) -> Result<Rollout, RolloutError> {
        let (steps, envs) = (self.num_steps, self.envs.num_envs());
        let mut rollout = Rollout::new(&self.spec, steps, envs);
        let mut scaling = self.scaling.clone(); // takes in this rollout, used from the next one on
        if self.started {
            self.envs.observe(rollout.observations.rows_mut(0, envs))?;
        } else {
            self.envs.reset(rollout.observations.rows_mut(0, envs))?;
            self.started = true;
        }
        self.scale_block(&mut rollout.observations, 0, &mut scaling);

        let mut finals = Finals::default();
        for t in 0..steps {
            let seen = rollout.observations.pick(t * envs..(t + 1) * envs);
            let observation = Observation::<B>::new(&self.spec, seen, device);
            let evaluation = policy.act(&observation, plan.routing, plan.temperature);
            let logits = to_host(evaluation.logits);
            let first = t * envs * self.spec.num_actions();
            let mask = self.spec.masked.then(|| &rollout.observations.mask[first..][..logits.len()]);
            Choice::rows(&logits, mask, self.spec.num_actions(), Pick::Sample, rng, &mut self.choices)
                .map_err(|source| RolloutError::Choice { step: t, source })?;
            if let Some(gates) = evaluation.gates {
                rollout.gates.extend(to_host(gates.alpha));
            }
            for (env, value) in to_host(evaluation.values).into_iter().enumerate() {
                rollout.values[(t, env)] = value;
                rollout.log_probs[(t, env)] = self.choices[env].log_prob;
                rollout.actions[(t, env)] = self.choices[env].action.index() as i32;
                self.actions[env] = self.choices[env].action;
            }

            let next = rollout.observations.rows_mut((t + 1) * envs, envs);
            self.envs.step(&self.actions, next, &mut self.results)?;
            self.scale_block(&mut rollout.observations, t + 1, &mut scaling);
            for env in 0..envs {
                rollout.rewards[(t, env)] = self.results.rewards[env];
                rollout.ends[(t, env)] = self.results.ends[env];
                if self.results.ends[env] == Some(EpisodeEnd::Truncated) {
                    finals.push((t, env), &self.results.finals, self.scaling.as_ref());
                }
            }
            rollout.episodes.extend_from_slice(&self.results.finished);
        }

        let last = rollout.observations.pick(steps * envs..(steps + 1) * envs);
        let last = Observation::<B>::new(&self.spec, last, device);
        let last = to_host(policy.values(&last));
        rollout.bootstrap(&last, &finals.values(&self.spec, policy, device));
        self.scaling = scaling;
        Ok(rollout)
    }

    /// Takes block `t` into `statistics` and scales it by the statistics of earlier rollouts.
    fn scale_block(
        &self,
        observations: &mut ObservationBatch,
        t: usize,
        statistics: &mut Option<ObservationScaling>,
    ) {
        if let (Some(statistics), Some(scaling)) = (statistics, &self.scaling) {
            let width = self.envs.num_envs() * self.spec.num_features;
            let block = &mut observations.features[t * width..(t + 1) * width];
            if t < self.num_steps {
                statistics.observe(block);
            }
            scaling.apply(block);
        }
    }

    /// The environments.
    pub fn envs(&self) -> &dyn BatchEnv {
        self.envs.as_ref()
    }

    /// Sizes and limits of each environment.
    pub fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    /// The observation statistics, if observations are scaled.
    pub fn scaling(&self) -> Option<&ObservationScaling> {
        self.scaling.as_ref()
    }

    /// Environment states for a checkpoint; `None` before the first rollout.
    pub fn save(&self) -> Result<Option<Vec<u8>>, EnvError> {
        if self.started { self.envs.save().map(Some) } else { Ok(None) }
    }

    /// Goes on from a [`save`](Self::save).
    pub fn load(&mut self, envs: Option<&[u8]>, scaling: Option<ObservationScaling>) -> Result<(), EnvError> {
        if let Some(state) = envs {
            self.envs.load(state)?;
        }
        self.started = envs.is_some();
        self.scaling = scaling;
        Ok(())
    }
}

/// Final observations of truncated episodes, evaluated together.
#[derive(Default)]
struct Finals {
    places: Vec<(usize, usize)>,
    observations: ObservationBatch,
}

impl Finals {
    fn push(
        &mut self,
        place: (usize, usize),
        finals: &ObservationBatch,
        scaling: Option<&ObservationScaling>,
    ) {
        let mut row = finals.pick(place.1..place.1 + 1);
        if let Some(scaling) = scaling {
            scaling.apply(&mut row.features);
        }
        self.observations.append(row);
        self.places.push(place);
    }

    fn values<B: OpsBackend>(
        self,
        spec: &EnvSpec,
        policy: &ActorCritic<B>,
        device: &B::Device,
    ) -> Vec<((usize, usize), f32)> {
        if self.places.is_empty() {
            return Vec::new();
        }
        let observation = Observation::new(spec, self.observations, device);
        self.places.into_iter().zip(to_host(policy.values(&observation))).collect()
    }
}

pub(crate) fn to_host<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().into_vec().expect("converted to f32")
}
