//! Is routing alive: collapse, chaos, a constant or a frozen router.

use serde::{Deserialize, Serialize};

use super::config::MonitorConfig;
use super::history::{History, mean, median};
use super::view::{View, number, verdict};
use crate::{Severity, Situation, Verdict, names};

/// Sparse routing in the fine-tune phase, so far.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct SparsePhase {
    /// Its iterations, up to now and without a break; 0 in other phases and routings.
    iterations: usize,
    /// Whether gates became sparse in it.
    decided: bool,
}

impl SparsePhase {
    pub(crate) fn observe(&mut self, config: &MonitorConfig, at: &Situation, history: &History) {
        if !at.sparse_fine_tune() {
            *self = Self::default();
            return;
        }
        self.iterations += 1;
        let bound = config.gate_entropy_high * (at.num_experts() as f64).ln();
        let entropy = history.window(names::ROUTER_ENTROPY, config.window, 0).and_then(|last| median(&last));
        self.decided |= self.iterations >= config.window && entropy.is_some_and(|entropy| entropy < bound);
    }
}

pub(crate) fn judge(view: &View, sparse: SparsePhase, out: &mut Vec<Verdict>) {
    if !view.at.routes() {
        return;
    }
    out.extend(collapse(view));
    out.extend(gate_entropy(view, sparse));
    out.extend(constant(view, sparse));
    out.extend(frozen(view));
}

fn ln_experts(view: &View) -> f64 {
    (view.at.num_experts() as f64).ln()
}

fn collapse(view: &View) -> Option<Verdict> {
    let (config, window) = (view.config, view.config.window);
    let value = view.median(names::ROUTER_USAGE_ENTROPY, window)?;
    let warning = config.usage_entropy_bound(view.at.phase);
    let severity = if value < config.usage_entropy_alarm {
        Severity::Alarm
    } else if value < warning {
        Severity::Warning
    } else {
        return None;
    };
    let experts = view.at.num_experts() as f64;
    Some(verdict(
        "router-collapse",
        severity,
        (names::ROUTER_USAGE_ENTROPY, value),
        format!("{} to 1 of ln K; below {} is collapse", number(warning), config.usage_entropy_alarm),
        format!(
            "entropy of the mean gates is {} of ln {experts}, as if {:.1} of {experts} experts were used (median over \
             {window} iterations; {})",
            number(value),
            experts.powf(value),
            view.at.describe_routing()
        ),
        "raise load_balance in the table of the phase (curriculum.warmup, transition, fine_tune), make warmup longer \
         (curriculum.warmup_until), or lower the share of gate_entropy that is minimised in curriculum.fine_tune",
    ))
}

/// Low gate entropy is for information; high is chaos where routing should be sparse by now.
fn gate_entropy(view: &View, sparse: SparsePhase) -> Option<Verdict> {
    let config = view.config;
    let ln_experts = ln_experts(view);
    let healthy = format!(
        "{} to {} nats at K = {} ({} to {} of ln K)",
        number(config.gate_entropy_low * ln_experts),
        number(config.gate_entropy_high * ln_experts),
        view.at.num_experts(),
        config.gate_entropy_low,
        config.gate_entropy_high
    );
    let value = view.median(names::ROUTER_ENTROPY, config.window)?;
    if value < config.gate_entropy_low * ln_experts {
        return Some(verdict(
            "gate-entropy",
            Severity::Info,
            (names::ROUTER_ENTROPY, value),
            healthy,
            format!(
                "one decision's gates have an entropy of {} nats (median over {} iterations): almost one expert per state",
                number(value),
                config.window
            ),
            "good if router/specialisation is well above 0 and every expert is used; else raise load_balance",
        ));
    }
    if !view.at.sparse_fine_tune() || value <= config.gate_entropy_high * ln_experts {
        return None;
    }
    // A router that had decided and no longer does is chaos at once. One that never did is an alarm only
    // where the return suffers too: high entropy alone may be a slow router, which is given twice the time.
    let suffers = !view.at_its_best();
    let patience = if suffers { config.long_window } else { 2 * config.long_window };
    let late = sparse.iterations >= patience && !falls(view)?;
    let (severity, what) = match (sparse.decided, late) {
        (true, _) => (Severity::Alarm, "gates had become sparse and lost it: they"),
        (false, true) if suffers => {
            (Severity::Alarm, "gates never became sparse and the return suffers: they")
        }
        (false, true) => (Severity::Warning, "gates never became sparse, although the return is good: they"),
        (false, false) => return None,
    };
    Some(verdict(
        "router-chaos",
        severity,
        (names::ROUTER_ENTROPY, value),
        healthy,
        format!(
            "{what} have an entropy of {} nats after {} iterations of sparse routing (median over {} iterations; {})",
            number(value),
            sparse.iterations,
            config.window,
            view.at.describe_routing()
        ),
        "the router does not choose: make transition longer (curriculum.transition_until), lower \
         curriculum.fine_tune.temperature, or raise curriculum.fine_tune.gate_entropy, which is minimised there",
    ))
}

/// Whether the gates' entropy fell over the long window.
fn falls(view: &View) -> Option<bool> {
    let all = view.window(names::ROUTER_ENTROPY, view.config.long_window)?;
    let (before, now) = all.split_at(all.len() / 2);
    Some(mean(now) < 0.98 * mean(before))
}

fn constant(view: &View, sparse: SparsePhase) -> Option<Verdict> {
    let config = view.config;
    let floor = config.specialisation_floor * ln_experts(view);
    let value = view.median(names::ROUTER_SPECIALISATION, config.window)?;
    let entropy = view.median(names::ROUTER_ENTROPY, config.window)? / ln_experts(view);
    if value >= floor {
        return None;
    }
    let severity = if entropy < config.usage_entropy_alarm {
        Severity::Alarm
    } else if sparse.iterations >= 2 * config.long_window {
        Severity::Warning
    } else {
        return None; // before fine-tune every router starts like this
    };
    Some(verdict(
        "constant-router",
        severity,
        (names::ROUTER_SPECIALISATION, value),
        format!(
            "above {} nats in fine-tune; about 0 together with low gate entropy is an alarm",
            number(floor)
        ),
        format!(
            "gates hardly depend on the state: specialisation {} nats at a gate entropy of {} of ln K (medians over {} \
             iterations; {})",
            number(value),
            number(entropy),
            config.window,
            view.at.describe_routing()
        ),
        "raise alignment (curriculum.<phase>.alignment) or diversity, so that experts differ where the graph does, \
         and make transition longer (curriculum.transition_until)",
    ))
}

fn frozen(view: &View) -> Option<Verdict> {
    let (config, window) = (view.config, view.config.window);
    let rates = view.window(names::TRAIN_LEARNING_RATE, window);
    if rates.is_some_and(|rates| rates.iter().all(|rate| *rate <= 0.0)) {
        return None;
    }
    let (metric, drift) = match view.median(names::ROUTER_DRIFT, window) {
        Some(drift) => (names::ROUTER_DRIFT.to_string(), drift),
        // Without a probe batch: gates that are the same to the last digit in every rollout.
        None => {
            let changes: Option<Vec<f64>> = view
                .at
                .experts
                .iter()
                .map(|expert| {
                    let shares = view.window(&names::usage(expert), window)?;
                    Some(shares.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f64::max))
                })
                .collect();
            let change = changes?.into_iter().fold(0.0, f64::max);
            (names::usage(&view.at.experts[0]), change)
        }
    };
    let floor = if metric == names::ROUTER_DRIFT { config.drift_floor } else { config.drift_floor * 1e-3 };
    (drift < floor).then(|| {
        verdict(
            "router-frozen",
            Severity::Alarm,
            (&metric, drift),
            format!("a change of at least {floor:.0e} per iteration while the learning rate is above 0"),
            format!(
                "routing changed by {} per iteration (median over {window} iterations) although the learning rate is {}",
                number(drift),
                view.metrics.get(names::TRAIN_LEARNING_RATE).map_or("unknown".into(), number)
            ),
            "the router gets no gradient: look at losses/gate_entropy and losses/load_balance, raise load_balance in the \
             table of the phase, or go back to a checkpoint before it froze",
        )
    })
}
