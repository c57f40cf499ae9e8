//! Bandit: a contextual bandit whose knowledge graph names the right expert. The smallest thing
//! that a routed policy can do and a policy without the graph cannot.

use std::sync::{Arc, LazyLock};

use gatefold_env::{
    Action, EnvEntry, EnvError, EnvSpec, Environment, EpisodeEnd, ObservationView, StreamRng, Transition,
};
use gatefold_graph::{TypedGraph, parse_knowledge};
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::identity::at_least;

/// The row of the table.
pub const ENTRY: EnvEntry =
    EnvEntry::new::<Bandit>("bandit", "The graph names the right expert; best return = length");

/// The experts that the operators speak for, in index order.
pub const EXPERTS: [&str; 4] = ["survival", "combat", "exploration", "general"];

/// Number of symbols, and of actions.
pub const NUM_ACTIONS: usize = 4;

static GRAPH: LazyLock<Arc<TypedGraph>> = LazyLock::new(|| {
    let text = include_str!("bandit.toml");
    Arc::new(parse_knowledge("bandit.toml", text).expect("the bandit's own graph validates"))
});

/// Options of [`Bandit`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BanditConfig {
    /// Length of an episode, in steps.
    #[schemars(range(min = 1))]
    pub length: u32,
}

impl Default for BanditConfig {
    fn default() -> Self {
        Self { length: 16 }
    }
}

/// What is the case, as the graph's conditions see it. The index is the node's index.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Situation {
    hurt: bool,
    threatened: bool,
    unknown: bool,
}

impl Situation {
    /// Draws the right expert uniformly, then a situation in which it is right.
    fn draw(rng: &mut StreamRng) -> Self {
        let (threatened, unknown) = (rng.random(), rng.random());
        match rng.random_range(0..EXPERTS.len()) {
            0 => Self { hurt: true, threatened, unknown },
            1 => Self { hurt: false, threatened: true, unknown },
            2 => Self { hurt: false, threatened: false, unknown: true },
            _ => Self { hurt: false, threatened: false, unknown: false },
        }
    }

    /// Index of the expert whose operator is applicable.
    fn expert(self) -> usize {
        match self {
            Self { hurt: true, .. } => 0,
            Self { threatened: true, .. } => 1,
            Self { unknown: true, .. } => 2,
            _ => 3,
        }
    }

    /// Whether each node holds: the conditions `hurt, healthy, threatened, alone, unknown, known`,
    /// then the operators `rest, flee, strike, explore, settle`, exactly one of which is applicable.
    fn nodes(self) -> [bool; 11] {
        let Self { hurt, threatened, unknown } = self;
        let expert = self.expert();
        [
            hurt,
            !hurt,
            threatened,
            !threatened,
            unknown,
            !unknown,
            expert == 0 && !threatened,
            expert == 0 && threatened,
            expert == 1,
            expert == 2,
            expert == 3,
        ]
    }
}

/// A contextual bandit whose knowledge graph names the right expert.
///
/// A symbol `s` of 4 is shown. Expert `k` of [`EXPERTS`] answers with action `(s + k) mod 4`, and
/// the situation decides which expert is right. The situation is visible only through the graph:
/// exactly one operator has all its preconditions, and its affinity names the expert.
///
/// - Observation: one-hot of the symbol (4 features), then the fraction of decisions left.
/// - Graph: `bandit.toml`, 6 conditions and 5 operators; activation 1 where a condition holds or
///   an operator is applicable, else 0. Symbol and situation are drawn anew every step.
/// - Actions: 4, all allowed. Reward: 1 for the right one, else 0. Score: the return so far.
/// - Ends: terminated after `length` decisions; there is no clock.
/// - Best return: `length`. Without the graph, or at random, no policy expects more than
///   `length / 4`, because every expert is equally likely whatever the symbol.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bandit {
    config: BanditConfig,
    symbol: usize,
    situation: Situation,
    left: u32,
    score: f64,
}

impl Bandit {
    /// Index in [`EXPERTS`] of the expert that is right now.
    pub fn right_expert(&self) -> usize {
        self.situation.expert()
    }

    fn right_action(&self) -> usize {
        (self.symbol + self.right_expert()) % NUM_ACTIONS
    }

    fn draw(&mut self, rng: &mut StreamRng) {
        self.symbol = rng.random_range(0..NUM_ACTIONS);
        self.situation = Situation::draw(rng);
    }
}

impl Environment for Bandit {
    type Config = BanditConfig;

    fn new(config: &BanditConfig) -> Result<Self, EnvError> {
        at_least("length", config.length.into(), 1)?;
        let situation = Situation { hurt: false, threatened: false, unknown: false };
        Ok(Self { config: config.clone(), symbol: 0, situation, left: config.length, score: 0.0 })
    }

    fn spec(&self) -> EnvSpec {
        EnvSpec { graph: Some(GRAPH.clone()), ..EnvSpec::new(NUM_ACTIONS + 1, NUM_ACTIONS) }
    }

    fn reset(&mut self, rng: &mut StreamRng) {
        self.left = self.config.length;
        self.score = 0.0;
        self.draw(rng);
    }

    fn step(&mut self, action: Action, rng: &mut StreamRng) -> Transition {
        let reward = f32::from(u8::from(action.index() == self.right_action()));
        self.score += f64::from(reward);
        self.left -= 1;
        self.draw(rng);
        let end = (self.left == 0).then_some(EpisodeEnd::Terminated);
        Transition { reward, score: self.score, end }
    }

    fn observe(&self, view: &mut ObservationView<'_>) {
        view.features.fill(0.0);
        view.features[self.symbol] = 1.0;
        view.features[NUM_ACTIONS] = self.left as f32 / self.config.length as f32;
        for (activation, holds) in view.activations.iter_mut().zip(self.situation.nodes()) {
            *activation = f32::from(u8::from(holds));
        }
    }

    fn scripted(&self, _rng: &mut StreamRng) -> Option<Action> {
        Some(Action::Discrete(self.right_action()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mean_return::mean_return;
    use gatefold_env::Params;
    use gatefold_env::conformance::{Settings, check};

    /// The answer to the symbol by the expert whose operator is the only applicable one.
    fn by_the_graph(features: &[f32], activations: &[f32]) -> usize {
        let applicable: Vec<_> =
            GRAPH.readout_nodes().into_iter().filter(|&node| activations[node] == 1.0).collect();
        assert_eq!(applicable.len(), 1, "{activations:?}");
        let name = GRAPH.node(applicable[0]).expert.as_deref().expect("operators name an expert");
        let expert = EXPERTS.iter().position(|&expert| expert == name).expect("a known expert");
        (symbol(features) + expert) % NUM_ACTIONS
    }

    fn symbol(features: &[f32]) -> usize {
        features[..NUM_ACTIONS].iter().position(|&x| x == 1.0).expect("a symbol is shown")
    }

    #[test]
    fn it_keeps_the_contract() {
        check(&ENTRY, &Settings::default()).unwrap();
    }

    #[test]
    fn an_operator_is_applicable_exactly_when_all_its_preconditions_hold() {
        let relation = GRAPH.relations().iter().position(|name| name == "precondition").unwrap() as u32;
        let csr = GRAPH.csr();
        for bits in 0..8 {
            let situation = Situation { hurt: bits & 1 > 0, threatened: bits & 2 > 0, unknown: bits & 4 > 0 };
            let holds = situation.nodes();
            for operator in GRAPH.readout_nodes() {
                let all = csr
                    .in_edges(operator)
                    .filter(|&(_, edge, _)| edge == relation)
                    .all(|(condition, _, _)| holds[condition as usize]);
                assert_eq!(holds[operator], all, "{situation:?} {}", GRAPH.node(operator).id);
            }
        }
    }

    #[test]
    fn the_graph_earns_everything_and_the_observation_alone_a_quarter() {
        let params = Params::new(16, 1);
        assert_eq!(mean_return(&ENTRY, &params, 2000, by_the_graph), 16.0);
        for shift in 0..NUM_ACTIONS {
            let alone = |features: &[f32], _: &[f32]| (symbol(features) + shift) % NUM_ACTIONS;
            let earned = mean_return(&ENTRY, &params, 2000, alone);
            assert!((earned - 4.0).abs() < 0.25, "always expert {shift} earns {earned}");
        }
    }
}
