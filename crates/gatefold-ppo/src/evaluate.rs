//! What a minibatch says: its loss, and what a step down it needs.

use burn::tensor::Tensor;
use gatefold_env::StreamRng;
use gatefold_monitor::Metrics;
use gatefold_ops::{FlatGradient, OpsAutodiffBackend, OpsBackend, first_non_finite, ppo_loss};
use gatefold_policy::{Evaluation, Observation, RoutingInput, SecondValues, Wanted};

use crate::minibatch::{Minibatch, Place};
use crate::objective::{Objective, Terms};
use crate::student::{Flat, Student, join_parameters};
use crate::update::non_finite;
use crate::{Batch, UpdateError};

/// An evaluated minibatch.
pub(crate) struct Evaluated<B: OpsAutodiffBackend> {
    pub(crate) terms: Terms<B>,
    /// The loss as a number.
    pub(crate) value: f64,
    /// What the losses say beside their values, if it is wanted.
    pub(crate) statistics: Option<Metrics>,
    /// Of the faster form of a policy, what it gives beside the loss.
    pub(crate) known: Option<Known<B>>,
}

/// Gradients of the PPO loss, and the second critic, if there is one, whose gradient is still to be found.
pub(crate) struct Known<B: OpsAutodiffBackend> {
    pub(crate) gradients: [FlatGradient<B::InnerBackend>; 2],
    pub(crate) second: Option<SecondValues<B>>,
}

/// Evaluates a minibatch; with `statistics` if they are wanted. Fails if the loss or a raw logit is not finite.
pub(crate) fn evaluate<B: OpsAutodiffBackend>(
    student: &mut Student<'_, B>,
    objective: &Objective<'_, B>,
    batch: &Batch,
    minibatch: &mut Minibatch,
    dropout: &mut StreamRng,
    statistics: bool,
) -> Result<Evaluated<B>, UpdateError> {
    let Some(flat) = &mut student.flat else {
        return evaluate_whole(student, objective, minibatch, dropout, statistics);
    };
    let (terms, known, bad_logit) = evaluate_flat(flat, objective, minibatch);
    let value = terms.value();
    if value.is_finite() && bad_logit.is_none() {
        // Without a router nothing but the loss says anything.
        return Ok(Evaluated { terms, value, statistics: statistics.then(Metrics::new), known: Some(known) });
    }
    let Objective { plan, learner, device, .. } = *objective;
    let (observation, ..) = minibatch.gather(batch).tensors(&learner.spec, device);
    let input = RoutingInput::new(plan.routing, plan.temperature);
    let evaluation = student.policy().evaluate_with(&observation, input, &Wanted::nothing());
    Err(first_fault(&minibatch.at, student, &observation, &evaluation, &terms))
}

/// The loss, its gradients, and the first raw logit that is not finite.
fn evaluate_flat<B: OpsAutodiffBackend>(
    Flat { policy, moments, data }: &mut Flat<B::InnerBackend>,
    objective: &Objective<'_, B>,
    minibatch: &mut Minibatch,
) -> (Terms<B>, Known<B>, Option<f32>) {
    let mut due = moments.take_due();
    let steps = std::array::from_fn(|_| due.next().flatten());
    let seen = policy.ppo_loss::<B>(data, &minibatch.ppo_rows(), &objective.ppo(), steps);
    let mut terms = Terms::known(seen.loss, seen.stats);
    let second = policy.second_critic_mut().map(|critic| {
        due.next().flatten().into_iter().for_each(|step| step.take(&mut critic.parameters));
        let gathered = minibatch.gathered.take().expect("data of a minibatch");
        let (observation, _, data) = gathered.tensors::<B>(&objective.learner.spec, objective.device);
        let second = SecondValues::of(critic, observation.features);
        objective.add_second_critic(&mut terms, second.values.clone(), data.returns);
        second
    });
    (terms, Known { gradients: seen.gradients, second }, seen.bad_logit)
}

fn evaluate_whole<B: OpsAutodiffBackend>(
    student: &Student<'_, B>,
    objective: &Objective<'_, B>,
    minibatch: &mut Minibatch,
    dropout: &mut StreamRng,
    statistics: bool,
) -> Result<Evaluated<B>, UpdateError> {
    let Objective { plan, learner, device, .. } = *objective;
    let gathered = minibatch.gathered.take().expect("data of a minibatch");
    let (observation, drawn, data) = gathered.tensors::<B>(&learner.spec, device);
    let input = RoutingInput::new(plan.routing, plan.temperature).with_drawn(drawn);
    let policy = student.shape();
    let wanted = Wanted {
        predicted: plan.coefficients.next_operator != 0.0,
        compared: objective.compared_rows(),
        attended: objective.attended_rows(policy),
        dropped: policy.draw_graph(minibatch.at.rows.len(), dropout, device),
    };
    join_parameters(policy);
    let evaluation = policy.evaluate_with(&observation, input, &wanted);
    let (logits, values, returns) =
        (evaluation.logits.clone(), evaluation.values.clone(), data.returns.clone());
    let ppo = ppo_loss(logits, values, data, &objective.ppo()).into();
    let terms = objective.terms(ppo, &evaluation, &observation, returns, minibatch);
    let value = terms.value();
    let all_finite = value.is_finite()
        && first_bad(&evaluation.logits).is_none()
        && evaluation.expert_logits.as_ref().and_then(first_bad).is_none();
    if !all_finite {
        return Err(first_fault(&minibatch.at, student, &observation, &evaluation, &terms));
    }
    let statistics = statistics.then(|| objective.statistics(&evaluation, &observation, minibatch));
    Ok(Evaluated { terms, value, statistics, known: None })
}

fn first_bad<B: OpsBackend, const D: usize>(t: &Tensor<B, D>) -> Option<f64> {
    first_non_finite(t).map(f64::from)
}

/// The first tensor that is not finite, or term of the loss.
///
/// Logits are looked at before the mask, which would hide a NaN of a forbidden action.
fn first_fault<B: OpsAutodiffBackend>(
    at: &Place,
    student: &Student<'_, B>,
    observation: &Observation<B>,
    evaluation: &Evaluation<B>,
    terms: &Terms<B>,
) -> UpdateError {
    let gates = evaluation.gates.as_ref();
    let h_obs = evaluation.h_obs.clone();
    let h_obs = h_obs.unwrap_or_else(|| student.policy().encode_observation(observation));
    let tensors = [
        ("h_graph", evaluation.graph.as_ref().and_then(|graph| first_bad(&graph.graph))),
        ("h_obs", first_bad(&h_obs)),
        ("the router's logits", gates.and_then(|gates| first_bad(&gates.logits))),
        ("the gates", gates.and_then(|gates| first_bad(&gates.alpha))),
        ("the experts' logits", evaluation.expert_logits.as_ref().and_then(first_bad)),
        ("the action logits", first_bad(&evaluation.logits)),
        ("the critic's values", first_bad(&evaluation.values)),
    ];
    let tensor = tensors.into_iter().find_map(|(what, value)| Some((what, value?)));
    let (what, value) =
        tensor.or_else(|| terms.first_non_finite()).unwrap_or_else(|| ("the loss", terms.value()));
    non_finite(at, what, value)
}
