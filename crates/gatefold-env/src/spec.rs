//! What an environment declares about itself before the first step.

use std::sync::Arc;

use gatefold_graph::TypedGraph;

/// The actions an environment accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActionSpace {
    /// Actions `0..n`.
    Discrete(usize),
}

impl ActionSpace {
    /// Number of discrete actions.
    pub fn num_actions(&self) -> usize {
        match *self {
            ActionSpace::Discrete(n) => n,
        }
    }
}

/// Sizes and limits of one environment. Sizes come from here, never from a configuration file.
#[derive(Debug, Clone)]
pub struct EnvSpec {
    /// Length of the observation vector (at least 1).
    pub num_features: usize,
    /// The actions accepted.
    pub actions: ActionSpace,
    /// Whether `observe` writes an action mask. Without one every action is always allowed.
    pub masked: bool,
    /// The static graph whose node activations `observe` writes, if there is one.
    pub graph: Option<Arc<TypedGraph>>,
    /// Numbers that `observe` writes for every graph node beside its activation; 0 for none. Only
    /// with a graph.
    pub node_features: usize,
    /// Steps after which the batch truncates an episode (`None`: never).
    pub max_episode_steps: Option<u32>,
}

impl EnvSpec {
    /// A spec of `num_features` and `num_actions` with no mask, no graph and no time limit.
    pub fn new(num_features: usize, num_actions: usize) -> Self {
        Self {
            num_features,
            actions: ActionSpace::Discrete(num_actions),
            masked: false,
            graph: None,
            node_features: 0,
            max_episode_steps: None,
        }
    }

    /// Whether buffers, limits and state of the two are of one size; graphs are compared by size.
    pub fn same_sizes(&self, other: &Self) -> bool {
        let sizes = |spec: &Self| {
            (spec.num_features, spec.node_features, spec.actions, spec.masked, spec.max_episode_steps)
        };
        sizes(self) == sizes(other) && self.num_nodes() == other.num_nodes()
    }

    /// Number of graph nodes, 0 without a graph.
    pub fn num_nodes(&self) -> usize {
        self.graph.as_ref().map_or(0, |g| g.num_nodes())
    }

    /// Number of discrete actions.
    pub fn num_actions(&self) -> usize {
        self.actions.num_actions()
    }
}
