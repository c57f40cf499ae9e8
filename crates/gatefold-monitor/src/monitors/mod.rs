//! The judge of a run: every iteration's metrics in, verdicts out.

mod attention;
mod config;
mod discards;
mod experts;
mod gradient;
mod history;
mod losses;
mod policy;
mod router;
mod score;
mod score_record;
mod situation;
mod spread;
mod value_head;
mod verdict;
mod view;

pub use config::{MonitorConfig, MonitorError};
pub use situation::Situation;
pub use verdict::{Severity, Verdict};
pub(crate) use view::number;

use serde::{Deserialize, Serialize};

use self::experts::ExpertAges;
use self::history::History;
use self::losses::LossRecord;
use self::router::SparsePhase;
use self::score_record::ScoreRecord;
use self::value_head::VALUE_ERROR;
use self::view::View;
use crate::{Happening, Metrics, RunEvent, names};

/// Everything the monitors remember of a run. Saved with it, so that a resumed run is judged as one that
/// never stopped.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct MonitorState {
    history: History,
    score: ScoreRecord,
    ages: ExpertAges,
    losses: LossRecord,
    sparse: SparsePhase,
    /// The experts that the router's windows are about; empty where nothing is routed.
    experts: Vec<String>,
    return_scale: Option<f64>,
    standing: Vec<Verdict>,
}

/// What the monitors say about one iteration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Judgement {
    /// Verdicts that stand, in a fixed order of monitors.
    pub verdicts: Vec<Verdict>,
    /// What changed against the iteration before: verdicts raised, made worse, cleared.
    pub events: Vec<RunEvent>,
    /// What the monitors computed: counts of alarms and warnings, age of the longest unused expert,
    /// variances over updates.
    pub metrics: Metrics,
}

impl Judgement {
    /// Whether no alarm stands.
    pub fn is_healthy(&self) -> bool {
        !self.verdicts.iter().any(Verdict::is_alarm)
    }

    /// The alarms' evidence in one line, for the ladder; empty if healthy.
    pub fn evidence(&self) -> String {
        let alarms = self.verdicts.iter().filter(|verdict| verdict.is_alarm());
        alarms.map(|alarm| format!("{}: {}", alarm.monitor, alarm.evidence)).collect::<Vec<_>>().join("; ")
    }
}

/// Watches a run and judges each iteration. Pure in (configuration, state, situation, metrics).
#[derive(Debug, Clone, PartialEq)]
pub struct Monitors {
    config: MonitorConfig,
    state: MonitorState,
}

impl Monitors {
    /// Monitors of a run that starts.
    pub fn new(config: MonitorConfig) -> Self {
        Self { config, state: MonitorState::default() }
    }

    /// What is remembered, for a checkpoint.
    pub fn state(&self) -> &MonitorState {
        &self.state
    }

    /// Goes on from a checkpoint.
    pub fn restore(&mut self, state: MonitorState) {
        self.state = state;
    }

    /// Empties all windows after the run changed by more than training: a return to a healthy snapshot or
    /// a step of the ladder. What was judged before says nothing about what follows; the run's first and
    /// best levels stay.
    pub fn start_windows_anew(&mut self) {
        let state = &mut self.state;
        state.history.empty_windows(|_| true);
        state.score.empty_windows();
        state.losses.empty_windows();
        state.ages.forget();
        state.sparse = SparsePhase::default();
    }

    /// Takes in an iteration's metrics and says what is wrong. Call it once per iteration, in order.
    ///
    /// A metric that is absent is not judged. A verdict's `since` is the first iteration from which it stood
    /// without a break.
    pub fn judge(&mut self, at: &Situation, metrics: &Metrics) -> Judgement {
        if !self.config.enabled {
            return Judgement::default();
        }
        self.take_in(at, metrics);
        let state = &self.state;
        let view = View {
            config: &self.config,
            at,
            metrics,
            history: &state.history,
            score: &state.score,
            return_scale: state.return_scale,
        };
        let mut reported = spread::variances(&view);
        let mut verdicts = Vec::new();
        verdicts.extend(not_finite(metrics));
        discards::judge(&view, &mut verdicts);
        router::judge(&view, state.sparse, &mut verdicts);
        experts::judge(&view, &state.ages, &mut verdicts);
        gradient::judge(&view, &mut verdicts);
        attention::judge(&view, &mut verdicts);
        policy::judge(&view, &mut verdicts);
        value_head::judge(&view, &mut verdicts);
        losses::judge(&view, &state.losses, &mut verdicts);
        score::judge(&view, &mut verdicts);
        spread::judge(&view, &reported, &mut verdicts);

        let events = self.compare(at, &mut verdicts);
        let count = |severity| verdicts.iter().filter(|verdict| verdict.severity == severity).count() as f64;
        if let Some(age) = self.state.ages.oldest(at.iteration) {
            reported.set(names::ROUTER_DEAD_AGE, age as f64);
        }
        reported.set(names::MONITOR_ALARMS, count(Severity::Alarm));
        reported.set(names::MONITOR_WARNINGS, count(Severity::Warning));
        Judgement { verdicts, events, metrics: reported }
    }

    /// Extends the windows by an iteration.
    fn take_in(&mut self, at: &Situation, metrics: &Metrics) {
        let (config, state) = (&self.config, &mut self.state);
        let experts = if at.routes() { at.experts } else { &[] };
        if state.experts != experts {
            state.history.empty_windows(|name| name.starts_with("router/"));
            state.ages.forget();
            state.experts = experts.to_vec();
        }
        for (name, value) in metrics.iter() {
            if is_judged(name) {
                state.history.push(name, value);
            }
        }
        state.sparse.observe(config, at, &state.history);
        state.ages.observe(config.dead_share, at, metrics);
        state.score.observe(config, at.iteration, metrics, &state.history);
        if let Some((error, scale)) = value_head::error_and_scale(metrics) {
            const RETURN_SCALE: &str = "derived/return_scale";
            state.history.push(RETURN_SCALE, scale);
            // A median, so that one wild value does not set the scale for good.
            let recent: Vec<f64> = state.history.recent(RETURN_SCALE, config.short_window).collect();
            let typical = history::median(&recent).expect("the scale is finite");
            let scale = state.return_scale.map_or(typical, |before| before.max(typical));
            state.return_scale = Some(scale);
            let error = if scale > 0.0 { error / scale } else { 0.0 };
            state.history.push(VALUE_ERROR, error);
            state.losses.observe(config.short_window, config.loss_rise_relative, VALUE_ERROR, error);
        }
        for name in [names::SUPERVISED_LOSS, names::SUPERVISED_VALIDATION_LOSS] {
            if let Some(value) = metrics.get(name) {
                state.losses.observe(config.short_window, config.loss_rise_relative, name, value);
            }
        }
    }

    /// Fills in since when each verdict stands, and tells what changed.
    fn compare(&mut self, at: &Situation, verdicts: &mut [Verdict]) -> Vec<RunEvent> {
        let event = |what| RunEvent { iteration: at.iteration, env_step: at.env_step, what };
        let before = std::mem::take(&mut self.state.standing);
        let mut events = Vec::new();
        for verdict in verdicts.iter_mut() {
            let known = before.iter().find(|known| known.same_subject(verdict));
            verdict.since = known.map_or(at.iteration, |known| known.since);
            if known.is_none_or(|known| known.severity < verdict.severity) {
                events.push(event(Happening::VerdictRaised { verdict: verdict.clone() }));
            }
        }
        for known in before {
            if !verdicts.iter().any(|verdict| verdict.same_subject(&known)) {
                events.push(event(Happening::VerdictCleared {
                    monitor: known.monitor,
                    metric: known.metric,
                    since: known.since,
                }));
            }
        }
        self.state.standing = verdicts.to_vec();
        events
    }
}

/// Metrics that some monitor looks at; clocks and counters are not remembered.
fn is_judged(name: &str) -> bool {
    const GROUPS: [&str; 6] = ["router/", "gat/", "train/", "supervised/", "losses/pet", "rollout/re"];
    GROUPS.iter().any(|group| name.starts_with(group))
}

/// A NaN or infinity in any metric but those that are undefined where returns do not vary.
fn not_finite(metrics: &Metrics) -> Option<Verdict> {
    const UNDEFINED_AT_TIMES: [&str; 3] =
        [names::TRAIN_EXPLAINED_VARIANCE, names::TRAIN_VALUE_SD_RATIO, names::TRAIN_VALUE_SKILL];
    let wrong: Vec<(&str, f64)> = metrics
        .iter()
        .filter(|(name, value)| !value.is_finite() && !UNDEFINED_AT_TIMES.contains(name))
        .collect();
    let first = *wrong.first()?;
    let listed: Vec<String> = wrong.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    Some(view::verdict(
        "not-finite",
        Severity::Alarm,
        first,
        "finite numbers",
        format!("in this iteration {}", listed.join(", ")),
        "lower curriculum.lr_scale; the numerical guard's dump, if there is one, holds the minibatch to replay",
    ))
}
