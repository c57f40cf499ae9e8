//! What learning changes, as one thing: kept while it is healthy, put back when it is not.

use gatefold_curriculum::Routing;
use gatefold_curriculum::{Ladder, Moment, Plan, Progress, experts_kept};
use gatefold_env::{Purpose, stream};
use gatefold_ops::OpsAutodiffBackend;
use gatefold_optim::{self as optim, AdamW, NamedTensor};
use gatefold_policy::{ActorCritic, Architecture, ObservationScaling, Shape, Transplant};
use gatefold_ppo::RewardScaler;
use serde::{Deserialize, Serialize};

use crate::RunError;
use crate::assembly::Parts;

/// The learned state after an iteration.
#[derive(Debug, Clone)]
pub(crate) struct Learned<B: OpsAutodiffBackend> {
    pub(crate) policy: ActorCritic<B>,
    pub(crate) optimizer: AdamW<B::InnerBackend>,
    pub(crate) rest: LearnedState,
}

/// The learned state beside tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LearnedState {
    /// When it was learned.
    pub(crate) iteration: u64,
    pub(crate) env_step: u64,
    pub(crate) rewards: RewardScaler,
    pub(crate) scaling: Option<ObservationScaling>,
    /// Added where top-k selects, one for each configured expert; empty without balance by bias.
    pub(crate) selection_bias: Vec<f32>,
    pub(crate) shape: Shape,
}

/// What a rung of the ladder took from the policy, for the way back.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parked {
    /// The shape that it was taken from.
    pub(crate) from: Shape,
    pub(crate) tensors: Vec<NamedTensor>,
}

impl<B: OpsAutodiffBackend> Parts<B> {
    /// The learned state as it is. Tensors are shared, so it costs nothing until they change.
    pub(crate) fn learned(&self, at: Moment) -> Learned<B> {
        Learned {
            policy: self.policy().clone(),
            optimizer: self.optimizer.clone(),
            rest: LearnedState {
                iteration: at.iteration,
                env_step: at.env_step,
                rewards: self.rewards.clone(),
                scaling: self.collector.scaling().cloned(),
                selection_bias: self.selection_bias.clone(),
                shape: self.shape.clone(),
            },
        }
    }

    /// Returns to a learned state.
    pub(crate) fn put_back(&mut self, learned: &Learned<B>) {
        self.policy = Some(learned.policy.clone());
        self.optimizer = learned.optimizer.clone();
        self.put_back_state(&learned.rest);
    }

    /// Returns to what a learned state holds beside tensors.
    pub(crate) fn put_back_state(&mut self, rest: &LearnedState) {
        self.rewards = rest.rewards.clone();
        self.collector.set_scaling(rest.scaling.clone());
        self.selection_bias = rest.selection_bias.clone();
        self.take_shape(rest.shape.clone());
    }

    /// The plan of the iteration at `progress`: the curriculum's, as far as the ladder and the
    /// architecture leave it.
    pub(crate) fn plan(&mut self, progress: Progress) -> Plan {
        let plan = self.curriculum.plan(progress);
        self.limit(plan)
    }

    /// What the ladder and the architecture leave of a plan.
    pub(crate) fn limit(&self, mut plan: Plan) -> Plan {
        if self.config.policy.architecture == Architecture::V2 && plan.routing.learns() {
            plan.routing = Routing::Gumbel;
        }
        let mut plan = self.ladder.limit(plan);
        if plan.routing == Routing::Gumbel {
            // Gates are noise then: these losses would punish what was drawn.
            let c = &mut plan.coefficients;
            (c.gate_entropy, c.overlap, c.temporal) = (0.0, 0.0, 0.0);
        }
        plan
    }

    /// A newly made policy of a shape, with an optimizer for it.
    pub(crate) fn build(
        &self,
        shape: &Shape,
        device: &B::Device,
    ) -> Result<(ActorCritic<B>, AdamW<B::InnerBackend>), RunError> {
        let config = shape.apply(&self.config.policy);
        // A stream of its own: what is fresh in this shape must not repeat the first weights.
        let mut rng =
            stream(self.config.run.seed, Purpose::Initialisation, 1 + self.ladder.rung().index() as u64);
        let policy = ActorCritic::<B>::new(&config, &self.learner.spec, &mut rng, device);
        let policy =
            policy.map_err(|e| RunError::Stopped(e.to_string()))?.with_graph_frozen(shape.graph_frozen);
        let optimizer = AdamW::new::<B, _>(self.config.optimizer.clone(), &policy);
        Ok((policy, optimizer))
    }

    /// The shape that the ladder's rung asks for. `usage` is each configured expert's mean gate.
    pub(crate) fn shape_of_rung(&self, usage: &[f64]) -> Shape {
        let ladder: &Ladder = &self.ladder;
        let kept = || {
            let names = &self.config.policy.experts;
            let even = vec![1.0 / names.len() as f64; names.len()];
            let usage = if usage.len() == names.len() { usage } else { &even };
            experts_kept(names, usage).to_vec()
        };
        Shape {
            graph_frozen: ladder.freezes_gat(),
            kept: ladder.fewer_experts().then(|| self.shape.kept.clone().unwrap_or_else(kept)),
            routes_anew: ladder.v2_routing(),
        }
    }

    /// Gives the policy another shape; what both shapes have keeps its values.
    ///
    /// What several rungs took, one after the other, comes back in the same steps.
    pub(crate) fn reshape(&mut self, to: Shape, device: &B::Device) -> Result<(), RunError> {
        if let Some(goal) = self.parked.iter().position(|parked| parked.from.has_parts_of(&to)) {
            while self.parked.len() > goal + 1 {
                let last = self.parked.last().expect("more than the goal");
                self.reshape_once(Shape { graph_frozen: to.graph_frozen, ..last.from.clone() }, device)?;
            }
        }
        self.reshape_once(to, device)
    }

    fn reshape_once(&mut self, to: Shape, device: &B::Device) -> Result<(), RunError> {
        if to == self.shape {
            return Ok(());
        }
        let (fresh, mut optimizer) = self.build(&to, device)?;
        let none = Vec::new();
        let parked = self.parked.last().map_or(&none, |parked| &parked.tensors);
        let parameters = Transplant {
            from: &self.shape,
            to: &to,
            current: &optim::export::<B, _>(self.policy()),
            fresh: &optim::export::<B, _>(&fresh),
            parked,
        };
        let moments = Transplant {
            current: &self.optimizer.export(),
            fresh: &optimizer.export(),
            parked: &none,
            ..parameters
        };
        let policy = optim::import::<B, _>(fresh, &parameters.perform());
        let policy = policy.expect("a transplant has the tensors of the new shape");
        optimizer.import(&moments.perform()).expect("a transplant has the moments of the new shape");
        let removed = parameters.parked();
        if self.parked.last().is_some_and(|parked| parked.from.has_parts_of(&to)) {
            self.parked.pop();
        } else if !removed.is_empty() {
            self.parked.push(Parked { from: self.shape.clone(), tensors: removed });
        }
        self.policy = Some(policy);
        self.optimizer = optimizer;
        self.take_shape(to);
        Ok(())
    }

    /// Notes the policy's shape where names of experts are needed.
    fn take_shape(&mut self, shape: Shape) {
        if self.config.policy.has_experts() {
            self.learner.experts = shape.apply(&self.config.policy).experts;
        }
        self.shape = shape;
    }
}
