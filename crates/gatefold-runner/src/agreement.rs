//! What keys of different sections say about each other: what contradicts, and what has no effect.

use gatefold_curriculum::{CurriculumConfig, FixedRouting, RoutingChoice, Rung, Schedule};
use gatefold_env::EnvSpec;
use gatefold_policy::Architecture;
use gatefold_ppo::LoadBalance;

use crate::config::ExperimentConfig;

/// Fails with `[section] key = value: ...` and the other key, where two sections contradict each other.
pub(crate) fn check(config: &ExperimentConfig) -> Result<(), String> {
    let ExperimentConfig { policy, ppo, losses, curriculum, .. } = config;
    let experts = policy.experts.len();
    let architecture = name(&policy.architecture);
    if policy.has_router() && policy.architecture != Architecture::V2 && config.routes_densely() {
        return Err(format!(
            "[curriculum] routing = \"dense\": means one expert, policy.experts names {experts}; name one, or set \
             policy.architecture = \"mlp-gat\" or another routing"
        ));
    }
    let by_gumbel = matches!(curriculum.routing, RoutingChoice::Curriculum | RoutingChoice::Gumbel);
    if policy.architecture == Architecture::V2 && policy.has_router() && !by_gumbel {
        return Err(format!(
            "[curriculum] routing = {}: does not go with policy.architecture = \"v2\", which routes by Gumbel; \
             leave it out, or set policy.architecture = \"routed\"",
            name(&curriculum.routing)
        ));
    }
    let top_k = routes_by_top_k(curriculum);
    if losses.load_balance == LoadBalance::Bias && !(policy.has_router() && top_k == Some(true)) {
        let reason = match policy.has_router() {
            true => "needs curriculum.routing = \"top-k\", whose selection the bias moves".to_string(),
            false if policy.has_experts() => "needs a router, policy.experts names one".to_string(),
            false => format!("needs a router, policy.architecture = {architecture} has none"),
        };
        return Err(format!(
            "[losses] load_balance = \"bias\": {reason}; set that, or load_balance = \"mse\" or \"switch\""
        ));
    }
    if policy.has_router() && top_k.is_some() && curriculum.top_k > experts {
        return Err(format!(
            "[curriculum] top_k = {}: need 1 to {experts}, policy.experts names {experts}",
            curriculum.top_k
        ));
    }
    if curriculum.optional.next_operator > 0.0 && !policy.next_operator {
        return Err(format!(
            "[curriculum] optional.next_operator = {}: needs policy.next_operator = true, the head that predicts; \
             set it, or optional.next_operator = 0",
            curriculum.optional.next_operator
        ));
    }
    if policy.twin_critics && ppo.value_clip > 0.0 {
        return Err(format!(
            "[ppo] value_clip = {}: does not go with policy.twin_critics = true, as it would clip one of two \
             critics; set one of them to 0 or false",
            ppo.value_clip
        ));
    }
    if let Some(loss) = loss_over_time(config).filter(|_| ppo.num_steps < 3) {
        return Err(format!(
            "[ppo] num_steps = {}: need 3 or more, since {loss} compares consecutive steps; set that to 0 otherwise",
            ppo.num_steps
        ));
    }
    Ok(())
}

/// What is allowed and yet without effect, or otherwise worth knowing before a run.
pub(crate) fn warnings(config: &ExperimentConfig, spec: &EnvSpec) -> Vec<String> {
    let ExperimentConfig { policy, curriculum, .. } = config;
    let mut found = Vec::new();
    if policy.has_router() && spec.num_actions() <= 2 {
        found.push(
            "losses/diversity is off: with two actions any two experts' centred logits are collinear"
                .to_string(),
        );
    }
    if policy.has_router() && phases(curriculum).iter().any(|phase| phase.alignment > 0.0) {
        found.extend(alignment_warning(config, spec));
    }
    if policy.next_operator && curriculum.optional.next_operator == 0.0 {
        found.push(
            "policy.next_operator = true: its head learns nothing while curriculum.optional.next_operator = 0"
                .to_string(),
        );
    }
    let learns_graph = spec.graph.is_some() && policy.architecture != Architecture::Mlp;
    if learns_graph && config.ladder.start < Rung::FreezeGat {
        found.extend(policy.gat.warnings().into_iter().map(|text| format!("policy.gat.{text}")));
    }
    found
}

/// Why the alignment loss is off, if it is although a coefficient asks for it.
fn alignment_warning(config: &ExperimentConfig, spec: &EnvSpec) -> Option<String> {
    let Some(graph) = &spec.graph else {
        return Some(
            "losses/alignment is off: the environment has no graph to align the router with".to_string(),
        );
    };
    let experts = &config.policy.experts;
    let readout = graph.readout_nodes();
    let has_operators =
        |expert: &&String| readout.iter().any(|&node| graph.node(node).expert.as_ref() == Some(*expert));
    let aligned = experts.iter().filter(has_operators).count();
    (aligned < 2).then(|| {
        format!(
            "losses/alignment is off: operators of the graph `{}` name fewer than two of policy.experts ({})",
            graph.name(),
            experts.join(", ")
        )
    })
}

/// Whether every decision is made by top-k: `None` if none is, `Some(false)` if only some are.
fn routes_by_top_k(curriculum: &CurriculumConfig) -> Option<bool> {
    match (curriculum.routing, curriculum.schedule) {
        (RoutingChoice::TopK, _) => Some(true),
        (RoutingChoice::Curriculum, Schedule::Constant) => {
            (curriculum.constant.routing == FixedRouting::TopK).then_some(true)
        }
        (RoutingChoice::Curriculum, Schedule::Phases) => {
            let tables = [curriculum.warmup.routing, curriculum.fine_tune.routing];
            tables.contains(&FixedRouting::TopK).then_some(false)
        }
        _ => None,
    }
}

/// Coefficients of a phase that this file asks about.
struct PhaseCoefficients {
    table: &'static str,
    alignment: f64,
    temporal: f64,
}

/// The tables that are in force.
fn phases(curriculum: &CurriculumConfig) -> Vec<PhaseCoefficients> {
    let of = |table, alignment, temporal| PhaseCoefficients { table, alignment, temporal };
    let CurriculumConfig { warmup, transition, fine_tune, constant, .. } = curriculum;
    match curriculum.schedule {
        Schedule::Constant => vec![of("constant", constant.alignment, constant.temporal)],
        Schedule::Phases => vec![
            of("warmup", warmup.alignment, warmup.temporal),
            of("transition", transition.alignment, transition.temporal),
            of("fine_tune", fine_tune.alignment, fine_tune.temporal),
        ],
    }
}

/// The first loss in force that looks at several steps, as `key = value`.
fn loss_over_time(config: &ExperimentConfig) -> Option<String> {
    let optional = &config.curriculum.optional;
    for (key, value) in [("next_operator", optional.next_operator), ("pet", optional.pet)] {
        if value > 0.0 {
            return Some(format!("curriculum.optional.{key} = {value}"));
        }
    }
    let temporal = phases(&config.curriculum).into_iter().find(|phase| phase.temporal > 0.0);
    let temporal = temporal.filter(|_| config.policy.has_router())?;
    Some(format!("curriculum.{}.temporal = {}", temporal.table, temporal.temporal))
}

/// A choice as a file writes it, in quotes.
fn name<T: serde::Serialize>(choice: &T) -> String {
    serde_json::to_string(choice).expect("a choice is a string")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gatefold_graph::TypedGraph;

    use super::*;

    fn changed(change: impl FnOnce(&mut ExperimentConfig)) -> ExperimentConfig {
        let mut config = ExperimentConfig::new("a test", "somewhere");
        change(&mut config);
        config
    }

    type Change = fn(&mut ExperimentConfig);

    #[test]
    fn keys_that_contradict_each_other_are_both_named() {
        let cases: [(Change, &[&str]); 13] = [
            (
                |c| c.losses.load_balance = LoadBalance::Bias,
                &["[losses] load_balance = \"bias\"", "curriculum.routing = \"top-k\""],
            ),
            (
                |c| {
                    c.losses.load_balance = LoadBalance::Bias;
                    c.curriculum.fine_tune.routing = FixedRouting::TopK;
                },
                &["[losses] load_balance = \"bias\"", "curriculum.routing = \"top-k\""],
            ),
            (
                |c| {
                    c.losses.load_balance = LoadBalance::Bias;
                    c.policy.architecture = Architecture::MlpGat;
                },
                &["[losses] load_balance = \"bias\"", "policy.architecture = \"mlp-gat\""],
            ),
            (
                |c| {
                    c.losses.load_balance = LoadBalance::Bias;
                    c.policy.experts.truncate(1);
                },
                &["[losses] load_balance = \"bias\"", "policy.experts names one"],
            ),
            (
                |c| (c.curriculum.routing, c.curriculum.top_k) = (RoutingChoice::TopK, 5),
                &["[curriculum] top_k = 5: need 1 to 4", "policy.experts names 4"],
            ),
            (
                |c| (c.curriculum.warmup.routing, c.curriculum.top_k) = (FixedRouting::TopK, 5),
                &["[curriculum] top_k = 5: need 1 to 4", "policy.experts names 4"],
            ),
            (
                |c| c.curriculum.optional.next_operator = 0.1,
                &["[curriculum] optional.next_operator = 0.1", "policy.next_operator = true"],
            ),
            (
                |c| (c.policy.twin_critics, c.ppo.value_clip) = (true, 0.2),
                &["[ppo] value_clip = 0.2", "policy.twin_critics = true"],
            ),
            (
                |c| c.ppo.num_steps = 2,
                &["[ppo] num_steps = 2: need 3", "curriculum.transition.temporal = 0.01"],
            ),
            (
                |c| {
                    (c.ppo.num_steps, c.curriculum.optional.pet) = (2, 0.5);
                    c.policy.architecture = Architecture::Mlp;
                },
                &["[ppo] num_steps = 2: need 3", "curriculum.optional.pet = 0.5"],
            ),
            (
                |c| {
                    c.policy.architecture = Architecture::V2;
                    c.curriculum.routing = RoutingChoice::TopK;
                },
                &["[curriculum] routing = \"top-k\"", "policy.architecture = \"v2\""],
            ),
            (
                |c| {
                    c.policy.architecture = Architecture::V2;
                    c.curriculum.routing = RoutingChoice::Dense;
                },
                &["[curriculum] routing = \"dense\"", "policy.architecture = \"v2\""],
            ),
            (
                |c| c.curriculum.routing = RoutingChoice::Dense,
                &["[curriculum] routing = \"dense\"", "policy.experts names 4"],
            ),
        ];
        for (change, expected) in cases {
            let told = check(&changed(change)).expect_err(expected[0]);
            expected.iter().for_each(|part| assert!(told.contains(part), "no {part:?} in {told}"));
        }
    }

    #[test]
    fn keys_that_go_together_are_accepted() {
        let cases: [Change; 8] = [
            |_| (),
            |c| {
                c.losses.load_balance = LoadBalance::Bias;
                (c.curriculum.routing, c.curriculum.top_k) = (RoutingChoice::TopK, 4);
            },
            |c| {
                c.losses.load_balance = LoadBalance::Bias;
                c.curriculum.schedule = Schedule::Constant;
                c.curriculum.constant.routing = FixedRouting::TopK;
            },
            |c| c.curriculum.top_k = 9, // unused
            |c| (c.curriculum.optional.next_operator, c.policy.next_operator) = (0.1, true),
            |c| (c.policy.architecture, c.ppo.num_steps) = (Architecture::Mlp, 2),
            |c| {
                c.policy.architecture = Architecture::V2;
                c.curriculum.routing = RoutingChoice::Gumbel;
            },
            |c| {
                c.policy.architecture = Architecture::V2;
                c.policy.experts.truncate(1);
                c.curriculum.routing = RoutingChoice::Dense;
            },
        ];
        for (i, change) in cases.into_iter().enumerate() {
            assert_eq!(check(&changed(change)), Ok(()), "case {i}");
        }
    }

    #[test]
    fn what_has_no_effect_is_told() {
        let mut graph = TypedGraph::new("chain", &["condition", "operator"], &["operator"]);
        graph.add_node("hungry", "condition", None).unwrap();
        graph.add_node("eat", "operator", Some("survival")).unwrap();
        graph.add_node("hunt", "operator", Some("combat")).unwrap();
        graph.add_edge("hungry", "eat", "then").unwrap();
        let graph = Arc::new(graph.with_self_loops());
        let with_graph = EnvSpec { graph: Some(graph), ..EnvSpec::new(3, 4) };
        let cases: [(Change, EnvSpec, Option<&str>); 9] = [
            (|_| (), with_graph.clone(), None),
            (|_| (), EnvSpec::new(3, 4), Some("losses/alignment is off: the environment has no graph")),
            (|c| c.policy.architecture = Architecture::Mlp, EnvSpec::new(3, 4), None),
            (|c| c.curriculum.schedule = Schedule::Constant, EnvSpec::new(3, 4), None),
            (
                |c| c.policy.experts = vec!["left".into(), "right".into()],
                with_graph.clone(),
                Some("operators of the graph `chain` name fewer than two of policy.experts (left, right)"),
            ),
            (|_| (), EnvSpec { num_features: 3, ..EnvSpec::new(3, 2) }, Some("losses/diversity is off")),
            (
                |c| c.policy.next_operator = true,
                with_graph.clone(),
                Some("policy.next_operator = true: its head learns nothing"),
            ),
            (
                |c| (c.policy.next_operator, c.curriculum.optional.next_operator) = (true, 0.1),
                with_graph.clone(),
                None,
            ),
            (
                |c| c.policy.gat.edge_dropout = 0.1,
                with_graph.clone(),
                Some("policy.gat.edge_dropout = 0.1: an update then evaluates another function"),
            ),
        ];
        for (i, (change, spec, expected)) in cases.into_iter().enumerate() {
            let told = warnings(&changed(change), &spec);
            match expected {
                None => assert!(told.is_empty(), "case {i}: {told:?}"),
                Some(part) => assert!(told.iter().any(|text| text.contains(part)), "case {i}: {told:?}"),
            }
        }
    }
}
