//! Rolling the policy out.

use std::time::{Duration, Instant};

use burn::tensor::{Tensor, backend::Backend};
use gatefold_curriculum::Plan;
use gatefold_env::{
    Action, BatchEnv, EnvError, EnvSpec, EpisodeEnd, ObservationBatch, StepResults, StreamRng,
};
use gatefold_ops::{OpsBackend, probe};
use gatefold_policy::{
    Acting, ActorCritic, Choice, ChoiceError, FlatPolicy, Observation, ObservationScaling, Pick,
    RoutingInput, Values,
};
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
    /// A number was NaN or infinite before anything was learned from it.
    #[error("step {step} of the rollout: {what} of environment {env} is {value}")]
    NonFinite {
        /// Step within the rollout.
        step: usize,
        /// Environment.
        env: usize,
        /// Which number.
        what: &'static str,
        /// Its value.
        value: f32,
    },
}

const OBSERVATION: &str = "an observation";
const REWARD: &str = "the reward";
const VALUE: &str = "the critic's value";

impl RolloutError {
    /// Steps that every environment had taken when it ended, if numbers were the cause and not an
    /// environment.
    pub fn non_finite_at(&self) -> Option<usize> {
        match *self {
            Self::NonFinite { step, what: REWARD, .. } => Some(step + 1),
            Self::Choice { step, source: ChoiceError::NonFinite { .. } } | Self::NonFinite { step, .. } => {
                Some(step)
            }
            _ => None,
        }
    }
}

/// A batch of environments with the rollout buffer that they write into.
pub struct Collector {
    envs: Box<dyn BatchEnv>,
    spec: EnvSpec,
    results: StepResults,
    actions: Vec<Action>,
    choices: Vec<Choice>,
    scaling: Option<ObservationScaling>,
    value_clamp: f32,
    started: bool,
    num_steps: usize,
    in_envs: Duration,
}

impl Collector {
    /// Collects `num_steps` steps at a time; `scaling`, if given, scales observations.
    pub fn new(envs: Box<dyn BatchEnv>, num_steps: usize, scaling: Option<ObservationScaling>) -> Self {
        let value_clamp = 0.0;
        let (spec, num_envs) = (envs.spec().clone(), envs.num_envs());
        Self {
            results: StepResults::new(&spec, num_envs),
            actions: vec![Action::Discrete(0); num_envs],
            choices: Vec::with_capacity(num_envs),
            scaling,
            value_clamp,
            started: false,
            num_steps,
            in_envs: Duration::ZERO,
            envs,
            spec,
        }
    }

    /// Limits the values that advantages and targets are made of to `+-clamp`; 0 is off.
    pub fn with_value_clamp(self, clamp: f32) -> Self {
        Self { value_clamp: clamp, ..self }
    }

    /// Steps every environment `num_steps` times under `policy` and `plan`.
    ///
    /// Observe, evaluate, choose, step; the environments write their observations straight into
    /// the buffer. The policy must be without autodiff. `selection_bias` `[K]` moves top-k selection and
    /// is empty otherwise. `rng` draws what the routing needs, then the actions, step by step.
    pub fn collect<B: OpsBackend>(
        &mut self,
        policy: &ActorCritic<B>,
        plan: &Plan,
        selection_bias: &[f32],
        rng: &mut StreamRng,
        device: &B::Device,
    ) -> Result<Rollout, RolloutError> {
        let (steps, envs) = (self.num_steps, self.envs.num_envs());
        let mut rollout = Rollout::new(&self.spec, steps, envs);
        self.in_envs = Duration::ZERO;
        let mut scaling = self.scaling.clone(); // takes in this rollout, used from the next one on
        if self.started {
            self.envs.observe(rollout.observations.rows_mut(0, envs))?;
        } else {
            self.envs.reset(rollout.observations.rows_mut(0, envs))?;
            self.started = true;
        }
        self.scale_block(&mut rollout.observations, 0, &mut scaling)?;

        let acting = Acting::new(policy);
        let mut finals = Finals::default();
        for t in 0..steps {
            let seen = rollout.observations.pick(t * envs..(t + 1) * envs);
            let observation = Observation::<B>::new(&self.spec, seen, device);
            let input = RoutingInput {
                drawn: acting.draw(plan.routing, envs, rng, device),
                selection_bias: selection_bias.to_vec(),
                ..RoutingInput::new(plan.routing, plan.temperature)
            };
            let acted = acting.act(&observation, input);
            if let Some(values) = acted.values {
                let values = self.bootstrap_values(values, t)?;
                rollout.values.row_mut(t).iter_mut().zip(values).for_each(|(to, value)| *to = value);
            }
            let logits = to_host(acted.logits);
            self.finite("an action logit", t, &logits)?;
            let first = t * envs * self.spec.num_actions();
            let mask = self.spec.masked.then(|| &rollout.observations.mask[first..][..logits.len()]);
            Choice::rows(&logits, mask, self.spec.num_actions(), Pick::Sample, rng, &mut self.choices)
                .map_err(|source| RolloutError::Choice { step: t, source })?;
            if let Some(gates) = acted.gates {
                // Memory for all steps in the first one.
                let (alpha, drawn) = (to_host(gates.alpha), gates.drawn.map(to_host).unwrap_or_default());
                rollout.gates.reserve_exact((steps - t) * alpha.len());
                rollout.drawn.reserve_exact((steps - t) * drawn.len());
                rollout.gates.extend(alpha);
                rollout.drawn.extend(drawn);
            }
            for env in 0..envs {
                rollout.log_probs[(t, env)] = self.choices[env].log_prob;
                rollout.actions[(t, env)] = self.choices[env].action.index() as i32;
                self.actions[env] = self.choices[env].action;
            }

            let next = rollout.observations.rows_mut((t + 1) * envs, envs);
            let begun = Instant::now();
            self.envs.step(&self.actions, next, &mut self.results)?;
            self.in_envs += begun.elapsed();
            probe::slice("env/rewards", &mut self.results.rewards, 1);
            self.finite(REWARD, t, &self.results.rewards)?;
            self.scale_block(&mut rollout.observations, t + 1, &mut scaling)?;
            for env in 0..envs {
                rollout.rewards[(t, env)] = self.results.rewards[env];
                rollout.ends[(t, env)] = self.results.ends[env];
                if self.results.ends[env] == Some(EpisodeEnd::Truncated) {
                    let row = finals.push((t, env), &self.results.finals, self.scaling.as_ref());
                    row.map_err(|value| RolloutError::NonFinite {
                        step: t + 1,
                        env,
                        what: OBSERVATION,
                        value,
                    })?;
                }
            }
            rollout.episodes.extend_from_slice(&self.results.finished);
        }

        if let Acting::Flat(policy) = &acting {
            self.add_values(policy, &mut rollout, device)?;
        }
        let last = rollout.observations.pick(steps * envs..(steps + 1) * envs);
        let last = Observation::<B>::new(&self.spec, last, device);
        let mut last = to_host(acting.values(&last));
        let mut finals = finals.values(&self.spec, &acting, device);
        self.finite(VALUE, steps, &last)?;
        if let Some(&((_, env), value)) = finals.iter().find(|(_, value)| !value.is_finite()) {
            return Err(RolloutError::NonFinite { step: steps, env, what: VALUE, value });
        }
        let values = last.iter_mut().chain(finals.iter_mut().map(|(_, value)| value));
        values.for_each(|value| *value = clamped(*value, self.value_clamp));
        rollout.bootstrap(&last, &finals);
        #[cfg(feature = "chaos")]
        scaling.iter_mut().for_each(ObservationScaling::probe);
        self.scaling = scaling;
        Ok(rollout)
    }

    /// Values of all steps, from critics that nothing was asked of before: some steps at once, as many as
    /// stay in cache.
    fn add_values<B: OpsBackend>(
        &self,
        policy: &FlatPolicy<B>,
        rollout: &mut Rollout,
        device: &B::Device,
    ) -> Result<(), RolloutError> {
        const ROWS: usize = 2048;
        let (steps, envs) = (self.num_steps, self.envs.num_envs());
        for first in (0..steps).step_by((ROWS / envs).max(1)) {
            let end = steps.min(first + (ROWS / envs).max(1));
            let seen = rollout.observations.pick(first * envs..end * envs);
            let values = policy.values(&Observation::new(&self.spec, seen, device));
            // They are looked at when all environments have taken all steps.
            let values = self.bootstrap_values(values, steps)?;
            let all = rollout.values.as_slice_mut().expect("standard layout");
            all[first * envs..end * envs].copy_from_slice(&values);
        }
        Ok(())
    }

    /// The values that bootstrap, of one step or more, within their limit.
    fn bootstrap_values<B: OpsBackend>(
        &self,
        values: Values<B>,
        step: usize,
    ) -> Result<Vec<f32>, RolloutError> {
        let finite = |each: &[f32]| match each.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(at) => {
                let env = at % self.envs.num_envs();
                Err(RolloutError::NonFinite { step, env, what: VALUE, value: each[at] })
            }
        };
        if let Some(second) = &values.second {
            // Each critic's own: the smaller of two would hide an infinity.
            finite(&to_host(values.first.clone()))?;
            finite(&to_host(second.clone()))?;
        }
        let mut values = to_host(values.bootstrap());
        finite(&values)?;
        values.iter_mut().for_each(|value| *value = clamped(*value, self.value_clamp));
        Ok(values)
    }

    /// Fails on the first value that is not finite; `values` holds as many for each environment.
    fn finite(&self, what: &'static str, step: usize, values: &[f32]) -> Result<(), RolloutError> {
        match values.iter().position(|x| !x.is_finite()) {
            None => Ok(()),
            Some(at) => {
                let env = at / (values.len() / self.envs.num_envs());
                Err(RolloutError::NonFinite { step, env, what, value: values[at] })
            }
        }
    }

    /// Takes block `t` into `statistics` and scales it by the statistics of earlier rollouts. Fails before
    /// that on a number that is not finite: scaling would clip an infinity.
    fn scale_block(
        &self,
        observations: &mut ObservationBatch,
        t: usize,
        statistics: &mut Option<ObservationScaling>,
    ) -> Result<(), RolloutError> {
        let rows = self.envs.num_envs();
        let whole = observations.rows_mut(t * rows, rows);
        probe::slice("env/observations", whole.features, self.spec.num_features);
        probe::slice("env/activations", whole.activations, self.spec.num_nodes().max(1));
        probe::slice("env/node_features", whole.node_features, self.spec.node_features.max(1));
        self.finite(OBSERVATION, t, whole.features)?;
        self.finite("a node's activation", t, whole.activations)?;
        self.finite("a node's feature", t, whole.node_features)?;
        if let (Some(statistics), Some(scaling)) = (statistics, &self.scaling) {
            let width = self.envs.num_envs() * self.spec.num_features;
            let block = &mut observations.features[t * width..(t + 1) * width];
            if t < self.num_steps {
                statistics.observe(block);
            }
            scaling.apply(block);
        }
        Ok(())
    }

    /// Time that the last rollout spent in the environments' steps.
    pub fn time_in_envs(&self) -> Duration {
        self.in_envs
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

    /// Scales by other statistics from now on.
    pub fn set_scaling(&mut self, scaling: Option<ObservationScaling>) {
        self.scaling = scaling;
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
    /// Fails with the first feature that is not finite, before it is scaled.
    fn push(
        &mut self,
        place: (usize, usize),
        finals: &ObservationBatch,
        scaling: Option<&ObservationScaling>,
    ) -> Result<(), f32> {
        let mut row = finals.pick(place.1..place.1 + 1);
        let features = row.features.len();
        probe::slice("env/final_observations", &mut row.features, features);
        if let Some(&value) = row.features.iter().find(|x| !x.is_finite()) {
            return Err(value);
        }
        if let Some(scaling) = scaling {
            scaling.apply(&mut row.features);
        }
        self.observations.append(row);
        self.places.push(place);
        Ok(())
    }

    fn values<B: OpsBackend>(
        self,
        spec: &EnvSpec,
        policy: &Acting<'_, B>,
        device: &B::Device,
    ) -> Vec<((usize, usize), f32)> {
        if self.places.is_empty() {
            return Vec::new();
        }
        let observation = Observation::new(spec, self.observations, device);
        self.places.into_iter().zip(to_host(policy.values(&observation))).collect()
    }
}

/// The value within `+-limit`, if there is a limit. A NaN stays one.
fn clamped(value: f32, limit: f32) -> f32 {
    if limit > 0.0 { value.clamp(-limit, limit) } else { value }
}

pub(crate) fn to_host<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().into_vec().expect("converted to f32")
}
