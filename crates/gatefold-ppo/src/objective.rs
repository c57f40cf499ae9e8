//! The whole loss of one minibatch: PPO's, and the auxiliary losses that the plan weighs.

use burn::tensor::{Int, Tensor, TensorData, backend::AutodiffBackend, backend::Backend};
use gatefold_curriculum::Plan;
use gatefold_monitor::{MeanAccumulator, Metrics, names};
use gatefold_ops::{OpsAutodiffBackend, PpoLossConfig, ppo_stats, probe};
use gatefold_policy::{ActorCritic, Evaluation, Observation};

use crate::collect::to_host;
use crate::losses::{self, ExpertCosines, ExpertOperators};
use crate::minibatch::Minibatch;
use crate::{Learner, LoadBalance, PetTarget, ValueLoss};

/// What turns an evaluation into a loss, under one plan.
pub(crate) struct Objective<'a, B: Backend> {
    pub(crate) learner: &'a Learner,
    pub(crate) plan: &'a Plan,
    pub(crate) device: &'a B::Device,
    operators: Option<ExpertOperators<B>>,
    readout: Option<Tensor<B, 1, Int>>,
}

/// The terms of a loss, summed up.
pub(crate) struct Terms<B: Backend> {
    /// What of the loss is left to find a gradient of `[1]`.
    pub(crate) loss: Option<Tensor<B, 1>>,
    /// The part of it whose gradients are known.
    known: f32,
    /// Statistics of the PPO loss, see [`ppo_stats`].
    pub(crate) ppo: [f32; ppo_stats::COUNT],
    /// The auxiliary terms, before their coefficients.
    pub(crate) auxiliary: Vec<(&'static str, f64)>,
}

impl<B: Backend> Terms<B> {
    /// Of a PPO loss `[1]` and its statistics.
    fn new(loss: Tensor<B, 1>, stats: Tensor<B, 1>) -> Self {
        let ppo = to_host(stats).try_into().expect("statistics of a PPO loss");
        Self { loss: Some(probe::tensor("loss/ppo", loss)), known: 0.0, ppo, auxiliary: Vec::new() }
    }

    /// Of a PPO loss whose gradients are known.
    pub(crate) fn known(mut loss: f32, ppo: [f32; ppo_stats::COUNT]) -> Self {
        probe::slice("loss/ppo", std::slice::from_mut(&mut loss), 1);
        Self { loss: None, known: loss, ppo, auxiliary: Vec::new() }
    }

    /// The whole loss.
    pub(crate) fn value(&self) -> f64 {
        f64::from(self.known + self.loss.as_ref().map_or(0.0, |loss| to_host(loss.clone())[0]))
    }

    fn add(&mut self, name: &'static str, coefficient: f32, term: Tensor<B, 1>) {
        let term = probe::tensor(name, term);
        self.auxiliary.push((name, f64::from(to_host(term.clone())[0])));
        self.add_weighed(term * coefficient);
    }

    fn add_weighed(&mut self, term: Tensor<B, 1>) {
        self.loss = Some(match self.loss.take() {
            Some(loss) => loss + term,
            None => term,
        });
    }

    /// Adds the auxiliary terms to the update's means.
    pub(crate) fn report(&self, means: &mut MeanAccumulator, count: u64) {
        for &(name, value) in &self.auxiliary {
            means.add(name, value, count);
        }
    }

    /// The first term that is not finite.
    pub(crate) fn first_non_finite(&self) -> Option<(&'static str, f64)> {
        let ppo = [
            (names::TRAIN_POLICY_LOSS, ppo_stats::POLICY_LOSS),
            (names::TRAIN_VALUE_LOSS, ppo_stats::VALUE_LOSS),
            (names::TRAIN_ENTROPY, ppo_stats::ENTROPY),
        ];
        let ppo = ppo.map(|(name, index)| (name, f64::from(self.ppo[index])));
        ppo.into_iter().chain(self.auxiliary.iter().copied()).find(|(_, value)| !value.is_finite())
    }
}

impl<'a, B: OpsAutodiffBackend> Objective<'a, B> {
    pub(crate) fn new(learner: &'a Learner, plan: &'a Plan, device: &'a B::Device) -> Self {
        let graph = learner.spec.graph.as_deref();
        let num_experts = learner.experts.len();
        let expert_of: Vec<Option<usize>> = graph.map_or_else(Vec::new, |graph| {
            let affinity = |node: usize| graph.node(node).expert.as_deref();
            let index = |name: &str| learner.experts.iter().position(|expert| expert == name);
            graph.readout_nodes().into_iter().map(|node| affinity(node).and_then(index)).collect()
        });
        let readout = graph.map(|graph| {
            let nodes: Vec<i32> = graph.readout_nodes().into_iter().map(|node| node as i32).collect();
            let count = nodes.len();
            Tensor::from_data(TensorData::new(nodes, [count]), device)
        });
        // With one such expert the target would be the same in every state: an order to collapse.
        let mut aligned: Vec<usize> = expert_of.iter().copied().flatten().collect();
        aligned.sort_unstable();
        aligned.dedup();
        let operators = (aligned.len() >= 2).then(|| ExpertOperators::new(&expert_of, num_experts, device));
        Self { learner, plan, device, operators: operators.flatten(), readout }
    }

    /// Rows on which all experts have to be evaluated.
    pub(crate) fn compared_rows(&self) -> usize {
        let c = &self.plan.coefficients;
        let compares =
            self.compares_experts() && (c.diversity != 0.0 || c.semantic != 0.0 || c.overlap != 0.0);
        if compares { self.learner.losses.compared_rows } else { 0 }
    }

    /// Rows on which graph attention has to have a gradient.
    pub(crate) fn attended_rows(&self, policy: &ActorCritic<B>) -> usize {
        let looks = self.plan.coefficients.attention_gini != 0.0 && policy.learns_graph();
        if looks { self.learner.losses.compared_rows } else { 0 }
    }

    /// Whether a loss looks at the actor's encoding of the observation.
    pub(crate) fn reads_encoding(&self) -> bool {
        self.plan.coefficients.pet != 0.0 && self.learner.losses.pet_on == PetTarget::HObs
    }

    /// Whether comparing experts makes sense: with two actions centred logits are always collinear.
    fn compares_experts(&self) -> bool {
        self.learner.experts.len() >= 2 && self.learner.spec.num_actions() > 2
    }

    /// Whether a loss beside PPO's looks at the first critic's values.
    pub(crate) fn reads_values(&self) -> bool {
        self.learner.ppo.value_loss == ValueLoss::Huber
    }

    /// The settings of the PPO loss.
    pub(crate) fn ppo(&self) -> PpoLossConfig {
        let ppo = &self.learner.ppo;
        PpoLossConfig {
            clip: ppo.clip,
            value_clip: (ppo.value_clip > 0.0).then_some(ppo.value_clip),
            // The operation's value loss has a factor 1/2; ours is a weight of the mean square.
            value_coef: if self.reads_values() { 0.0 } else { 2.0 * ppo.value_coef },
            entropy_coef: self.plan.coefficients.entropy,
        }
    }

    /// The loss of a minibatch, of which the PPO loss and its statistics are there already.
    pub(crate) fn terms(
        &self,
        [loss, stats]: [Tensor<B, 1>; 2],
        evaluation: &Evaluation<B>,
        observation: &Observation<B>,
        returns: Tensor<B, 1>,
        minibatch: &Minibatch,
    ) -> Terms<B> {
        let c = &self.plan.coefficients;
        let mut terms = Terms::new(loss, stats);
        if self.reads_values() {
            let term = huber_loss(evaluation.values.clone() - returns.clone());
            terms.ppo[ppo_stats::VALUE_LOSS] = to_host(term.clone())[0];
            terms.add_weighed(term * (2.0 * self.learner.ppo.value_coef));
        }
        if let Some(second) = &evaluation.second_values {
            self.add_second_critic(&mut terms, second.clone(), returns);
        }
        self.add_routing(&mut terms, evaluation);
        self.add_comparisons(&mut terms, evaluation, observation);
        self.add_in_time(&mut terms, evaluation, observation, minibatch);
        if let Some(ginis) = ginis(evaluation, Tensor::clone) {
            let term = losses::attention_gini_loss(ginis).mean();
            terms.add(names::LOSSES_ATTENTION_GINI, c.attention_gini, term);
        }
        terms
    }

    /// Adds the loss of the second critic's values.
    pub(crate) fn add_second_critic(
        &self,
        terms: &mut Terms<B>,
        values: Tensor<B, 1>,
        returns: Tensor<B, 1>,
    ) {
        let errors = values - returns;
        let term = if self.reads_values() { huber_loss(errors) } else { errors.square().mean() * 0.5 };
        terms.add(names::TRAIN_SECOND_VALUE_LOSS, 2.0 * self.learner.ppo.value_coef, term);
    }

    fn add_routing(&self, terms: &mut Terms<B>, evaluation: &Evaluation<B>) {
        let c = &self.plan.coefficients;
        let Some(gates) = &evaluation.gates else { return };
        let probabilities = || gates.probabilities.clone();
        let balance = match self.learner.losses.load_balance {
            LoadBalance::Bias => None,
            LoadBalance::Mse if c.load_balance != 0.0 => Some(losses::load_balance_mse(probabilities())),
            LoadBalance::Switch if c.load_balance != 0.0 => {
                Some(losses::load_balance_switch(probabilities(), gates.alpha.clone()))
            }
            _ => None,
        };
        if let Some(term) = balance {
            terms.add(names::LOSSES_LOAD_BALANCE, c.load_balance, term);
        }
        if c.gate_entropy != 0.0 {
            let term = losses::gate_entropy(gates.alpha.clone());
            terms.add(names::LOSSES_GATE_ENTROPY, -c.gate_entropy, term);
        }
        if c.importance != 0.0 {
            terms.add(names::LOSSES_IMPORTANCE, c.importance, losses::importance(probabilities()));
        }
        if c.router_z != 0.0 {
            terms.add(names::LOSSES_ROUTER_Z, c.router_z, losses::router_z(gates.logits.clone()));
        }
        if let (Some(operators), Some(graph)) = (&self.operators, &evaluation.graph)
            && c.alignment != 0.0
        {
            let target = operators.target(graph.scores.clone(), self.learner.losses.alignment_temperature);
            let term = losses::alignment(target, gates.logits.clone(), self.plan.temperature);
            terms.add(names::LOSSES_ALIGNMENT, c.alignment, term);
        }
    }

    fn add_comparisons(
        &self,
        terms: &mut Terms<B>,
        evaluation: &Evaluation<B>,
        observation: &Observation<B>,
    ) {
        let c = &self.plan.coefficients;
        let (Some(logits), Some(gates)) = (&evaluation.expert_logits, &evaluation.gates) else { return };
        // Rows, or segments, of a minibatch are shuffled, so the first ones are a fair sample.
        let [rows, _, _] = logits.dims();
        let mask = observation.mask.clone().map(|mask| mask.narrow(0, 0, rows));
        let cosines = ExpertCosines::new(logits.clone(), mask);
        if c.diversity != 0.0 {
            terms.add(names::LOSSES_DIVERSITY, c.diversity, cosines.diversity());
        }
        if c.semantic != 0.0 {
            terms.add(names::LOSSES_SEMANTIC, c.semantic, cosines.semantic_orthogonality());
        }
        if c.overlap != 0.0 {
            let alpha = gates.alpha.clone().narrow(0, 0, rows);
            terms.add(names::LOSSES_OVERLAP, c.overlap, cosines.overlap(alpha));
        }
    }

    fn add_in_time(
        &self,
        terms: &mut Terms<B>,
        evaluation: &Evaluation<B>,
        observation: &Observation<B>,
        minibatch: &Minibatch,
    ) {
        let c = &self.plan.coefficients;
        if let Some(gates) = &evaluation.gates
            && c.temporal != 0.0
        {
            let term = losses::temporal(gates.alpha.clone(), &minibatch.pairs);
            terms.add(names::LOSSES_TEMPORAL, c.temporal, term);
        }
        if let (Some(logits), Some(activations), Some(readout)) =
            (&evaluation.next_operator, &observation.activations, &self.readout)
            && c.next_operator != 0.0
        {
            let activations = activations.clone().select(1, readout.clone());
            let term = losses::next_operator(logits.clone(), activations, &minibatch.pairs);
            terms.add(names::LOSSES_NEXT_OPERATOR, c.next_operator, term);
        }
        let moved = match self.learner.losses.pet_on {
            PetTarget::HObs => evaluation.h_obs.clone(),
            PetTarget::Gates => evaluation.gates.as_ref().map(|gates| gates.alpha.clone()),
        };
        if let Some(moved) = moved.filter(|_| c.pet != 0.0) {
            let huber = Some(self.learner.losses.pet_huber).filter(|&limit| limit > 0.0);
            terms.add(names::LOSSES_PET, c.pet, losses::pet(moved, &minibatch.triples, huber));
        }
    }

    /// What the losses say beside their values; reads back from the device, so once per update.
    pub(crate) fn statistics(
        &self,
        evaluation: &Evaluation<B>,
        observation: &Observation<B>,
        minibatch: &Minibatch,
    ) -> Metrics {
        let c = &self.plan.coefficients;
        let mut metrics = Metrics::new();
        let mut set = |loss, what, value| metrics.set(names::loss_statistic(loss, what), value);
        if let Some(ginis) = ginis(evaluation, |weights| weights.clone().inner()) {
            set(names::LOSSES_ATTENTION_GINI, "value", f64::from(to_host(ginis.mean())[0]));
        }
        let Some(gates) = &evaluation.gates else { return metrics };
        let balance = losses::balance_statistics(&gates.probabilities);
        set(names::LOSSES_LOAD_BALANCE, "most_used", balance.most_used);
        set(names::LOSSES_LOAD_BALANCE, "least_used", balance.least_used);
        if c.router_z != 0.0 {
            set(names::LOSSES_ROUTER_Z, "largest", losses::largest_logsumexp(&gates.logits));
        }
        if let (Some(operators), Some(graph)) = (&self.operators, &evaluation.graph)
            && c.alignment != 0.0
        {
            let target = operators.target(graph.scores.clone(), self.learner.losses.alignment_temperature);
            let statistics = losses::alignment_statistics(&target, &gates.logits);
            set(names::LOSSES_ALIGNMENT, "target_entropy", statistics.target_entropy);
            set(names::LOSSES_ALIGNMENT, "agreement", statistics.agreement);
        }
        if let Some(logits) = &evaluation.expert_logits {
            let [rows, _, _] = logits.dims();
            let mask = observation.mask.clone().map(|mask| mask.narrow(0, 0, rows));
            let cosines = ExpertCosines::new(logits.clone(), mask).statistics();
            set(names::LOSSES_DIVERSITY, "least_cosine", cosines.min);
            set(names::LOSSES_DIVERSITY, "largest_cosine", cosines.max);
        }
        if let Some(switches) = losses::expert_switches(&gates.alpha, &minibatch.pairs) {
            set(names::LOSSES_TEMPORAL, "switches", switches);
        }
        metrics
    }
}

/// The Gini coefficient of each layer's attention `[L]`, where that is wanted and of the layers that have
/// nodes with a choice.
fn ginis<B: Backend, C: Backend>(
    evaluation: &Evaluation<B>,
    weights: impl Fn(&Tensor<B, 3>) -> Tensor<C, 3>,
) -> Option<Tensor<C, 1>> {
    let layers = evaluation.graph.as_ref()?.attended.iter();
    let each: Vec<_> = layers
        .filter_map(|layer| losses::attention_gini(weights(&layer.weights), layer.edges.offsets()))
        .collect();
    (!each.is_empty()).then(|| Tensor::cat(each, 0))
}

/// `mean(|e| <= 1 ? e^2 / 2 : |e| - 1/2)`.
fn huber_loss<B: AutodiffBackend>(errors: Tensor<B, 1>) -> Tensor<B, 1> {
    let near = errors.clone().clamp(-1.0, 1.0);
    (near.clone().detach() * (errors - near.detach() * 0.5)).mean()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};

    #[test]
    fn huber_is_quadratic_near_zero_and_linear_beyond_in_value_and_gradient() {
        let data = TensorData::new(vec![0.5f32, -3.0], [2]);
        let errors = Tensor::<Autodiff<Flex>, 1>::from_data(data, &Default::default()).require_grad();
        let loss = huber_loss(errors.clone());
        assert_eq!(loss.clone().into_scalar(), (0.125 + 2.5) / 2.0);
        let grads = loss.backward();
        let grad = errors.grad(&grads).unwrap().into_data().to_vec::<f32>().unwrap();
        assert_eq!(grad, [0.25, -0.5], "d/de = clamp(e, -1, 1) / 2");
    }
}
