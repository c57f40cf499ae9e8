//! Is every expert used, and does none do everything.

use std::collections::BTreeMap;

use gatefold_curriculum::Phase;
use serde::{Deserialize, Serialize};

use super::view::{View, number, verdict};
use crate::{Metrics, Severity, Situation, Verdict, names};

/// Since when each expert is unused. An expert is used where its mean gate is above the share.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct ExpertAges {
    /// Last iteration in which the expert was used, or the one before it was first seen.
    last_used: BTreeMap<String, u64>,
}

impl ExpertAges {
    pub(crate) fn observe(&mut self, dead_share: f64, at: &Situation, metrics: &Metrics) {
        if !at.routes() {
            self.last_used.clear();
            return;
        }
        self.last_used.retain(|expert, _| at.experts.contains(expert));
        for expert in at.experts {
            let Some(gate) = metrics.get(&names::usage(expert)) else { continue };
            let last = self.last_used.entry(expert.clone()).or_insert(at.iteration.saturating_sub(1));
            if gate * at.num_experts() as f64 >= dead_share {
                *last = at.iteration;
            }
        }
    }

    /// Ages start anew.
    pub(crate) fn forget(&mut self) {
        self.last_used.clear();
    }

    /// Iterations since this expert was used.
    fn age(&self, expert: &str, iteration: u64) -> Option<u64> {
        self.last_used.get(expert).map(|last| iteration.saturating_sub(*last))
    }

    /// The largest age.
    pub(crate) fn oldest(&self, iteration: u64) -> Option<u64> {
        self.last_used.values().map(|last| iteration.saturating_sub(*last)).max()
    }
}

pub(crate) fn judge(view: &View, ages: &ExpertAges, out: &mut Vec<Verdict>) {
    if view.at.routes() {
        out.extend(usage(view));
        out.extend(unused(view, ages));
    }
}

fn usage(view: &View) -> Option<Verdict> {
    let config = view.config;
    let experts = view.at.num_experts() as f64;
    let shares: Option<Vec<(&String, String, f64)>> = view
        .at
        .experts
        .iter()
        .map(|expert| {
            let name = names::usage(expert);
            let share = view.median(&name, config.window)?;
            Some((expert, name, share))
        })
        .collect();
    let shares = shares?;
    let healthy = format!("{} to {} of all decisions", number(0.4 / experts), number(1.6 / experts));
    let (expert, name, most) =
        shares.iter().max_by(|a, b| a.2.total_cmp(&b.2)).expect("routing has at least two experts");
    if *most > config.dominance && experts >= 3.0 {
        return Some(verdict(
            "expert-dominance",
            Severity::Alarm,
            (name, *most),
            healthy,
            format!(
                "`{expert}` has {:.0}% of the gates (median over {} iterations; {})",
                100.0 * most,
                config.window,
                view.at.describe_routing()
            ),
            "raise load_balance in the table of the phase, or start again from a checkpoint before it with a longer warmup \
             (curriculum.warmup_until)",
        ));
    }
    // Sparse routing may leave experts out; before that uneven use is worth knowing.
    let uneven = |share: f64| !(0.4 / experts..=1.6 / experts).contains(&share);
    let (expert, name, share) = shares
        .iter()
        .filter(|(.., share)| uneven(*share))
        .max_by(|a, b| (a.2 * experts).ln().abs().total_cmp(&(b.2 * experts).ln().abs()))?;
    (view.at.phase != Phase::FineTune).then(|| {
        verdict(
            "expert-usage",
            Severity::Info,
            (name, *share),
            healthy,
            format!(
                "`{expert}` has {:.1}% of the gates (median over {} iterations)",
                100.0 * share,
                config.window
            ),
            "nothing by itself; raise load_balance in the table of the phase if it goes on",
        )
    })
}

fn unused(view: &View, ages: &ExpertAges) -> Option<Verdict> {
    let config = view.config;
    let age = |expert: &String| ages.age(expert, view.at.iteration).filter(|age| *age >= config.dead_after);
    let unused: Vec<(&String, u64)> =
        view.at.experts.iter().filter_map(|expert| Some((expert, age(expert)?))).collect();
    let (_, oldest) = *unused.iter().max_by_key(|(_, age)| *age)?;
    let experts = view.at.num_experts();
    // A routing probability above the share lets the load balance bring the expert back.
    let beyond_reach = unused
        .iter()
        .filter(|(expert, _)| {
            view.metrics
                .get(&names::probability(expert))
                .is_none_or(|share| share * (experts as f64) < config.dead_share)
        })
        .count();
    let severity = if 2 * (experts - beyond_reach) < experts { Severity::Alarm } else { Severity::Warning };
    let listed: Vec<String> = unused
        .iter()
        .map(|(expert, age)| match view.metrics.get(&names::probability(expert)) {
            Some(share) => format!("`{expert}` for {age} iterations (routing probability {})", number(share)),
            None => format!("`{expert}` for {age} iterations"),
        })
        .collect();
    Some(verdict(
        "dead-expert",
        severity,
        (names::ROUTER_DEAD_AGE, oldest as f64),
        format!("every expert used within {} iterations", config.dead_after),
        format!("unused (a mean gate below {} of 1/K): {}", config.dead_share, listed.join(", ")),
        "raise load_balance in the table of the phase or set losses.load_balance = \"switch\"; if the others do well, \
         list fewer policy.experts",
    ))
}
