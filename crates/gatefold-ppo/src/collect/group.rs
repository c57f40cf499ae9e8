//! Neighbouring environments that a rollout steps apart from all others.

use std::ops::Range;
use std::time::{Duration, Instant};

use burn::tensor::Tensor;
use gatefold_curriculum::{Plan, Routing};
use gatefold_env::{
    Action, BatchPart, EnvSpec, Episode, EpisodeEnd, ObservationBatchMut, StepResults, StreamRng,
};
use gatefold_ops::{OpsBackend, probe};
use gatefold_policy::{Acting, Choice, Observation, ObservationScaling, Pick, RoutingInput, Values};
use rand::RngExt;

use super::{
    error::{OBSERVATION, REWARD, RolloutError, VALUE, finite},
    finals::Finals,
    to_host,
};
use crate::rollout::{Places, Share};

/// What all groups of a rollout share.
pub(super) struct Setting<'a, B: OpsBackend> {
    pub(super) num_steps: usize,
    pub(super) spec: &'a EnvSpec,
    pub(super) acting: &'a Acting<'a, B>,
    pub(super) plan: &'a Plan,
    pub(super) selection_bias: &'a [f32],
    pub(super) scaling: Option<&'a ObservationScaling>,
    pub(super) value_clamp: f32,
    pub(super) draws: &'a Draws<B>,
    pub(super) device: &'a B::Device,
}

/// What a rollout draws, for all steps and environments: drawn ahead, so that it does not depend on which
/// environments are stepped together.
pub(super) struct Draws<B: OpsBackend> {
    num_envs: usize,
    /// What the routing needs of each step; empty if it needs nothing.
    routing: Vec<Tensor<B, 2>>,
    /// For the action of each step and environment.
    uniform: Vec<f32>,
}

impl<B: OpsBackend> Draws<B> {
    /// Step by step: what the routing needs, then the actions.
    pub(super) fn new(
        acting: &Acting<'_, B>,
        routing: Routing,
        [steps, num_envs]: [usize; 2],
        rng: &mut StreamRng,
        device: &B::Device,
    ) -> Self {
        let mut draws = Self { num_envs, routing: Vec::new(), uniform: Vec::with_capacity(steps * num_envs) };
        for _ in 0..steps {
            draws.routing.extend(acting.draw(routing, num_envs, rng, device));
            draws.uniform.extend((0..num_envs).map(|_| rng.random::<f32>()));
        }
        draws
    }

    fn routing(&self, step: usize, envs: Range<usize>) -> Option<Tensor<B, 2>> {
        let of_step = self.routing.get(step)?.clone();
        Some(if envs.len() == self.num_envs { of_step } else { of_step.narrow(0, envs.start, envs.len()) })
    }

    fn uniform(&self, step: usize, envs: Range<usize>) -> &[f32] {
        &self.uniform[step * self.num_envs..][envs]
    }
}

/// Some neighbouring environments and their places in the rollout.
pub(super) struct Group<'a> {
    pub(super) envs: Range<usize>,
    pub(super) part: Box<dyn BatchPart + 'a>,
    pub(super) share: Share<'a>,
}

/// What a group says beside what it wrote.
#[derive(Default)]
pub(super) struct Collected {
    /// Gates of its environments, step by step, and what the routing drew or selected.
    pub(super) gates: Vec<f32>,
    pub(super) drawn: Vec<f32>,
    /// Episodes that ended, each with its step.
    pub(super) episodes: Vec<(usize, Episode)>,
    pub(super) finals: Finals,
    /// Observation vectors before they were scaled, step by step; empty if they are not scaled.
    pub(super) raw: Vec<f32>,
    /// Time in the environments' steps.
    pub(super) in_envs: Duration,
}

impl Group<'_> {
    /// Steps the environments through the whole rollout, from their first observations on.
    ///
    /// Observe, evaluate, choose, step; the environments write their observations straight into the buffer.
    pub(super) fn collect<B: OpsBackend>(
        mut self,
        setting: &Setting<'_, B>,
    ) -> Result<Collected, RolloutError> {
        let &Setting { spec, acting, plan, draws, device, .. } = setting;
        let (envs, steps) = (self.envs.clone(), setting.num_steps);
        let first = envs.start;
        let mut results = StepResults::new(spec, envs.len());
        let mut actions = vec![Action::Discrete(0); envs.len()];
        let mut choices = Vec::with_capacity(envs.len());
        let mut seen = Collected { episodes: Vec::with_capacity(envs.len()), ..Collected::default() };
        let observations = &mut self.share.observations;
        if setting.scaling.is_some() {
            seen.raw.reserve_exact(steps * observations[0].features.len());
        }
        setting.scale(&mut observations[0], 0, &envs, &mut seen.raw)?;
        for (t, places) in self.share.steps.into_iter().enumerate() {
            let Places { actions: to_actions, log_probs, values: to_values, rewards, ends } = places;
            let input = RoutingInput {
                drawn: draws.routing(t, envs.clone()),
                selection_bias: setting.selection_bias.to_vec(),
                ..RoutingInput::new(plan.routing, plan.temperature)
            };
            let acted = acting.act(&Observation::new(spec, observations[t].copied(), device), input);
            if let Some(values) = acted.values {
                to_values.copy_from_slice(&bootstrap_values(values, t, setting.value_clamp, &envs)?);
            }
            let logits = to_host(acted.logits);
            finite("an action logit", t, &logits, |at| first + at / spec.num_actions())?;
            let mask = spec.masked.then_some(&*observations[t].mask);
            let mut uniform = draws.uniform(t, envs.clone()).iter();
            let uniform = || *uniform.next().expect("a number for each environment");
            Choice::rows(&logits, mask, spec.num_actions(), Pick::Sample, uniform, &mut choices)
                .map_err(|source| RolloutError::Choice { step: t, source: source.of_rows_from(first) })?;
            if let Some(gates) = acted.gates {
                // Memory for all steps in the first one.
                let (alpha, drawn) = (to_host(gates.alpha), gates.drawn.map(to_host).unwrap_or_default());
                seen.gates.reserve_exact((steps - t) * alpha.len());
                seen.drawn.reserve_exact((steps - t) * drawn.len());
                seen.gates.extend(alpha);
                seen.drawn.extend(drawn);
            }
            for (i, choice) in choices.iter().enumerate() {
                log_probs[i] = choice.log_prob;
                to_actions[i] = choice.action.index() as i32;
                actions[i] = choice.action;
            }

            let begun = Instant::now();
            self.part.step(&actions, observations[t + 1].reborrow(), &mut results)?;
            seen.in_envs += begun.elapsed();
            probe::slice("env/rewards", &mut results.rewards, 1);
            finite(REWARD, t, &results.rewards, |at| first + at)?;
            setting.scale(&mut observations[t + 1], t + 1, &envs, &mut seen.raw)?;
            rewards.copy_from_slice(&results.rewards);
            ends.copy_from_slice(&results.ends);
            for (i, end) in results.ends.iter().enumerate() {
                if *end == Some(EpisodeEnd::Truncated) {
                    seen.finals.push((t, first + i), &results.finals, i, setting.scaling)?;
                }
            }
            seen.episodes.extend(results.finished.iter().map(|&episode| (t, episode)));
        }
        Ok(seen)
    }
}

impl<B: OpsBackend> Setting<'_, B> {
    /// Scales rows of block `step` by the statistics of earlier rollouts; adds them to `raw` before that if they are
    /// to be taken in. Fails first on a number that is not finite: scaling would clip an infinity.
    fn scale(
        &self,
        rows: &mut ObservationBatchMut<'_>,
        step: usize,
        envs: &Range<usize>,
        raw: &mut Vec<f32>,
    ) -> Result<(), RolloutError> {
        probe::slice("env/observations", rows.features, self.spec.num_features);
        probe::slice("env/activations", rows.activations, self.spec.num_nodes().max(1));
        probe::slice("env/node_features", rows.node_features, self.spec.node_features.max(1));
        for (what, values) in [
            (OBSERVATION, &*rows.features),
            ("a node's activation", &*rows.activations),
            ("a node's feature", &*rows.node_features),
        ] {
            finite(what, step, values, |at| envs.start + at / (values.len() / envs.len()))?;
        }
        if let Some(scaling) = self.scaling {
            // The last block is the next rollout's first.
            if step < self.num_steps {
                raw.extend_from_slice(rows.features);
            }
            scaling.apply(rows.features);
        }
        Ok(())
    }
}

/// The values that bootstrap, of one step of some environments or of more, within `+-clamp`.
pub(super) fn bootstrap_values<B: OpsBackend>(
    values: Values<B>,
    step: usize,
    clamp: f32,
    envs: &Range<usize>,
) -> Result<Vec<f32>, RolloutError> {
    let finite = |each: &[f32]| finite(VALUE, step, each, |at| envs.start + at % envs.len());
    if let Some(second) = &values.second {
        // Each critic's own: the smaller of two would hide an infinity.
        finite(&to_host(values.first.clone()))?;
        finite(&to_host(second.clone()))?;
    }
    let mut values = to_host(values.bootstrap());
    finite(&values)?;
    values.iter_mut().for_each(|value| *value = clamped(*value, clamp));
    Ok(values)
}

/// The value within `+-limit`, if there is a limit. A NaN stays one.
pub(super) fn clamped(value: f32, limit: f32) -> f32 {
    if limit > 0.0 { value.clamp(-limit, limit) } else { value }
}
