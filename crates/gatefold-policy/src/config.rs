//! Settings of the policy.

use gatefold_env::EnvSpec;
use gatefold_gat::GatConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What a policy is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    /// The full method: graph attention (if the environment has a graph), router, experts.
    Routed,
    /// The method's second version: as `routed`, but the router reads the observation itself and
    /// `h_graph`, and routes by Gumbel-softmax, one expert at a time, in every phase.
    V2,
    /// Graph attention and one linear action head: the baseline without experts.
    MlpGat,
    /// A plain actor-critic: trunk and one linear action head; the graph is not read.
    Mlp,
}

/// Activation of the trunks and experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Nonlinearity {
    /// Hyperbolic tangent.
    Tanh,
    /// Rectified linear unit.
    Relu,
}

/// Settings of the policy. Input and output sizes come from the environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// What the policy is made of.
    pub architecture: Architecture,
    /// Widths of the observation encoder's layers, in units, each from 1 to 4096; actor and critic
    /// have one encoder each.
    #[schemars(length(min = 1))]
    pub trunk: Vec<usize>,
    /// Activation of the trunks and experts.
    pub activation: Nonlinearity,
    /// Names of the experts, one per expert. A graph's affinities refer to them.
    #[schemars(length(min = 1))]
    pub experts: Vec<String>,
    /// Widths of each expert's hidden layers, in units, each from 1 to 4096.
    #[schemars(length(min = 1))]
    pub expert_hidden: Vec<usize>,
    /// Widths of the router's hidden layers, in units, each from 1 to 4096.
    #[schemars(length(min = 1))]
    pub router_hidden: Vec<usize>,
    /// Gain of the orthogonal initialisation of the action head's last layer, dimensionless.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub action_gain: f32,
    /// A further expert that always acts, with weight 1 beside the routed ones. True or false; needs
    /// experts.
    pub shared_expert: bool,
    /// Attention of h_graph over the node vectors that are read out, added to h_graph: the method's
    /// fourth version. True or false; needs a graph with at least 2 nodes to read out.
    pub cross_attention: bool,
    /// Two critics that learn the same returns; the smaller value is the one that bootstraps. True or
    /// false.
    pub twin_critics: bool,
    /// A head that predicts the next step's activations of the nodes that are read out from h_graph;
    /// `curriculum.optional.next_operator` weighs its loss. True or false; needs a graph.
    pub next_operator: bool,
    /// Scale observations by their running mean and standard deviation, clipped to +-10.
    pub normalize_observations: bool,
    /// The graph encoder.
    pub gat: GatConfig,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            architecture: Architecture::Routed,
            trunk: vec![128, 128],
            activation: Nonlinearity::Relu,
            experts: ["survival", "combat", "exploration", "general"].map(String::from).to_vec(),
            expert_hidden: vec![128, 128],
            router_hidden: vec![128, 64],
            action_gain: 0.01,
            shared_expert: false,
            cross_attention: false,
            twin_critics: false,
            next_operator: false,
            normalize_observations: false,
            gat: GatConfig::default(),
        }
    }
}

/// A policy that cannot be built.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("[policy] {0}")]
pub struct PolicyError(pub String);

impl PolicyConfig {
    /// [`validate`](Self::validate), and whether the policy can read environments of `spec`.
    pub fn validate_for(&self, spec: &EnvSpec) -> Result<(), PolicyError> {
        self.validate()?;
        if self.architecture == Architecture::MlpGat && spec.graph.is_none() {
            return Err(PolicyError(
                "architecture = \"mlp-gat\": the environment has no graph; use \"mlp\" or \"routed\"".into(),
            ));
        }
        let readout = spec.graph.as_ref().map_or(0, |graph| graph.readout_nodes().len());
        let reads_graph = spec.graph.is_some() && self.architecture != Architecture::Mlp;
        if self.next_operator && !reads_graph {
            return Err(PolicyError(
                "next_operator = true: needs an environment with a graph and an architecture that reads it; \
                 set it to false"
                    .into(),
            ));
        }
        if self.cross_attention && !(reads_graph && readout >= 2) {
            return Err(PolicyError(format!(
                "cross_attention = true: needs at least 2 graph nodes to attend to, this policy reads \
                 {}; set it to false",
                if reads_graph { readout } else { 0 }
            )));
        }
        Ok(())
    }

    /// Whether actions come from experts.
    pub fn has_experts(&self) -> bool {
        matches!(self.architecture, Architecture::Routed | Architecture::V2)
    }

    /// Whether a router decides between experts.
    pub fn has_router(&self) -> bool {
        self.has_experts() && self.experts.len() > 1
    }

    /// Fails with the key, the value and what would be accepted.
    pub fn validate(&self) -> Result<(), PolicyError> {
        let widths = [
            ("trunk", &self.trunk),
            ("expert_hidden", &self.expert_hidden),
            ("router_hidden", &self.router_hidden),
        ];
        for (key, list) in widths {
            if list.is_empty() || list.iter().any(|&w| w == 0 || w > 4096) {
                return Err(PolicyError(format!("{key} = {list:?}: need at least one width in 1..=4096")));
            }
        }
        if self.experts.is_empty() {
            return Err(PolicyError("experts = []: need at least one name".to_string()));
        }
        if self.shared_expert && !self.has_experts() {
            return Err(PolicyError(
                "shared_expert = true: needs experts; set architecture = \"routed\" or shared_expert = false"
                    .to_string(),
            ));
        }
        for (i, name) in self.experts.iter().enumerate() {
            if name.is_empty() || self.experts[..i].contains(name) {
                return Err(PolicyError(format!(
                    "experts: `{name}` is empty or repeated; names must differ"
                )));
            }
        }
        self.gat.validate().map_err(|e| PolicyError(format!("gat.{e}")))
    }
}
