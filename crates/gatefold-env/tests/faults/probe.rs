//! A small environment with everything an environment can have, and one fault to choose.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use gatefold_env::{
    Action, EnvError, EnvSpec, Environment, EpisodeEnd, ObservationView, Purpose, StreamRng, Transition,
    stream,
};
use gatefold_graph::{TypedGraph, parse_knowledge};
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Fault;

const KITCHEN: &str = r#"
    [[condition]]
    id = "hungry"
    [[operator]]
    id = "eat"
    preconditions = ["hungry"]
    effects = ["fed"]
    [[effect]]
    id = "fed"
"#;

/// Forgotten by every save: what faults of repetition draw from.
static CALLS: AtomicU32 = AtomicU32::new(0);

/// Options of the probe.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ProbeConfig {
    /// Steps until the clock cuts.
    pub(crate) limit: u32,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self { limit: 12 }
    }
}

/// Shows the step count and a drawn number, forbids one action at a time, dies now and then.
/// `FAULT` is a [`Fault`] as a number.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Probe<const FAULT: u8> {
    limit: u32,
    steps: u32,
    drawn: f32,
    past: f32,
    /// Doubles rewards: a stranger that pretends to be a copy.
    pub(crate) stranger: bool,
}

impl<const FAULT: u8> Probe<FAULT> {
    fn has(fault: Fault) -> bool {
        FAULT == fault as u8
    }
}

impl<const FAULT: u8> Environment for Probe<FAULT> {
    type Config = ProbeConfig;

    fn new(config: &ProbeConfig) -> Result<Self, EnvError> {
        Ok(Self { limit: config.limit, steps: 0, drawn: 0.0, past: 0.0, stranger: false })
    }

    fn spec(&self) -> EnvSpec {
        let mut graph = parse_knowledge("kitchen", KITCHEN).unwrap();
        if Self::has(Fault::NothingToReadOut) {
            graph = TypedGraph::new("kitchen", &["condition", "operator"], &["operator"]);
            for id in ["hungry", "angry", "tired"] {
                graph.add_node(id, "condition", None).unwrap();
            }
            graph = graph.with_self_loops();
        }
        if Self::has(Fault::LonelyNode) {
            graph = TypedGraph::new("kitchen", &["operator"], &["operator"]);
            for id in ["eat", "sleep", "run"] {
                graph.add_node(id, "operator", None).unwrap();
            }
        }
        if Self::has(Fault::SpecFlickers) {
            for _ in 0..1 + CALLS.fetch_add(1, Relaxed) % 1000 {
                graph.add_edge("eat", "fed", "effect").unwrap();
            }
        }
        let limit = if Self::has(Fault::NoStepAllowed) { 0 } else { self.limit };
        EnvSpec {
            masked: !Self::has(Fault::MaskUndeclared),
            graph: Some(Arc::new(graph)),
            node_features: 2,
            max_episode_steps: Some(limit),
            ..EnvSpec::new(2, 3)
        }
    }

    fn reset(&mut self, rng: &mut StreamRng) {
        self.past = self.drawn;
        self.steps = 0;
        self.drawn = rng.random();
        if Self::has(Fault::DrawsElsewhere) {
            self.drawn = CALLS.fetch_add(1, Relaxed) as f32;
        }
        if Self::has(Fault::OneStreamForAll) {
            *rng = stream(0, Purpose::Environment, 0);
            self.drawn = rng.random();
        }
    }

    fn step(&mut self, action: Action, rng: &mut StreamRng) -> Transition {
        self.steps += 1;
        self.drawn = rng.random();
        let mut reward = self.drawn + action.index() as f32;
        if self.stranger {
            reward *= 2.0;
        }
        let mut score = f64::from(10 * self.steps) + f64::from(self.drawn);
        let end = (self.drawn < 0.1).then_some(EpisodeEnd::Terminated);
        if Self::has(Fault::RewardNotFinite) && self.steps == 5 {
            reward = f32::INFINITY;
        }
        if Self::has(Fault::ScoreNotFinite) {
            score = f64::NAN;
        }
        Transition { reward, score, end }
    }

    fn step_all(
        envs: &mut [Self],
        actions: &[Action],
        rngs: &mut [StreamRng],
        transitions: &mut [Transition],
    ) {
        for (i, env) in envs.iter_mut().enumerate() {
            transitions[i] = env.step(actions[i], &mut rngs[i]);
            if Self::has(Fault::DriftsTogether) && i >= 8 {
                env.past += 1.0;
            }
        }
    }

    fn observe(&self, view: &mut ObservationView<'_>) {
        view.features[0] = self.steps as f32;
        if !Self::has(Fault::FeatureUnwritten) {
            view.features[1] = self.drawn;
        }
        if Self::has(Fault::RemembersThePast) {
            view.features[1] = self.past;
        }
        if Self::has(Fault::FeatureNotFinite) && self.steps == 5 {
            view.features[0] = f32::NAN;
        }
        view.activations[0] = self.drawn;
        view.activations[1] = 1.0;
        if !Self::has(Fault::ActivationUnwritten) {
            view.activations[2] = 0.0;
        }
        if Self::has(Fault::ActivationOutOfRange) && self.steps == 5 {
            view.activations[1] = 1.5;
        }
        for (k, feature) in view.node_features.iter_mut().enumerate() {
            if !(Self::has(Fault::NodeFeatureUnwritten) && k == 3) {
                *feature = self.drawn - k as f32;
            }
        }
        if Self::has(Fault::NodeFeatureNotFinite) && self.steps == 5 {
            view.node_features[0] = f32::INFINITY;
        }
        view.mask[self.steps as usize % 3] = false;
        if Self::has(Fault::EverythingForbidden) && self.steps == 5 {
            view.mask.fill(false);
        }
    }

    fn scripted(&self, _rng: &mut StreamRng) -> Option<Action> {
        let shift = match FAULT {
            f if f == Fault::ScriptForbidden as u8 => 0,
            f if f == Fault::ScriptFlickers as u8 => 1 + CALLS.fetch_add(1, Relaxed) / 3 % 2,
            _ => 1,
        };
        Some(Action::Discrete((self.steps + shift) as usize % 3))
    }
}
