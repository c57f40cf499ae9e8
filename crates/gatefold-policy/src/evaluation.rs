//! What goes into an evaluation of the policy beside observations, and what comes out.

use burn::tensor::{Tensor, backend::Backend};
use gatefold_curriculum::Routing;
use gatefold_gat::{GraphDraws, GraphEncoding};
use gatefold_router::Gates;

// B minibatch, R compared rows, D hidden, K experts, A actions, T nodes read out

/// How a batch is to be routed: the plan's choice, and what a rollout drew for these rows.
#[derive(Debug, Clone)]
pub struct RoutingInput<B: Backend> {
    /// How logits become gates.
    pub routing: Routing,
    /// Divisor of the logits, > 0.
    pub temperature: f32,
    /// What was drawn or selected `[B, K]`: Gumbel noise, random gates, a top-k set. `None` where the
    /// routing draws nothing, and for a top-k set that is to be selected now.
    pub drawn: Option<Tensor<B, 2>>,
    /// Added to the logits where a top-k set is selected `[K]`; empty for none.
    pub selection_bias: Vec<f32>,
}

impl<B: Backend> RoutingInput<B> {
    /// A routing for which nothing was drawn.
    pub fn new(routing: Routing, temperature: f32) -> Self {
        Self { routing, temperature, drawn: None, selection_bias: Vec::new() }
    }

    /// The same with what was drawn `[B, K]`.
    pub fn with_drawn(self, drawn: Option<Tensor<B, 2>>) -> Self {
        Self { drawn, ..self }
    }
}

/// What an update wants to know of a batch beside logits and values.
#[derive(Debug, Clone)]
pub struct Wanted<B: Backend> {
    /// How many of the first rows every expert's logits are wanted on.
    pub compared: usize,
    /// How many of the first rows graph attention is wanted on, with its gradient.
    pub attended: usize,
    /// Whether the next step's operators are to be predicted, if there is a head for them.
    pub predicted: bool,
    /// What the graph encoder's dropouts drop: [`ActorCritic::draw_graph`](crate::ActorCritic::draw_graph).
    pub dropped: Option<GraphDraws<B>>,
}

impl<B: Backend> Wanted<B> {
    /// Nothing more, and nothing dropped.
    pub fn nothing() -> Self {
        Self { compared: 0, attended: 0, predicted: false, dropped: None }
    }
}

/// One evaluation of a batch of observations.
#[derive(Debug, Clone)]
pub struct Evaluation<B: Backend> {
    /// Action logits before the mask `[B, A]`.
    pub logits: Tensor<B, 2>,
    /// Values `[B]`; of two critics, the first one's.
    pub values: Tensor<B, 1>,
    /// The second critic's values `[B]`, if there is one.
    pub second_values: Option<Tensor<B, 1>>,
    /// The actor's encoding of the observation `[B, D]`; `None` from a [`FlatPolicy`](crate::FlatPolicy).
    pub h_obs: Option<Tensor<B, 2>>,
    /// What the router decided, if there is one.
    pub gates: Option<Gates<B>>,
    /// Every expert's logits on the compared rows `[R, K, A]`, if there are experts and such rows.
    pub expert_logits: Option<Tensor<B, 3>>,
    /// The encoded graph, if there is one.
    pub graph: Option<GraphEncoding<B>>,
    /// Logits of the next step's activations of the nodes that are read out `[B, T]`, if predicted.
    pub next_operator: Option<Tensor<B, 2>>,
}

/// The smaller of each pair; NaN if either is.
pub(crate) fn smaller<B: Backend>(a: Tensor<B, 1>, b: Tensor<B, 1>) -> Tensor<B, 1> {
    let keep_second = a.clone().greater(b.clone()).bool_or(b.clone().is_nan());
    a.mask_where(keep_second, b)
}
