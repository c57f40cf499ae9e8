//! Rolling the policy out.

mod error;
mod finals;
mod group;

use std::ops::Range;
use std::time::Duration;

use burn::tensor::{Tensor, backend::Backend};
use gatefold_curriculum::Plan;
use gatefold_env::{BatchEnv, BatchPart, EnvError, EnvSpec, StreamRng};
use gatefold_ops::{OpsBackend, map_tasks, probe};
use gatefold_policy::{Acting, ActorCritic, FlatPolicy, Observation, ObservationScaling};

pub use self::error::RolloutError;
use self::{
    error::{VALUE, finite},
    finals::Finals,
    group::{Collected, Draws, Group, Setting, bootstrap_values, clamped},
};
use crate::Rollout;

/// Environments of a group at least: fewer rows cost an evaluation hardly less.
const FEW: usize = 4;

/// A batch of environments with the rollout buffer that they write into.
pub struct Collector {
    envs: Box<dyn BatchEnv>,
    spec: EnvSpec,
    scaling: Option<ObservationScaling>,
    value_clamp: f32,
    started: bool,
    num_steps: usize,
    in_envs: Duration,
}

impl Collector {
    /// Collects `num_steps` steps at a time; `scaling`, if given, scales observations.
    pub fn new(envs: Box<dyn BatchEnv>, num_steps: usize, scaling: Option<ObservationScaling>) -> Self {
        let spec = envs.spec().clone();
        Self { scaling, value_clamp: 0.0, started: false, num_steps, in_envs: Duration::ZERO, envs, spec }
    }

    /// Limits the values that advantages and targets are made of to `+-clamp`; 0 is off.
    pub fn with_value_clamp(self, clamp: f32) -> Self {
        Self { value_clamp: clamp, ..self }
    }

    /// Steps every environment `num_steps` times under `policy` and `plan`.
    ///
    /// Where there are several threads, each takes a group of neighbouring environments through all steps. A
    /// rollout that fails is repeated as one group from where it began, so that the state it leaves does not
    /// depend on threads.
    ///
    /// The policy must be without autodiff. `selection_bias` `[K]` moves top-k selection and is empty otherwise.
    /// `rng` draws what the routing needs, then the actions, step by step.
    pub fn collect<B: OpsBackend>(
        &mut self,
        policy: &ActorCritic<B>,
        plan: &Plan,
        selection_bias: &[f32],
        rng: &mut StreamRng,
        device: &B::Device,
    ) -> Result<Rollout, RolloutError> {
        let acting = &Acting::new(policy);
        let draws = &Draws::new(acting, plan.routing, [self.num_steps, self.envs.num_envs()], rng, device);
        let (started, groups) = (self.started, self.num_groups::<B>());
        if groups > 1
            && let Some(before) = self.envs.duplicate()
        {
            let collected = self.collect_in(groups, acting, plan, selection_bias, draws, device);
            if collected.is_ok() {
                return collected;
            }
            (self.envs, self.started) = (before, started);
        }
        self.collect_in(1, acting, plan, selection_bias, draws, device)
    }

    /// How many groups are worth it. A probe is passed step by step, all environments together.
    fn num_groups<B: OpsBackend>(&self) -> usize {
        if !B::ON_HOST || probe::is_installed() {
            return 1;
        }
        (self.envs.num_envs() / FEW).clamp(1, rayon::current_num_threads())
    }

    fn collect_in<B: OpsBackend>(
        &mut self,
        groups: usize,
        acting: &Acting<'_, B>,
        plan: &Plan,
        selection_bias: &[f32],
        draws: &Draws<B>,
        device: &B::Device,
    ) -> Result<Rollout, RolloutError> {
        let (steps, envs) = (self.num_steps, self.envs.num_envs());
        let mut rollout = Rollout::new(&self.spec, steps, envs);
        let first = rollout.observations.rows_mut(0, envs);
        if self.started {
            self.envs.observe(first)?;
        } else {
            self.envs.reset(first)?;
            self.started = true;
        }
        let setting = Setting {
            num_steps: steps,
            spec: &self.spec,
            acting,
            plan,
            selection_bias,
            scaling: self.scaling.as_ref(),
            value_clamp: self.value_clamp,
            draws,
            device,
        };
        let groups = grouped(self.envs.as_mut(), groups, &mut rollout);
        let collected = map_tasks(groups, usize::MAX, |group| group.collect(&setting));
        let collected: Vec<_> = collected.into_iter().collect::<Result<_, _>>()?;
        self.in_envs = collected.iter().map(|of| of.in_envs).sum::<Duration>() / collected.len() as u32;

        // Used from the next rollout on.
        let mut scaling = self.scaling.clone();
        if let Some(statistics) = &mut scaling {
            in_time_order(&collected, steps, |of| &of.raw).for_each(|rows| statistics.observe(rows));
        }
        let finals = put_together(collected, &mut rollout);
        if let Acting::Flat(policy) = acting {
            self.add_values(policy, &mut rollout, device)?;
        }
        let last = rollout.observations.pick(steps * envs..(steps + 1) * envs);
        let last = Observation::<B>::new(&self.spec, last, device);
        let mut last = to_host(acting.values(&last));
        let mut finals = finals.values(&self.spec, acting, device);
        finite(VALUE, steps, &last, |env| env)?;
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
            let values = bootstrap_values(values, steps, self.value_clamp, &(0..envs))?;
            let all = rollout.values.as_slice_mut().expect("standard layout");
            all[first * envs..end * envs].copy_from_slice(&values);
        }
        Ok(())
    }

    /// Time that the last rollout spent in the environments' steps; of several groups, the mean.
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

/// The environments in so many groups, as equal as can be, with their places in `rollout`; one group if they step as
/// a whole alone.
fn grouped<'a>(envs: &'a mut dyn BatchEnv, groups: usize, rollout: &'a mut Rollout) -> Vec<Group<'a>> {
    let count = envs.num_envs();
    let bounds = |group: usize| group * count / groups;
    let ranges: Vec<_> = (0..groups).map(|group| bounds(group)..bounds(group + 1)).collect();
    let sizes: Vec<_> = ranges.iter().map(Range::len).collect();
    let parts = match groups {
        1 => vec![Box::new(envs) as Box<dyn BatchPart>],
        _ => envs.parts(&sizes).expect("a batch that can be copied can be cut"),
    };
    let groups = ranges.into_iter().zip(parts).zip(rollout.shares(&sizes));
    groups.map(|((envs, part), share)| Group { envs, part, share }).collect()
}

/// What each group has of each step.
fn in_time_order<'a>(
    collected: &'a [Collected],
    steps: usize,
    all: impl Fn(&'a Collected) -> &'a [f32] + Copy,
) -> impl Iterator<Item = &'a [f32]> {
    (0..steps).flat_map(move |step| {
        collected.iter().map(move |of| {
            let width = all(of).len() / steps;
            &all(of)[step * width..(step + 1) * width]
        })
    })
}

/// Adds what the groups say to the rollout; final observations are to be evaluated yet.
fn put_together(mut collected: Vec<Collected>, rollout: &mut Rollout) -> Finals {
    let steps = rollout.num_steps();
    let mut episodes: Vec<_> = collected.iter().map(|of| of.episodes.iter().peekable()).collect();
    for step in 0..steps {
        for episodes in &mut episodes {
            while let Some((_, episode)) = episodes.next_if(|(at, _)| *at == step) {
                rollout.episodes.push(*episode);
            }
        }
    }
    if let [whole] = &mut collected[..] {
        (rollout.gates, rollout.drawn) = (std::mem::take(&mut whole.gates), std::mem::take(&mut whole.drawn));
    } else {
        let joined = |all: fn(&Collected) -> &[f32]| {
            let mut joined = Vec::with_capacity(collected.iter().map(|of| all(of).len()).sum());
            in_time_order(&collected, steps, all).for_each(|of_step| joined.extend_from_slice(of_step));
            joined
        };
        (rollout.gates, rollout.drawn) = (joined(|of| &of.gates), joined(|of| &of.drawn));
    }
    let mut finals = Finals::default();
    collected.into_iter().for_each(|of| finals.append(of.finals));
    finals
}

pub(crate) fn to_host<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().into_vec().expect("converted to f32")
}
