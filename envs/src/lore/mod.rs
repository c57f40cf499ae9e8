//! Lore: a knowledge graph of any size says which expert is right. For measuring what graphs cost, and
//! a task that is learned by reading one.

use std::sync::Arc;

use gatefold_env::{
    Action, EnvEntry, EnvError, EnvSpec, Environment, EpisodeEnd, ObservationView, StreamRng, Transition,
};
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::identity::at_least;

mod knowledge;

use knowledge::Knowledge;

/// The row of the table.
pub const ENTRY: EnvEntry = EnvEntry::new::<Lore>(
    "lore",
    "A knowledge graph of any size names the right expert; best return = length",
);

/// The experts that the operators speak for, in index order.
pub const EXPERTS: [&str; 4] = ["survival", "combat", "exploration", "general"];

/// Number of symbols, and of actions.
pub const NUM_ACTIONS: usize = 4;

/// Quarters that a situation which holds may hold to.
const DEGREES: [u8; 3] = [4, 2, 1];

/// Options of [`Lore`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LoreConfig {
    /// Size of the graph, a number of nodes: one in 32 is an operator, one in 8 a strategy, the others are
    /// situations.
    #[schemars(range(min = 32, max = 100_000))]
    pub nodes: usize,
    /// Density of the graph, a number of edges between different nodes. Each also has a reverse and every node
    /// a loop, so that attention has 2 x edges + nodes of them.
    #[schemars(range(min = 32, max = 10_000_000))]
    pub edges: usize,
    /// Seed of the edges, dimensionless.
    pub graph_seed: u64,
    /// How many situations hold at a time, a number of nodes.
    #[schemars(range(min = 1, max = 16))]
    pub active: usize,
    /// Length of an episode, in steps.
    #[schemars(range(min = 1))]
    pub length: u32,
}

impl Default for LoreConfig {
    fn default() -> Self {
        Self { nodes: 527, edges: 2333, graph_seed: 0, active: 4, length: 16 }
    }
}

/// A situation that holds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Held {
    node: u32,
    quarters: u8,
}

/// A knowledge graph of three levels that says which expert is right.
///
/// Situations call for strategies, strategies use operators, and every operator speaks for one of
/// [`EXPERTS`]; some edges connect nodes of one level. A symbol `s` of 4 is shown, and expert `k` answers
/// with action `(s + k) mod 4`. Right is the expert with the most support: the ways from the situations
/// that hold, over a strategy, to an operator of the expert, each counted by how far the situation holds.
/// Of several such experts each is right.
///
/// - Observation: one-hot of the symbol (4 features), then the fraction of decisions left.
/// - Graph: drawn from `graph_seed`; activation 1, 1/2 or 1/4 of the situations that hold, 0 of all other
///   nodes. Symbol and situations are drawn anew every step; half of the situations from one expert's.
/// - Actions: 4, all allowed. Reward: 1 for the right one, else 0. Score: the return so far.
/// - Ends: terminated after `length` decisions; there is no clock.
/// - Best return: `length`. Without the graph, or at random, about `length / 4`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Saved", into = "Saved")]
pub struct Lore {
    config: LoreConfig,
    knowledge: Arc<Knowledge>,
    state: State,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    symbol: usize,
    held: Vec<Held>,
    left: u32,
    score: f64,
}

/// A copy without its graph, which the options describe.
#[derive(Serialize, Deserialize)]
struct Saved {
    config: LoreConfig,
    state: State,
}

impl From<Lore> for Saved {
    fn from(lore: Lore) -> Self {
        Self { config: lore.config, state: lore.state }
    }
}

impl TryFrom<Saved> for Lore {
    type Error = EnvError;

    fn try_from(Saved { config, state }: Saved) -> Result<Self, EnvError> {
        Ok(Self { knowledge: Knowledge::of(&config)?, config, state })
    }
}

impl Lore {
    /// How much the situations that hold support each expert, in quarters of ways.
    fn support(&self) -> [u32; EXPERTS.len()] {
        let mut sum = [0; EXPERTS.len()];
        for held in &self.state.held {
            let ways = self.knowledge.support[held.node as usize];
            for (sum, ways) in sum.iter_mut().zip(ways) {
                *sum += u32::from(held.quarters) * ways;
            }
        }
        sum
    }

    /// Whether each expert is right now.
    fn right(&self) -> [bool; EXPERTS.len()] {
        let support = self.support();
        let most = support.iter().max().expect("there are experts");
        support.map(|support| support == *most)
    }

    fn draw(&mut self, rng: &mut StreamRng) {
        let situations = self.knowledge.support.len() as u32;
        let state = &mut self.state;
        state.symbol = rng.random_range(0..NUM_ACTIONS);
        let of = rng.random_range(0..EXPERTS.len() as u32);
        state.held.clear();
        while state.held.len() < self.config.active {
            let own: bool = rng.random();
            let node = rng.random_range(0..situations);
            let repeated = state.held.iter().any(|held| held.node == node);
            if !repeated && (!own || node % EXPERTS.len() as u32 == of) {
                state.held.push(Held { node, quarters: DEGREES[rng.random_range(0..DEGREES.len())] });
            }
        }
    }
}

impl Environment for Lore {
    type Config = LoreConfig;

    fn new(config: &LoreConfig) -> Result<Self, EnvError> {
        at_least("nodes", config.nodes as u64, 32)?;
        at_least("active", config.active as u64, 1)?;
        at_least("length", config.length.into(), 1)?;
        if config.active > 16 {
            return Err(EnvError::Option {
                key: "active".to_string(),
                value: config.active.to_string(),
                expected: "need at most 16".to_string(),
            });
        }
        let held = Vec::with_capacity(config.active);
        let state = State { symbol: 0, held, left: config.length, score: 0.0 };
        Ok(Self { config: config.clone(), knowledge: Knowledge::of(config)?, state })
    }

    fn spec(&self) -> EnvSpec {
        EnvSpec { graph: Some(self.knowledge.graph.clone()), ..EnvSpec::new(NUM_ACTIONS + 1, NUM_ACTIONS) }
    }

    fn reset(&mut self, rng: &mut StreamRng) {
        self.state.left = self.config.length;
        self.state.score = 0.0;
        self.draw(rng);
    }

    fn step(&mut self, action: Action, rng: &mut StreamRng) -> Transition {
        let expert = (action.index() + NUM_ACTIONS - self.state.symbol) % NUM_ACTIONS;
        let reward = f32::from(u8::from(self.right()[expert]));
        self.state.score += f64::from(reward);
        self.state.left -= 1;
        self.draw(rng);
        let end = (self.state.left == 0).then_some(EpisodeEnd::Terminated);
        Transition { reward, score: self.state.score, end }
    }

    fn observe(&self, view: &mut ObservationView<'_>) {
        view.features.fill(0.0);
        view.features[self.state.symbol] = 1.0;
        view.features[NUM_ACTIONS] = self.state.left as f32 / self.config.length as f32;
        view.activations.fill(0.0);
        for held in &self.state.held {
            view.activations[held.node as usize] = f32::from(held.quarters) / 4.0;
        }
    }

    fn scripted(&self, _rng: &mut StreamRng) -> Option<Action> {
        let expert = self.right().iter().position(|&right| right).expect("some expert is right");
        Some(Action::Discrete((self.state.symbol + expert) % NUM_ACTIONS))
    }
}

#[cfg(test)]
mod tests {
    use super::knowledge::Levels;
    use super::*;
    use crate::mean_return::mean_return;
    use gatefold_env::Params;
    use gatefold_env::conformance::{Settings, check};

    #[test]
    fn it_keeps_the_contract() {
        check(&ENTRY, &Settings::default()).unwrap();
    }

    #[test]
    fn support_earns_everything_and_the_observation_alone_about_a_quarter() {
        let knowledge = Knowledge::of(&LoreConfig::default()).unwrap();
        let symbol = |features: &[f32]| features.iter().position(|&x| x == 1.0).expect("a symbol is shown");
        let by_support = |features: &[f32], activations: &[f32]| {
            let mut sum = [0.0; EXPERTS.len()];
            for (ways, activation) in knowledge.support.iter().zip(activations) {
                for (sum, &ways) in sum.iter_mut().zip(ways) {
                    *sum += activation * ways as f32;
                }
            }
            let expert = (0..EXPERTS.len()).max_by(|&a, &b| sum[a].total_cmp(&sum[b])).unwrap();
            (symbol(features) + expert) % NUM_ACTIONS
        };
        let params = Params::new(16, 1);
        assert_eq!(mean_return(&ENTRY, &params, 500, by_support), 16.0);
        for shift in 0..NUM_ACTIONS {
            let alone = |features: &[f32], _: &[f32]| (symbol(features) + shift) % NUM_ACTIONS;
            let earned = mean_return(&ENTRY, &params, 2000, alone);
            assert!((earned - 4.0).abs() < 1.5, "always expert {shift} earns {earned}");
        }
    }

    #[test]
    fn as_many_situations_hold_as_asked_and_episodes_are_as_long() {
        let params =
            Params::new(2, 1).with("active", 7).with("length", 3).with("nodes", 64).with("edges", 200);
        let held = |_: &[f32], activations: &[f32]| {
            let situations = Levels::new(64).situations;
            assert_eq!(activations.iter().filter(|&&a| a > 0.0).count(), 7);
            assert!(activations[situations..].iter().all(|&a| a == 0.0), "situations alone hold");
            0
        };
        assert!(mean_return(&ENTRY, &params, 60, held) <= 3.0);
        for (key, value) in [("active", 17), ("active", 0), ("length", 0), ("nodes", 31)] {
            let error = (ENTRY.build)(&Params::new(1, 1).with(key, value)).err().expect(key).to_string();
            assert!(error.contains(&format!("[env] {key} = {value}")), "{error}");
        }
    }

    #[test]
    fn a_copy_read_back_has_its_graph_again() {
        let lore = Lore::new(&LoreConfig { nodes: 64, edges: 200, ..LoreConfig::default() }).unwrap();
        let text = serde_json::to_string(&lore).unwrap();
        let back: Lore = serde_json::from_str(&text).unwrap();
        assert!(Arc::ptr_eq(&back.knowledge, &lore.knowledge), "one graph for all copies");
        assert!(text.len() < 300, "the graph is not saved: {text}");
    }
}
