//! The policy and its optimizer while they learn.

use burn::module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, backend::Backend, ops::FloatTensor};
use gatefold_env::EnvSpec;
use gatefold_ops::{OpsAutodiffBackend, OpsBackend, PpoData, in_one_graph};
use gatefold_optim::{AdamW, FlatMoments, Gradients, Step};
use gatefold_policy::{ActorCritic, FlatPolicy};

use crate::{Batch, evaluate::Known, minibatch::Gathered};

const THERE: &str = "a student has its policy between steps";

/// A policy that consists of MLPs alone, as a few tensors, what its optimizer remembers, and what it learns from.
pub(crate) struct Flat<B: OpsBackend> {
    pub(crate) policy: FlatPolicy<B>,
    pub(crate) moments: FlatMoments<B>,
    pub(crate) data: PpoData<B>,
}

/// A policy that is being improved: as a module, or, where it consists of MLPs alone, as a few tensors. The
/// bits are the same.
pub(crate) struct Student<'a, B: OpsAutodiffBackend> {
    /// With the parameters of the beginning where `flat` has the present ones.
    policy: Option<ActorCritic<B>>, // `None` within a step
    pub(crate) optimizer: &'a mut AdamW<B::InnerBackend>,
    pub(crate) flat: Option<Flat<B::InnerBackend>>,
}

impl<'a, B: OpsAutodiffBackend> Student<'a, B> {
    /// `flat` is whether it may take the faster form, in which nobody sees single tensors, `h_obs` or a
    /// gradient of the first critic's values.
    pub(crate) fn new(
        policy: ActorCritic<B>,
        optimizer: &'a mut AdamW<B::InnerBackend>,
        flat: bool,
        batch: &Batch,
        spec: &EnvSpec,
        device: &B::Device,
    ) -> Self {
        let flat = flat.then(|| policy.valid().flat()).flatten().and_then(|flat| {
            let groups = flat.networks().map(|network| network.ids());
            let moments = optimizer.flat::<B, _>(&policy, groups)?;
            let (observation, _, recorded) = Gathered::all(batch).tensors(spec, device);
            Some(Flat { policy: flat, moments, data: PpoData::new(observation.features, recorded) })
        });
        let policy = if flat.is_some() { policy } else { tracked(policy) };
        Self { policy: Some(policy), optimizer, flat }
    }

    /// Whether it reads a minibatch's data in the minibatch's order.
    pub(crate) fn reads_gathered(&self) -> bool {
        self.flat.as_ref().is_none_or(|flat| flat.policy.has_second_critic())
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

    /// One optimizer step down the gradients that are known and the gradient of `loss`; in the faster form, parameters
    /// take it when they are read next.
    pub(crate) fn learn(
        &mut self,
        loss: Option<Tensor<B, 1>>,
        known: Option<Known<B>>,
        lr: f64,
        max_norm: f32,
    ) -> Step {
        if let Some(Flat { moments, .. }) = &mut self.flat {
            let known = known.expect("the faster form gives it");
            let second = known.second.map(|second| second.gradient(&loss.expect("a loss of its values")));
            let grads = known.gradients.into_iter().chain(second);
            return self.optimizer.step_flat(moments, grads, lr, max_norm);
        }
        let loss = loss.expect("no gradient is known");
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
        let Some(mut flat) = flat else { return (policy, optimizer) };
        for (network, step) in flat.policy.networks_mut().zip(flat.moments.take_due()) {
            step.into_iter().for_each(|step| step.take(&mut network.parameters));
        }
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
pub(crate) fn join_parameters<B: OpsAutodiffBackend>(policy: &ActorCritic<B>) {
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
