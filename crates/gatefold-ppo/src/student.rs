//! The policy and its optimizer while they learn.

use burn::module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, backend::Backend, ops::FloatTensor};
use gatefold_ops::{OpsAutodiffBackend, OpsBackend, PpoBatch, PpoLossConfig, in_one_graph, ppo_loss};
use gatefold_optim::{AdamW, FlatMoments, Gradients, Step};
use gatefold_policy::{
    ActorCritic, Evaluation, FlatGradients, FlatPolicy, Observation, RoutingInput, Wanted,
};

const THERE: &str = "a student has its policy between steps";

/// A policy that consists of MLPs alone, as a few tensors, and what its optimizer remembers.
struct Flat<B: OpsBackend> {
    policy: FlatPolicy<B>,
    moments: FlatMoments<B>,
}

/// A policy that is being improved: as a module, or, where it consists of MLPs alone, as a few tensors. The
/// bits are the same.
pub(crate) struct Student<'a, B: OpsAutodiffBackend> {
    /// With the parameters of the beginning where `flat` has the present ones.
    policy: Option<ActorCritic<B>>, // `None` within a step
    pub(crate) optimizer: &'a mut AdamW<B::InnerBackend>,
    flat: Option<Flat<B::InnerBackend>>,
}

impl<'a, B: OpsAutodiffBackend> Student<'a, B> {
    /// `flat` is whether it may take the faster form, in which nobody sees single tensors, `h_obs` or a
    /// gradient of the first critic's values.
    pub(crate) fn new(policy: ActorCritic<B>, optimizer: &'a mut AdamW<B::InnerBackend>, flat: bool) -> Self {
        let flat = flat.then(|| policy.valid().flat()).flatten().and_then(|flat| {
            let groups = flat.networks().map(|network| network.ids());
            let moments = optimizer.flat::<B, _>(&policy, groups)?;
            Some(Flat { policy: flat, moments })
        });
        let policy = if flat.is_some() { policy } else { tracked(policy) };
        Self { policy: Some(policy), optimizer, flat }
    }

    /// The policy, but not its present parameters.
    pub(crate) fn shape(&self) -> &ActorCritic<B> {
        self.policy.as_ref().expect(THERE)
    }

    /// The policy with its present parameters.
    pub(crate) fn policy(&self) -> ActorCritic<B> {
        let policy = self.shape().clone();
        match &self.flat {
            Some(flat) => flat.policy.write_to(policy),
            None => policy,
        }
    }

    /// Evaluates a minibatch; with its PPO loss and that one's statistics, and, in the faster form, with what
    /// [`learn`](Self::learn) wants beside the loss.
    pub(crate) fn evaluate(
        &self,
        observation: &Observation<B>,
        input: RoutingInput<B>,
        wanted: &Wanted<B>,
        batch: PpoBatch<B>,
        config: &PpoLossConfig,
    ) -> (Evaluation<B>, [Tensor<B, 1>; 2], Option<FlatGradients<B>>) {
        if let Some(flat) = &self.flat {
            let (evaluation, ppo, gradients) = flat.policy.evaluate_loss(observation, batch, config);
            return (evaluation, ppo, Some(gradients));
        }
        join_parameters(self.shape());
        let evaluation = self.shape().evaluate_with(observation, input, wanted);
        let (logits, values) = (evaluation.logits.clone(), evaluation.values.clone());
        (evaluation, ppo_loss(logits, values, batch, config).into(), None)
    }

    /// One optimizer step down the gradient of `loss`.
    pub(crate) fn learn(
        &mut self,
        loss: &Tensor<B, 1>,
        known: Option<FlatGradients<B>>,
        lr: f64,
        max_norm: f32,
    ) -> Step {
        if let Some(Flat { policy, moments }) = &mut self.flat {
            let known = known.expect("the faster form gives it");
            let parameters = policy.networks_mut().map(|network| &mut network.parameters);
            let flops = known.flops();
            return self.optimizer.step_flat(moments, parameters, known.of(loss), flops, lr, max_norm);
        }
        let policy = self.policy.take().expect(THERE);
        let grads = Gradients::of::<B, _>(&policy, loss.backward());
        #[cfg(feature = "chaos")]
        let grads = gatefold_optim::probe::gradients::<B, _>(&policy, grads);
        let (policy, step) = self.optimizer.step::<B, _>(policy, grads, lr, max_norm);
        #[cfg(feature = "chaos")]
        let policy = if step.grad_norm.is_finite() {
            self.optimizer.probe_moments();
            gatefold_optim::probe::parameters(policy)
        } else {
            policy
        };
        self.policy = Some(policy);
        step
    }

    /// The policy and the optimizer as they are now.
    pub(crate) fn finish(self) -> (ActorCritic<B>, &'a mut AdamW<B::InnerBackend>) {
        let Self { policy, optimizer, flat } = self;
        let policy = policy.expect(THERE);
        let Some(flat) = flat else { return (policy, optimizer) };
        optimizer.set_flat(flat.moments);
        (flat.policy.write_to(policy), optimizer)
    }
}

/// The policy with tracked parameters, as a backward pass needs them; those of the faster form are not.
fn tracked<B: OpsAutodiffBackend>(policy: ActorCritic<B>) -> ActorCritic<B> {
    struct Track;
    impl<B: Backend> ModuleMapper<B> for Track {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            param.map(|value| if value.is_require_grad() { value } else { value.require_grad() })
        }
    }
    policy.map(&mut Track)
}

/// Puts the parameters into one of autodiff's graphs.
fn join_parameters<B: OpsAutodiffBackend>(policy: &ActorCritic<B>) {
    struct Collect<B: Backend>(Vec<FloatTensor<B>>);
    impl<B: Backend> ModuleVisitor<B> for Collect<B> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            self.0.push(param.val().into_primitive().tensor());
        }
    }
    let mut parameters = Collect(Vec::new());
    policy.visit(&mut parameters);
    in_one_graph::<B>(&parameters.0);
}
