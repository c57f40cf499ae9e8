//! Camp: a graph, a mask, both ends of an episode, and nothing more.

use std::sync::{Arc, LazyLock};

use gatefold_env::{
    Action, EnvEntry, EnvError, EnvSpec, Environment, EpisodeEnd, NoOptions, ObservationView, StreamRng,
    Transition,
};
use gatefold_graph::{TypedGraph, parse_knowledge};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// How a table would name it.
pub const ENTRY: EnvEntry = EnvEntry::new::<Camp>("camp", "A masked environment with a graph, for tests");

/// Steps after which the clock cuts an episode.
pub const LENGTH: u32 = 9;

/// Actions: eat, sleep, fight, wander, and one that no state allows.
pub const NUM_ACTIONS: usize = 5;

/// The action that no state allows.
pub const FORBIDDEN: usize = 4;

static GRAPH: LazyLock<Arc<TypedGraph>> = LazyLock::new(|| {
    let text = r#"
        name = "camp"
        [[condition]]
        id = "hungry"
        [[condition]]
        id = "tired"
        [[condition]]
        id = "threatened"
        [[condition]]
        id = "calm"
        [[operator]]
        id = "eat"
        expert = "survival"
        preconditions = ["hungry"]
        effects = ["fed"]
        [[operator]]
        id = "sleep"
        expert = "survival"
        preconditions = ["tired", "calm"]
        [[operator]]
        id = "fight"
        expert = "combat"
        preconditions = ["threatened"]
        [[operator]]
        id = "wander"
        expert = "general"
        preconditions = ["calm"]
        [[effect]]
        id = "fed"
    "#;
    Arc::new(parse_knowledge("camp.toml", text).expect("the camp's own graph validates"))
});

/// A night in the wild. State and mask are drawn anew every step.
///
/// - Observation: how hungry one is in [0, 1], and a number that means nothing. Graph: 4 conditions,
///   4 operators, 1 effect, active where they hold, each with 2 features: the meaningless number
///   times the activation, and how hungry one is.
/// - Actions: 5, masked; action 4 is never allowed. Reward: 1 for fighting when threatened and for
///   eating when hungry and calm, else 0. Score: the return so far.
/// - Ends: a fight ends the episode once in four (terminated), the clock after 9 steps (truncated).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Camp {
    hunger: f32,
    noise: f32,
    tired: bool,
    threatened: bool,
    score: f64,
}

impl Camp {
    fn hungry(&self) -> bool {
        self.hunger > 0.5
    }

    fn draw(&mut self, rng: &mut StreamRng) {
        (self.hunger, self.noise, self.tired) = (rng.random(), rng.random(), rng.random());
        self.threatened = rng.random_range(0..3) == 0;
    }
}

impl Environment for Camp {
    type Config = NoOptions;

    fn new(_: &NoOptions) -> Result<Self, EnvError> {
        Ok(Self { hunger: 0.0, noise: 0.0, tired: false, threatened: false, score: 0.0 })
    }

    fn spec(&self) -> EnvSpec {
        EnvSpec {
            masked: true,
            graph: Some(GRAPH.clone()),
            node_features: 2,
            max_episode_steps: Some(LENGTH),
            ..EnvSpec::new(2, NUM_ACTIONS)
        }
    }

    fn reset(&mut self, rng: &mut StreamRng) {
        self.score = 0.0;
        self.draw(rng);
    }

    fn step(&mut self, action: Action, rng: &mut StreamRng) -> Transition {
        let right = if self.threatened { action.index() == 2 } else { self.hungry() && action.index() == 0 };
        let reward = f32::from(u8::from(right));
        self.score += f64::from(reward);
        let over = action.index() == 2 && rng.random_range(0..4) == 0;
        self.draw(rng);
        Transition { reward, score: self.score, end: over.then_some(EpisodeEnd::Terminated) }
    }

    fn observe(&self, view: &mut ObservationView<'_>) {
        view.features.copy_from_slice(&[self.hunger, self.noise]);
        let (hungry, calm) = (self.hungry(), !self.threatened);
        let operators = [hungry, self.tired && calm, self.threatened, calm];
        let graded = [self.hunger, truth(self.tired), truth(self.threatened), truth(calm)];
        view.activations[..4].copy_from_slice(&graded);
        view.activations[4..8].copy_from_slice(&operators.map(truth));
        view.activations[8] = 1.0 - self.hunger;
        for (features, &active) in view.node_features.chunks_exact_mut(2).zip(&*view.activations) {
            features.copy_from_slice(&[self.noise * active, self.hunger]);
        }
        view.mask.copy_from_slice(&[hungry, operators[1], self.threatened, true, false]);
    }
}

fn truth(value: bool) -> f32 {
    f32::from(u8::from(value))
}

#[cfg(test)]
mod tests {
    use gatefold_env::conformance::{Settings, check};

    #[test]
    fn it_keeps_the_contract() {
        check(&super::ENTRY, &Settings::default()).unwrap();
    }
}
