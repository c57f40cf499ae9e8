//! The policy and its value function.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Tensor, backend::Backend};
use gatefold_curriculum::Routing;
use gatefold_env::EnvSpec;
use gatefold_gat::{GraphEncoder, GraphEncoding};
use gatefold_ops::{Activation, OpsBackend, init, mix};
use gatefold_router::{Gates, Router, route};
use rand::Rng;

use crate::{Architecture, Experts, Mlp, Observation, PolicyConfig, PolicyError};

// B minibatch, F features, D hidden, K experts, A actions

/// Gain of the critic's last layer.
const VALUE_GAIN: f32 = 1.0;

/// From encodings to action logits.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "one per policy; a box would not be a module")]
enum ActionHead<B: Backend> {
    Linear(Linear<B>),
    Experts(Experts<B>),
}

/// Actor and critic: observation encoders, graph encoder, router, experts, value head.
///
/// `h_obs` encodes the observation vector (one trunk for the actor, one for the critic) and
/// `h_graph` the graph. The router reads `[h_obs ; h_graph]`, expert k maps `h_obs` to logits, and
/// the policy's logits are `sum_k alpha_k logits_k`. The critic reads `[h_obs ; h_graph]`.
/// Baselines leave parts out: see [`Architecture`]. With one expert there is no router.
#[derive(Module, Debug)]
pub struct ActorCritic<B: Backend> {
    actor_trunk: Mlp<B>,
    critic_trunk: Mlp<B>,
    graph: Option<GraphEncoder<B>>,
    router: Option<Router<B>>,
    head: ActionHead<B>,
    value: Linear<B>,
}

/// One evaluation of a batch of observations.
#[derive(Debug, Clone)]
pub struct Evaluation<B: Backend> {
    /// Action logits before the mask `[B, A]`.
    pub logits: Tensor<B, 2>,
    /// Values `[B]`.
    pub values: Tensor<B, 1>,
    /// What the router decided, if there is one.
    pub gates: Option<Gates<B>>,
    /// Every expert's logits `[B, K, A]`, if there are experts; 0 where an expert was skipped.
    pub expert_logits: Option<Tensor<B, 3>>,
    /// The encoded graph, if there is one.
    pub graph: Option<GraphEncoding<B>>,
}

impl<B: OpsBackend> ActorCritic<B> {
    /// A policy for environments of `spec`, its weights drawn from `rng`.
    pub fn new(
        config: &PolicyConfig,
        spec: &EnvSpec,
        rng: &mut impl Rng,
        device: &B::Device,
    ) -> Result<Self, PolicyError> {
        config.validate_for(spec)?;
        let trunk = |rng: &mut _| Mlp::new(spec.num_features, &config.trunk, config.activation, rng, device);
        let (actor_trunk, critic_trunk) = (trunk(rng), trunk(rng));
        let graph = match (config.architecture, &spec.graph) {
            (Architecture::Mlp, _) | (_, None) => None,
            (_, Some(typed)) => Some(GraphEncoder::new(&config.gat, typed, spec.node_features, rng, device)),
        };
        let width = *config.trunk.last().expect("validated: at least one width");
        let joined = width + graph.as_ref().map_or(0, GraphEncoder::hidden);
        let num_actions = spec.num_actions();
        let (router, head) = match config.architecture {
            Architecture::Routed => {
                let count = config.experts.len();
                let router =
                    (count > 1).then(|| Router::new(joined, &config.router_hidden, count, rng, device));
                let experts = Experts::new(
                    count,
                    [width, num_actions],
                    &config.expert_hidden,
                    config.activation,
                    config.action_gain,
                    rng,
                    device,
                );
                (router, ActionHead::Experts(experts))
            }
            Architecture::MlpGat | Architecture::Mlp => {
                let linear = init::orthogonal_linear([joined, num_actions], config.action_gain, rng, device);
                (None, ActionHead::Linear(linear))
            }
        };
        let value = init::orthogonal_linear([joined, 1], VALUE_GAIN, rng, device);
        Ok(Self { actor_trunk, critic_trunk, graph, router, head, value })
    }

    /// Evaluates every expert, as an update needs it.
    pub fn evaluate(
        &self,
        observation: &Observation<B>,
        routing: Routing,
        temperature: f32,
    ) -> Evaluation<B> {
        self.run(observation, routing, temperature, false)
    }

    /// Evaluates only the experts whose gate is not exactly 0, as a rollout needs it.
    ///
    /// Logits and values have the bits of [`evaluate`](Self::evaluate).
    pub fn act(&self, observation: &Observation<B>, routing: Routing, temperature: f32) -> Evaluation<B> {
        self.run(observation, routing, temperature, routing == Routing::Sparsemax)
    }

    fn run(
        &self,
        observation: &Observation<B>,
        routing: Routing,
        temperature: f32,
        skip: bool,
    ) -> Evaluation<B> {
        let graph = self.encode(observation);
        let join = |x: Tensor<B, 2>| match &graph {
            Some(encoding) => Tensor::cat(vec![x, encoding.graph.clone()], 1),
            None => x,
        };
        let h_obs = self.actor_trunk.forward(observation.features.clone()); // [B, D]
        let gates = self
            .router
            .as_ref()
            .map(|router| route(router.forward(join(h_obs.clone())), routing, temperature, None));
        let (logits, expert_logits) = match &self.head {
            ActionHead::Linear(linear) => {
                (init::apply_linear(linear, join(h_obs), Activation::Identity), None)
            }
            ActionHead::Experts(experts) => {
                let host = gates.as_ref().filter(|_| skip).map(|gates| to_host(&gates.alpha));
                let each = experts.forward(h_obs, host.as_deref()); // [B, K, A]
                let mixed = match &gates {
                    Some(gates) => mix(gates.alpha.clone(), each.clone()),
                    None => {
                        let [rows, _, num_actions] = each.dims();
                        each.clone().reshape([rows, num_actions])
                    }
                };
                (mixed, Some(each))
            }
        };
        let h_value = self.critic_trunk.forward(observation.features.clone());
        let values = init::apply_linear(&self.value, join(h_value), Activation::Identity);
        let [rows, _] = values.dims();
        Evaluation { logits, values: values.reshape([rows]), gates, expert_logits, graph }
    }

    /// V of a batch of observations `[B]`, without the actor.
    pub fn values(&self, observation: &Observation<B>) -> Tensor<B, 1> {
        let mut h = self.critic_trunk.forward(observation.features.clone());
        if let Some(encoding) = self.encode(observation) {
            h = Tensor::cat(vec![h, encoding.graph], 1);
        }
        let [rows, _] = h.dims();
        init::apply_linear(&self.value, h, Activation::Identity).reshape([rows])
    }

    /// The encoded graph, if the policy reads one.
    pub fn encode(&self, observation: &Observation<B>) -> Option<GraphEncoding<B>> {
        self.graph.as_ref().map(|encoder| {
            let activations = observation.activations.clone();
            let activations = activations.expect("an environment with a graph has activations");
            encoder.forward(activations, observation.node_features.clone())
        })
    }

    /// The graph encoder, if there is one.
    pub fn graph_encoder(&self) -> Option<&GraphEncoder<B>> {
        self.graph.as_ref()
    }

    /// Number of experts; 1 for the baselines without experts.
    pub fn num_experts(&self) -> usize {
        match &self.head {
            ActionHead::Linear(_) => 1,
            ActionHead::Experts(experts) => experts.count(),
        }
    }
}

fn to_host<B: Backend>(tensor: &Tensor<B, 2>) -> Vec<f32> {
    tensor.to_data().convert::<f32>().to_vec().expect("gates are f32")
}
