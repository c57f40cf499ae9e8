//! The policy and its value function.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Tensor, TensorData, backend::Backend};
use gatefold_curriculum::Routing;
use gatefold_env::EnvSpec;
use gatefold_gat::{GraphDraws, GraphEncoder, GraphEncoding};
use gatefold_ops::{Activation, OpsBackend, init, mix, probe, softmax};
use gatefold_router::{Gates, Router, gumbel_noise, random_gates, route, select_top_k};
use rand::Rng;

use crate::cross_attention::CrossAttention;
use crate::evaluation::smaller;
use crate::{
    Architecture, Evaluation, Experts, FlatNetwork, FlatPolicy, Mlp, Observation, PolicyConfig, PolicyError,
    RoutingInput, Wanted,
};

// B minibatch, R compared rows, F features, D hidden, K experts, A actions, T nodes read out

/// Gain of the critic's last layer.
const VALUE_GAIN: f32 = 1.0;

/// From encodings to action logits.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "one per policy; a box would not be a module")]
enum ActionHead<B: Backend> {
    Linear(Linear<B>),
    Experts(Experts<B>),
}

/// The critic: an encoder of its own and a linear head on `[h ; h_graph]`.
#[derive(Module, Debug)]
struct Critic<B: Backend> {
    trunk: Mlp<B>,
    head: Linear<B>,
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
    shared_expert: Option<Experts<B>>,
    cross_attention: Option<CrossAttention<B>>,
    second_critic: Option<Critic<B>>,
    next_operator: Option<Linear<B>>,
    #[module(skip)]
    router_reads_observation: bool,
    #[module(skip)]
    graph_frozen: bool,
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
        let graph_width = graph.as_ref().map_or(0, GraphEncoder::hidden);
        let joined = width + graph_width;
        let num_actions = spec.num_actions();
        let experts = |count, rng: &mut _| {
            let sizes = [width, num_actions];
            let (hidden, activation) = (&config.expert_hidden, config.activation);
            Experts::new(count, sizes, hidden, activation, config.action_gain, rng, device)
        };
        let router_reads_observation = config.architecture == Architecture::V2;
        let (router, head) = if config.has_experts() {
            let count = config.experts.len();
            let read = if router_reads_observation { spec.num_features + graph_width } else { joined };
            let router = (count > 1).then(|| Router::new(read, &config.router_hidden, count, rng, device));
            (router, ActionHead::Experts(experts(count, rng)))
        } else {
            let linear = init::orthogonal_linear([joined, num_actions], config.action_gain, rng, device);
            (None, ActionHead::Linear(linear))
        };
        let value_head = |rng: &mut _| init::orthogonal_linear([joined, 1], VALUE_GAIN, rng, device);
        let value = value_head(rng);
        let readout = graph.as_ref().map_or(0, |graph| graph.readout_nodes().len());
        Ok(Self {
            shared_expert: config.shared_expert.then(|| experts(1, rng)),
            cross_attention: config.cross_attention.then(|| CrossAttention::new(graph_width, rng, device)),
            second_critic: config.twin_critics.then(|| Critic { trunk: trunk(rng), head: value_head(rng) }),
            next_operator: config
                .next_operator
                .then(|| init::orthogonal_linear([graph_width, readout], 1.0, rng, device)),
            actor_trunk,
            critic_trunk,
            graph,
            router,
            head,
            value,
            router_reads_observation,
            graph_frozen: false,
        })
    }

    /// Evaluates the policy as an update needs it: with all experts' logits on the first `compared` rows.
    ///
    /// Where gates outside the support have no gradient ([`Routing::skips_in_updates`]), experts whose
    /// gate is exactly 0 are not computed; values have the bits of the full computation.
    pub fn evaluate(
        &self,
        observation: &Observation<B>,
        input: RoutingInput<B>,
        compared: usize,
    ) -> Evaluation<B> {
        self.evaluate_with(observation, input, &Wanted { compared, predicted: true, ..Wanted::nothing() })
    }

    /// [`evaluate`](Self::evaluate), with all that an update may want.
    pub fn evaluate_with(
        &self,
        observation: &Observation<B>,
        input: RoutingInput<B>,
        wanted: &Wanted<B>,
    ) -> Evaluation<B> {
        let skip = input.routing.skips_in_updates();
        self.run(observation, input, skip, wanted)
    }

    /// Evaluates only the experts whose gate is not exactly 0, as a rollout needs it.
    ///
    /// Logits and values have the bits of [`evaluate`](Self::evaluate).
    pub fn act(&self, observation: &Observation<B>, input: RoutingInput<B>) -> Evaluation<B> {
        let skip = input.routing.skips_in_rollouts();
        self.run(observation, input, skip, &Wanted::nothing())
    }

    fn run(
        &self,
        observation: &Observation<B>,
        input: RoutingInput<B>,
        skip: bool,
        wanted: &Wanted<B>,
    ) -> Evaluation<B> {
        let graph = self.encode_with(observation, wanted);
        let h_graph = graph.as_ref().map(|encoding| encoding.graph.clone());
        let h_obs = self.encode_observation(observation); // [B, D]
        let h_obs = probe::tensor("activation/h_obs", h_obs);
        let gates = self.router.as_ref().map(|router| {
            let read =
                if self.router_reads_observation { observation.features.clone() } else { h_obs.clone() };
            let logits = probe::tensor("activation/router_logits", router.forward(join(read, &h_graph)));
            let selected = match input.routing {
                Routing::TopK { k } if input.drawn.is_none() => {
                    let bias = Some(&input.selection_bias[..]).filter(|bias| !bias.is_empty());
                    Some(select_top_k(&logits, k, bias))
                }
                _ => input.drawn,
            };
            let mut gates = route(logits, input.routing, input.temperature, selected);
            gates.alpha = probe::tensor("activation/gates", gates.alpha);
            gates
        });
        let (mut logits, expert_logits) =
            self.act_by_head(&h_obs, &h_graph, gates.as_ref(), skip, wanted.compared);
        if let Some(shared) = &self.shared_expert {
            let [rows, num_actions] = logits.dims();
            let shared = shared.forward(h_obs.clone()).reshape([rows, num_actions]);
            logits = logits + probe::tensor("activation/shared_expert", shared);
        }
        let values = self.first_value(observation, &h_graph);
        let second = self.second_critic.as_ref();
        Evaluation {
            logits: probe::tensor("activation/action_logits", logits),
            values: probe::tensor("activation/values", values),
            second_values: second.map(|critic| {
                probe::tensor("activation/second_values", second_value(critic, observation, &h_graph))
            }),
            h_obs: Some(h_obs),
            gates,
            expert_logits: expert_logits.map(|logits| probe::tensor("activation/expert_logits", logits)),
            next_operator: self
                .next_operator
                .as_ref()
                .filter(|_| wanted.predicted)
                .zip(h_graph)
                .map(|(head, h_graph)| init::apply_linear(head, h_graph, Activation::Identity))
                .map(|logits| probe::tensor("activation/next_operator", logits)),
            graph,
        }
    }

    /// The policy with each network's parameters in one tensor, if it consists of MLPs alone.
    ///
    /// `None` in a process with a probe, which has to see what passes between the layers.
    pub fn flat(&self) -> Option<FlatPolicy<B>> {
        let plain = self.graph.is_none() && self.shared_expert.is_none() && !probe::is_installed();
        let head = match &self.head {
            ActionHead::Linear(head) if plain => head,
            _ => return None,
        };
        let second = self.second_critic.as_ref().map(|critic| FlatNetwork::new(&critic.trunk, &critic.head));
        let critic = FlatNetwork::new(&self.critic_trunk, &self.value);
        Some(FlatPolicy::new(FlatNetwork::new(&self.actor_trunk, head), critic, second))
    }

    /// The mixed logits `[B, A]`, and every expert's on the compared rows `[R, K, A]`.
    fn act_by_head(
        &self,
        h_obs: &Tensor<B, 2>,
        h_graph: &Option<Tensor<B, 2>>,
        gates: Option<&Gates<B>>,
        skip: bool,
        compared: usize,
    ) -> (Tensor<B, 2>, Option<Tensor<B, 3>>) {
        let experts = match &self.head {
            ActionHead::Linear(linear) => {
                let joined = join(h_obs.clone(), h_graph);
                return (init::apply_linear(linear, joined, Activation::Identity), None);
            }
            ActionHead::Experts(experts) => experts,
        };
        let [rows, _] = h_obs.dims();
        let compared = compared.min(rows);
        match gates {
            Some(gates) if skip => {
                let mixed = experts.forward_active(h_obs.clone(), gates.alpha.clone());
                let each = (compared > 0).then(|| experts.forward(h_obs.clone().narrow(0, 0, compared)));
                (mixed, each)
            }
            Some(gates) => {
                let each = experts.forward(h_obs.clone()); // [B, K, A]
                let mixed = mix(gates.alpha.clone(), each.clone());
                (mixed, (compared > 0).then(|| each.narrow(0, 0, compared)))
            }
            None => {
                let only = experts.forward(h_obs.clone());
                let [_, _, num_actions] = only.dims();
                (only.reshape([rows, num_actions]), None)
            }
        }
    }

    fn first_value(&self, observation: &Observation<B>, h_graph: &Option<Tensor<B, 2>>) -> Tensor<B, 1> {
        value("activation/critic_trunk", &self.critic_trunk, &self.value, observation, h_graph)
    }

    /// The actor's encoding of the observation `[B, D]`.
    pub fn encode_observation(&self, observation: &Observation<B>) -> Tensor<B, 2> {
        self.actor_trunk.forward(observation.features.clone())
    }

    /// V of a batch of observations `[B]`, without the actor; of two critics, the smaller.
    pub fn values(&self, observation: &Observation<B>) -> Tensor<B, 1> {
        let h_graph = self.encode_with(observation, &Wanted::nothing()).map(|encoding| encoding.graph);
        let values = self.first_value(observation, &h_graph);
        match &self.second_critic {
            None => values,
            Some(critic) => smaller(values, second_value(critic, observation, &h_graph)),
        }
    }

    /// The encoded graph with attention and all node vectors, if the policy reads one; after
    /// cross-attention, if it has that.
    pub fn encode(&self, observation: &Observation<B>) -> Option<GraphEncoding<B>> {
        self.encode_by(observation, |encoder, activations, features| encoder.forward(activations, features))
    }

    fn encode_with(&self, observation: &Observation<B>, wanted: &Wanted<B>) -> Option<GraphEncoding<B>> {
        let (dropped, attended) = (wanted.dropped.as_ref(), wanted.attended);
        self.encode_by(observation, |encoder, activations, features| {
            encoder.forward_with(activations, features, dropped, attended)
        })
    }

    fn encode_by(
        &self,
        observation: &Observation<B>,
        forward: impl FnOnce(&GraphEncoder<B>, Tensor<B, 2>, Option<Tensor<B, 3>>) -> GraphEncoding<B>,
    ) -> Option<GraphEncoding<B>> {
        self.graph.as_ref().map(|encoder| {
            let activations = observation.activations.clone();
            let activations = activations.expect("an environment with a graph has activations");
            let mut encoding = forward(encoder, activations, observation.node_features.clone());
            if self.graph_frozen {
                encoding = encoding.detach();
            }
            if let Some(attention) = &self.cross_attention {
                let attended = attention.forward(encoding.graph, encoding.readout.nodes());
                encoding.graph = probe::tensor("activation/cross_attention", attended);
            }
            encoding.graph = probe::tensor("activation/h_graph", encoding.graph);
            encoding
        })
    }

    /// The same policy with its graph encoder held fixed, or learning again.
    ///
    /// A frozen encoder is a feature extractor: it gets no gradient, so nothing moves its parameters.
    pub fn with_graph_frozen(self, frozen: bool) -> Self {
        Self { graph_frozen: frozen, ..self }
    }

    /// What the router reads of observations `[B, R]`, if there is a router.
    pub fn read_by_router(&self, observation: &Observation<B>) -> Option<Tensor<B, 2>> {
        self.router.as_ref()?;
        let h_graph = self.encode_with(observation, &Wanted::nothing()).map(|encoding| encoding.graph);
        let read = if self.router_reads_observation {
            observation.features.clone()
        } else {
            self.encode_observation(observation)
        };
        Some(join(read, &h_graph))
    }

    /// `softmax(z / tau)` `[B, K]` of what a router [reads](Self::read_by_router), if there is a router.
    pub fn routing_probabilities(&self, read: Tensor<B, 2>, temperature: f32) -> Option<Tensor<B, 2>> {
        self.router.as_ref().map(|router| softmax(router.forward(read) / temperature))
    }

    /// What the routing has to be given for `rows` rows: Gumbel noise or random gates `[rows, K]`; `None`
    /// where nothing is drawn.
    pub fn draw(
        &self,
        routing: Routing,
        rows: usize,
        rng: &mut impl Rng,
        device: &B::Device,
    ) -> Option<Tensor<B, 2>> {
        let num_experts = self.num_experts();
        let values = match routing {
            _ if !self.has_router() => return None,
            Routing::Gumbel => gumbel_noise(rows, num_experts, rng),
            Routing::Random => random_gates(rows, num_experts, rng),
            _ => return None,
        };
        Some(Tensor::from_data(TensorData::new(values, [rows, num_experts]), device))
    }

    /// What the graph encoder's dropouts drop in one evaluation of `rows` rows; `None` where nothing is
    /// to be dropped, and from an encoder that is held fixed: without learning there is nothing to
    /// regularise.
    pub fn draw_graph(&self, rows: usize, rng: &mut impl Rng, device: &B::Device) -> Option<GraphDraws<B>> {
        self.learning_graph()?.draw(rows, rng, device)
    }

    /// Whether there is a graph encoder that gets gradients.
    pub fn learns_graph(&self) -> bool {
        self.learning_graph().is_some()
    }

    fn learning_graph(&self) -> Option<&GraphEncoder<B>> {
        self.graph.as_ref().filter(|_| !self.graph_frozen)
    }

    /// The graph encoder, if there is one.
    pub fn graph_encoder(&self) -> Option<&GraphEncoder<B>> {
        self.graph.as_ref()
    }

    /// Whether a router decides between experts.
    pub fn has_router(&self) -> bool {
        self.router.is_some()
    }

    /// Number of experts between which the router decides; 1 for the baselines without experts.
    pub fn num_experts(&self) -> usize {
        match &self.head {
            ActionHead::Linear(_) => 1,
            ActionHead::Experts(experts) => experts.count(),
        }
    }
}

fn second_value<B: OpsBackend>(
    critic: &Critic<B>,
    observation: &Observation<B>,
    h_graph: &Option<Tensor<B, 2>>,
) -> Tensor<B, 1> {
    value("activation/second_critic_trunk", &critic.trunk, &critic.head, observation, h_graph)
}

/// V `[B]` by a trunk, whose results pass `site`, and a head on `[h ; h_graph]`.
fn value<B: OpsBackend>(
    site: &str,
    trunk: &Mlp<B>,
    head: &Linear<B>,
    observation: &Observation<B>,
    h_graph: &Option<Tensor<B, 2>>,
) -> Tensor<B, 1> {
    let h = probe::tensor(site, trunk.forward(observation.features.clone()));
    let values = init::apply_linear(head, join(h, h_graph), Activation::Identity);
    let [rows, _] = values.dims();
    values.reshape([rows])
}

/// `[x ; h_graph]`, or `x` without a graph.
fn join<B: Backend>(x: Tensor<B, 2>, h_graph: &Option<Tensor<B, 2>>) -> Tensor<B, 2> {
    match h_graph {
        Some(h_graph) => Tensor::cat(vec![x, h_graph.clone()], 1),
        None => x,
    }
}
