//! A policy of MLPs alone, the parameters of each in one tensor.
//!
//! What Burn and an optimizer do for a tensor costs the same for a large and a small one: with a tensor for
//! each weight and bias, networks of CartPole's size spend a quarter of an update on it. So rollouts and
//! updates of such a policy work on this form of it, and nothing else knows it.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::nn::Linear;
use burn::tensor::{Tensor, TensorPrimitive, ops::FloatTensor};
use gatefold_curriculum::Routing;
use gatefold_ops::{
    Activation, Evaluated, FlatGradient, FlatMlp, Network, OpsAutodiffBackend, OpsBackend, PendingStep,
    PpoData, PpoLossConfig, PpoRows, flat_mlp, flat_mlp_column, flat_ppo_loss,
};
use gatefold_router::Gates;
use rand::Rng;

use crate::evaluation::smaller;
use crate::{ActorCritic, Evaluation, Mlp, Observation, RoutingInput};

/// An MLP and its parameters.
#[derive(Debug, Clone)]
pub struct FlatNetwork<B: OpsBackend> {
    /// Of each layer the weight `[in, out]`, row-major, then the bias `[out]`: `[P]`. A primitive, which an
    /// optimizer changes in place.
    pub parameters: FloatTensor<B>,
    mlp: FlatMlp,
    ids: Vec<ParamId>,
}

impl<B: OpsBackend> FlatNetwork<B> {
    /// A trunk and the head on top of it, with values of their own.
    pub(crate) fn new(trunk: &Mlp<B>, head: &Linear<B>) -> Self {
        let (mut each, mut ids, mut layers) = (Vec::new(), Vec::new(), Vec::new());
        let [inputs, _] = trunk.layers().next().expect("a trunk has layers").weight.dims();
        let hidden = trunk.layers().map(|layer| (layer, trunk.activation()));
        for (layer, activation) in hidden.chain([(head, Activation::Identity)]) {
            let bias = layer.bias.as_ref().expect("our linear layers have a bias");
            let [from, to] = layer.weight.dims();
            each.extend([layer.weight.val().reshape([from * to]), bias.val()]);
            ids.extend([layer.weight.id, bias.id]);
            layers.push((to, activation));
        }
        let parameters = Tensor::cat(each, 0).into_primitive().tensor();
        Self { parameters, mlp: FlatMlp::new(inputs, layers), ids }
    }

    /// With a step that is due.
    fn before<'a>(&'a mut self, step: Option<PendingStep<'a, B>>) -> Network<'a, B> {
        Network { mlp: &self.mlp, parameters: &mut self.parameters, step }
    }

    /// The parameters as a tensor `[P]`.
    fn tensor(&self) -> Tensor<B, 1> {
        Tensor::from_primitive(TensorPrimitive::Float(self.parameters.clone()))
    }

    /// The module's parameters in their order here.
    pub fn ids(&self) -> &[ParamId] {
        &self.ids
    }

    /// The parameters one by one, flat.
    fn each(&self) -> impl Iterator<Item = (ParamId, Tensor<B, 1>)> {
        let (all, mut first) = (self.tensor(), 0);
        self.ids.iter().zip(self.mlp.sizes()).map(move |(&id, size)| {
            first += size;
            (id, all.clone().narrow(0, first - size, size))
        })
    }
}

/// A policy without graph, router and experts, its parameters untracked.
#[derive(Debug, Clone)]
pub struct FlatPolicy<B: OpsBackend> {
    actor: FlatNetwork<B>,
    critic: FlatNetwork<B>,
    second_critic: Option<FlatNetwork<B>>,
}

impl<B: OpsBackend> FlatPolicy<B> {
    pub(crate) fn new(
        actor: FlatNetwork<B>,
        critic: FlatNetwork<B>,
        second_critic: Option<FlatNetwork<B>>,
    ) -> Self {
        Self { actor, critic, second_critic }
    }

    /// The PPO loss of a minibatch, its statistics and its gradients by the parameters of actor and critic, after the
    /// steps that these are still to take.
    pub fn ppo_loss<A: OpsAutodiffBackend<InnerBackend = B>>(
        &mut self,
        data: &PpoData<B>,
        minibatch: &PpoRows<'_>,
        config: &PpoLossConfig,
        [of_actor, of_critic]: [Option<PendingStep<'_, B>>; 2],
    ) -> Evaluated<B> {
        let actor = self.actor.before(of_actor);
        flat_ppo_loss::<A>(data, minibatch, actor, self.critic.before(of_critic), config)
    }

    /// The second critic, if there is one.
    pub fn second_critic_mut(&mut self) -> Option<&mut FlatNetwork<B>> {
        self.second_critic.as_mut()
    }

    /// Whether there is a second critic.
    pub fn has_second_critic(&self) -> bool {
        self.second_critic.is_some()
    }

    /// The values of each critic `[B]`.
    pub fn values(&self, observation: &Observation<B>) -> Values<B> {
        let second = self.second_critic.as_ref().map(|critic| value(critic, observation));
        Values { first: value(&self.critic, observation), second }
    }

    /// The action logits alone `[B, A]`.
    fn logits(&self, observation: &Observation<B>) -> Tensor<B, 2> {
        flat_mlp(observation.features.clone(), self.actor.tensor(), &self.actor.mlp)
    }

    /// Actor, critic and, if there is one, second critic.
    pub fn networks(&self) -> impl Iterator<Item = &FlatNetwork<B>> {
        [&self.actor, &self.critic].into_iter().chain(&self.second_critic)
    }

    /// The same, to be changed.
    pub fn networks_mut(&mut self) -> impl Iterator<Item = &mut FlatNetwork<B>> {
        [&mut self.actor, &mut self.critic].into_iter().chain(&mut self.second_critic)
    }

    /// `policy`, without whose graph this was made, with the parameters that are here now, untracked.
    pub fn write_to<A: OpsAutodiffBackend<InnerBackend = B>>(
        &self,
        policy: ActorCritic<A>,
    ) -> ActorCritic<A> {
        struct Write<B: OpsBackend>(HashMap<ParamId, Tensor<B, 1>>);
        impl<A: OpsAutodiffBackend> ModuleMapper<A> for Write<A::InnerBackend> {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<A, D>>) -> Param<Tensor<A, D>> {
                let (id, old, mapper) = param.consume();
                let new = self.0.remove(&id).expect("a flat policy has all parameters");
                let new = Tensor::from_inner(new.reshape(old.dims()));
                Param::from_mapped_value(id, new, mapper)
            }
        }
        policy.map(&mut Write(self.networks().flat_map(FlatNetwork::each).collect()))
    }
}

/// What a second critic says, and what it says it by.
#[derive(Debug)]
pub struct SecondValues<A: OpsAutodiffBackend> {
    /// Its values `[B]`.
    pub values: Tensor<A, 1>,
    parameters: Tensor<A, 1>,
    mlp: FlatMlp,
}

impl<A: OpsAutodiffBackend> SecondValues<A> {
    /// Of features `[B, F]`.
    pub fn of(critic: &FlatNetwork<A::InnerBackend>, features: Tensor<A, 2>) -> Self {
        let parameters = Tensor::from_inner(critic.tensor()).require_grad();
        let values = flat_mlp_column(features, parameters.clone(), &critic.mlp);
        Self { values, parameters, mlp: critic.mlp.clone() }
    }

    /// The gradient of a loss of these values.
    pub fn gradient(self, loss: &Tensor<A, 1>) -> FlatGradient<A::InnerBackend> {
        let gradient = self.parameters.grad_remove(&mut loss.backward()).expect("a loss of these values");
        FlatGradient::new(gradient.into_primitive().tensor(), &self.mlp)
    }
}

fn value<B: OpsBackend>(critic: &FlatNetwork<B>, observation: &Observation<B>) -> Tensor<B, 1> {
    flat_mlp_column(observation.features.clone(), critic.tensor(), &critic.mlp)
}

/// A policy as a rollout uses it.
pub enum Acting<'a, B: OpsBackend> {
    /// One that consists of MLPs alone.
    Flat(FlatPolicy<B>),
    /// Any other.
    Whole(&'a ActorCritic<B>),
}

impl<'a, B: OpsBackend> Acting<'a, B> {
    /// The faster form of `policy`, with the same bits.
    pub fn new(policy: &'a ActorCritic<B>) -> Self {
        policy.flat().map_or(Self::Whole(policy), Self::Flat)
    }

    /// [`ActorCritic::draw`].
    pub fn draw(
        &self,
        routing: Routing,
        rows: usize,
        rng: &mut impl Rng,
        device: &B::Device,
    ) -> Option<Tensor<B, 2>> {
        match self {
            Self::Flat(_) => None,
            Self::Whole(policy) => policy.draw(routing, rows, rng, device),
        }
    }

    /// What [`ActorCritic::act`] says of a step.
    pub fn act(&self, observation: &Observation<B>, input: RoutingInput<B>) -> Acted<B> {
        match self {
            Self::Flat(policy) => Acted { logits: policy.logits(observation), values: None, gates: None },
            Self::Whole(policy) => {
                let Evaluation { logits, values, second_values, gates, .. } = policy.act(observation, input);
                let values = Values { first: values, second: second_values };
                Acted { logits, values: Some(values), gates }
            }
        }
    }

    /// What [`ActorCritic::values`] gives, bit for bit.
    pub fn values(&self, observation: &Observation<B>) -> Tensor<B, 1> {
        match self {
            Self::Flat(policy) => policy.values(observation).bootstrap(),
            Self::Whole(policy) => policy.values(observation),
        }
    }
}

/// What a policy says of a step.
pub struct Acted<B: OpsBackend> {
    /// Action logits before the mask `[B, A]`.
    pub logits: Tensor<B, 2>,
    /// The values; `None` from a policy whose critics share nothing with its actor, so that they are faster
    /// on many steps at once.
    pub values: Option<Values<B>>,
    /// What the router decided, if there is one.
    pub gates: Option<Gates<B>>,
}

/// Values of each critic `[B]`.
pub struct Values<B: OpsBackend> {
    /// The first critic's.
    pub first: Tensor<B, 1>,
    /// The second one's, if there is one.
    pub second: Option<Tensor<B, 1>>,
}

impl<B: OpsBackend> Values<B> {
    /// The values that bootstrap: of two critics, the smaller.
    pub fn bootstrap(self) -> Tensor<B, 1> {
        match self.second {
            None => self.first,
            Some(second) => smaller(self.first, second),
        }
    }
}
