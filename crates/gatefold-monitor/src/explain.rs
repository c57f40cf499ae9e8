//! What happened to a run, in plain words.

use std::fmt::Write;

use gatefold_curriculum::Phase;

use crate::monitors::number;
use crate::{Happening, Metrics, MonitorConfig, RunEvent, Severity, Verdict, names};

/// A verdict's story: every stretch of iterations in which it stood.
struct Story<'a> {
    /// As it was at its worst.
    verdict: &'a Verdict,
    /// Iterations; the end is `None` while it stands.
    stretches: Vec<(u64, Option<u64>)>,
}

impl Story<'_> {
    fn stands(&self) -> bool {
        self.stretches.last().is_some_and(|(_, end)| end.is_none())
    }

    /// `from iteration 31 to 52`, `since iteration 60`, `3 times, ...`
    fn when(&self) -> String {
        let (first, _) = self.stretches[0];
        let (last, end) = self.stretches[self.stretches.len() - 1];
        match (self.stretches.len(), end) {
            (1, Some(end)) if first == end => format!("in iteration {first}"),
            (1, Some(end)) => format!("from iteration {first} to {end}"),
            (1, None) => format!("since iteration {first}"),
            (times, Some(end)) => format!("{times} times between iterations {first} and {end}"),
            (times, None) => format!("{times} times from iteration {first} on, standing since {last}"),
        }
    }
}

/// Merges verdicts that are about the same thing, in the order in which they first appeared.
fn stories(events: &[RunEvent]) -> Vec<Story<'_>> {
    let mut stories: Vec<Story> = Vec::new();
    for event in events {
        match &event.what {
            Happening::VerdictRaised { verdict } => {
                match stories.iter_mut().find(|story| story.verdict.same_subject(verdict)) {
                    Some(story) => {
                        if !story.stands() {
                            story.stretches.push((verdict.since, None));
                        }
                        if verdict.severity > story.verdict.severity {
                            story.verdict = verdict;
                        }
                    }
                    None => stories.push(Story { verdict, stretches: vec![(verdict.since, None)] }),
                }
            }
            Happening::VerdictCleared { monitor, metric, .. } => {
                let known = stories
                    .iter_mut()
                    .find(|story| story.verdict.monitor == *monitor && story.verdict.metric == *metric);
                if let Some((_, end)) = known.and_then(|story| story.stretches.last_mut()) {
                    end.get_or_insert(event.iteration.saturating_sub(1));
                }
            }
            _ => {}
        }
    }
    stories
}

/// What was done about it, one line per deed; the same deed in a row is one line.
fn deeds(events: &[RunEvent]) -> Vec<String> {
    let told = events.iter().filter_map(|event| {
        let deed = match &event.what {
            Happening::UpdateDiscarded { evidence, attempt } => {
                format!("the numerical guard discarded the update (attempt {attempt}): {evidence}")
            }
            Happening::DumpWritten { path } => format!("what is needed to replay it was written to {path}"),
            Happening::RolledBack { to_env_step, evidence } => {
                format!("the run went back to step {to_env_step}: {evidence}")
            }
            Happening::LadderStep { from, to, by, evidence } => {
                format!("the ladder went from {from} to {to} ({by}): {evidence}")
            }
            Happening::PhaseHeld { phase, evidence } => {
                format!("entry into the {phase} phase was held back: {evidence}")
            }
            Happening::VerdictRaised { .. } | Happening::VerdictCleared { .. } => return None,
        };
        // Phases are held iteration by iteration, with numbers that differ.
        let kind = match &event.what {
            Happening::PhaseHeld { phase, .. } => phase.to_string(),
            _ => deed.clone(),
        };
        Some((event.iteration, kind, deed))
    });
    let mut merged: Vec<(u64, u64, String, String)> = Vec::new();
    for (iteration, kind, deed) in told {
        match merged.last_mut() {
            Some((_, last, known, _)) if *known == kind => *last = iteration,
            _ => merged.push((iteration, iteration, kind, deed)),
        }
    }
    let line = |(first, last, _, deed)| match first == last {
        true => format!("iteration {first}: {deed}"),
        false => format!("iterations {first} to {last}: {deed}"),
    };
    merged.into_iter().map(line).collect()
}

/// What to do where the guard acted: the newest dump says most.
fn advice_on_discards(events: &[RunEvent]) -> Option<String> {
    let newest = events.iter().rev().find_map(|event| match &event.what {
        Happening::UpdateDiscarded { evidence, .. } => Some(evidence),
        _ => None,
    })?;
    let dump = events.iter().rev().find_map(|event| match &event.what {
        Happening::DumpWritten { path } => Some(path),
        _ => None,
    });
    let look = match dump {
        Some(path) => format!(
            "`gatefold replay-update RUN/{path}` runs the update again and names the first number that is not finite"
        ),
        None => format!("the last was: {newest}"),
    };
    Some(format!(
        "discarded updates: {look}. If that is an observation or a reward, mend the environment; otherwise \
         lower curriculum.lr_scale or ppo.max_grad_norm, and try another run.seed: one that never comes again \
         needs nothing"
    ))
}

/// Metrics that show how a run is, with the range in which they are healthy.
fn vital_numbers(metrics: &Metrics, config: &MonitorConfig) -> Vec<String> {
    let at_most = |bound: f64| format!("healthy below {}", number(bound));
    let at_least = |bound: f64| format!("healthy above {}", number(bound));
    let unscaled = metrics.get(names::REWARD_SCALE) == Some(1.0);
    let gradient = match unscaled {
        true => "in units of raw rewards".to_string(),
        false => at_most(config.grad_norm_warning),
    };
    let fine_tune = metrics.get(names::CURRICULUM_PHASE) == Some(Phase::FineTune.index() as f64);
    let phase = if fine_tune { Phase::FineTune } else { Phase::Warmup };
    let lines = [
        (names::ROLLOUT_RETURN_MEAN, "mean return", "last 100 episodes".to_string()),
        (names::ROLLOUT_SCORE_MEAN, "mean score", "last 100 episodes".to_string()),
        (names::EVAL_RETURN_MEAN, "evaluation's mean return", "held-out seeds".to_string()),
        (names::TRAIN_GRAD_NORM, "gradient norm before clipping", gradient),
        (names::TRAIN_APPROX_KL, "approximate KL", at_most(config.approx_kl_warning)),
        (names::TRAIN_EXPLAINED_VARIANCE, "explained variance", "better towards 1".to_string()),
        (names::TRAIN_ENTROPY, "entropy of actions", "falls as the policy decides".to_string()),
        (names::ROUTER_USAGE_ENTROPY, "usage of experts", at_least(config.usage_entropy_bound(phase))),
        (names::ROUTER_SPECIALISATION, "specialisation", "above 0 in fine-tune".to_string()),
        (names::GAT_ATTENTION_ENTROPY, "attention entropy", "reported".to_string()),
        (names::LADDER_RUNG, "rung of the ladder", "0 is the full method".to_string()),
        (names::GUARD_DISCARDED_UPDATES, "discarded updates", "0 if numbers stayed finite".to_string()),
    ];
    let known = lines.into_iter().filter_map(|(name, label, range)| {
        let value = metrics.get(name)?;
        Some(format!("{label} {} ({range})", number(value)))
    });
    known.collect()
}

/// Tells what fired, when and on what evidence, what was done about it, and what to do next.
///
/// `events` are those of the run so far, in order; `last` is its last line of metrics, if there is one, and
/// `config` its `[monitors]`. A verdict that came and went is told once. A run on which nothing fired is
/// told with the numbers that show it.
pub fn explain(events: &[RunEvent], last: Option<&Metrics>, config: &MonitorConfig) -> String {
    let mut stories = stories(events);
    stories.sort_by_key(|story| (std::cmp::Reverse(story.verdict.severity), story.stretches[0].0));
    let deeds = deeds(events);
    let of = |severity| stories.iter().filter(move |story| story.verdict.severity == severity);
    let standing = of(Severity::Alarm).filter(|story| story.stands()).count();
    let (alarms, warnings) = (of(Severity::Alarm).count(), of(Severity::Warning).count());

    let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let mut text = match (alarms, standing, warnings, deeds.is_empty()) {
        _ if !config.enabled && alarms + warnings == 0 => {
            "The monitors are off (monitors.enabled = false): nobody looked at this run's health.".to_string()
        }
        (0, _, 0, true) => "This run is healthy: no monitor raised a warning or an alarm.".to_string(),
        (0, _, 0, false) => {
            "This run had no alarm and no warning, but not everything went through.".to_string()
        }
        (0, _, _, _) => format!("This run had no alarm, and {}.", plural(warnings, "warning")),
        (_, 0, _, _) => format!("This run had {}; none stands now.", plural(alarms, "alarm")),
        (_, 1, _, _) => "This run is in trouble: 1 alarm stands now.".to_string(),
        (_, count, _, _) => format!("This run is in trouble: {count} alarms stand now."),
    };
    if let Some(metrics) = last {
        let at = |name| metrics.get(name).map(|value| format!("{value:.0}"));
        if let (Some(iteration), Some(step)) = (at(names::TIME_ITERATION), at(names::TIME_ENV_STEPS)) {
            write!(text, " It has done {iteration} iterations, {step} steps.").expect("writing to a string");
        }
    }
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            write!(text, "\n\n{title}").expect("writing to a string");
            lines.iter().for_each(|line| write!(text, "\n  {line}").expect("writing to a string"));
        }
    };
    let told = stories.iter().map(|story| {
        let Verdict { monitor, severity, evidence, healthy, .. } = story.verdict;
        format!("{severity} {monitor}, {}: {evidence}. Healthy: {healthy}.", story.when())
    });
    section("What fired", told.collect());
    section("What was done about it", deeds);
    // What stands comes first; what is over is advice for the next run.
    let mut advice: Vec<String> = Vec::new();
    let mut urgent: Vec<&Story> = of(Severity::Alarm).chain(of(Severity::Warning)).collect();
    urgent.sort_by_key(|story| !story.stands());
    for story in urgent {
        let line = format!("{}: {}", story.verdict.monitor, story.verdict.advice);
        if !advice.contains(&line) {
            advice.push(line);
        }
    }
    advice.extend(advice_on_discards(events));
    let numbered = advice.into_iter().enumerate().map(|(index, line)| format!("{}. {line}", index + 1));
    section("What to do next", numbered.collect());
    if let Some(metrics) = last {
        section("The last iteration's numbers", vital_numbers(metrics, config));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raised(iteration: u64, since: u64, severity: Severity, monitor: &str) -> RunEvent {
        let verdict = Verdict {
            monitor: monitor.into(),
            severity,
            metric: format!("train/{monitor}"),
            value: 12.0,
            healthy: "below 5".into(),
            evidence: format!("median 12 in iteration {iteration}"),
            advice: "lower curriculum.lr_scale".into(),
            since,
        };
        RunEvent { iteration, env_step: 512 * iteration, what: Happening::VerdictRaised { verdict } }
    }

    fn cleared(iteration: u64, monitor: &str) -> RunEvent {
        let (monitor, metric) = (monitor.to_string(), format!("train/{monitor}"));
        let what = Happening::VerdictCleared { monitor, metric, since: 0 };
        RunEvent { iteration, env_step: 512 * iteration, what }
    }

    fn told(events: &[RunEvent]) -> String {
        explain(events, None, &MonitorConfig::default())
    }

    #[test]
    fn a_healthy_run_is_told_with_the_numbers_that_show_it() {
        let mut metrics = Metrics::new();
        metrics.set(names::ROLLOUT_RETURN_MEAN, 74.6);
        metrics.set(names::TRAIN_GRAD_NORM, 0.847);
        metrics.set(names::TIME_ITERATION, 76.0);
        metrics.set(names::TIME_ENV_STEPS, 311_296.0);
        let text = explain(&[], Some(&metrics), &MonitorConfig::default());
        let expected = "This run is healthy: no monitor raised a warning or an alarm. It has done 76 iterations, \
                        311296 steps.\n\nThe last iteration's numbers\n  mean return 74.6 (last 100 episodes)\n  \
                        gradient norm before clipping 0.847 (healthy below 5)\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_alarm_that_came_and_went_is_told_once_with_its_span() {
        let events = [
            raised(31, 31, Severity::Warning, "gradient-norm"),
            raised(33, 31, Severity::Alarm, "gradient-norm"),
            cleared(53, "gradient-norm"),
        ];
        let text = told(&events);
        assert!(text.starts_with("This run had 1 alarm; none stands now."), "{text}");
        let line =
            "alarm gradient-norm, from iteration 31 to 52: median 12 in iteration 33. Healthy: below 5.";
        assert!(text.contains(line), "{text}");
        assert_eq!(text.matches("lower curriculum.lr_scale").count(), 1, "{text}");
    }

    #[test]
    fn what_stands_is_named_as_trouble_and_its_advice_comes_first() {
        let events = [
            raised(10, 10, Severity::Alarm, "approx-kl"),
            cleared(12, "approx-kl"),
            raised(20, 20, Severity::Alarm, "approx-kl"),
            cleared(21, "approx-kl"),
            raised(40, 40, Severity::Alarm, "router-collapse"),
        ];
        let text = told(&events);
        assert!(text.starts_with("This run is in trouble: 1 alarm stands now."), "{text}");
        assert!(text.contains("approx-kl, 2 times between iterations 10 and 20:"), "{text}");
        assert!(text.contains("router-collapse, since iteration 40:"), "{text}");
        assert!(text.contains("1. router-collapse: lower"), "{text}");
        assert!(text.contains("2. approx-kl: lower"), "{text}");
    }

    #[test]
    fn what_was_done_is_told_in_order_and_held_phases_are_merged() {
        let at = |iteration, what| RunEvent { iteration, env_step: 512 * iteration, what };
        let held = |iteration, norm: &str| {
            at(iteration, Happening::PhaseHeld { phase: Phase::FineTune, evidence: format!("norm {norm}") })
        };
        let events = [
            at(30, Happening::UpdateDiscarded { evidence: "the loss is NaN".into(), attempt: 1 }),
            at(30, Happening::DumpWritten { path: "dumps/30".into() }),
            at(31, Happening::RolledBack { to_env_step: 14_336, evidence: "3 attempts".into() }),
            held(32, "12"),
            held(33, "11"),
            at(
                34,
                Happening::LadderStep {
                    from: "full".into(),
                    to: "freeze-gat".into(),
                    by: "guard".into(),
                    evidence: "the loss is NaN".into(),
                },
            ),
        ];
        let text = told(&events);
        let expected = "What was done about it
  iteration 30: the numerical guard discarded the update (attempt 1): the loss is NaN
  iteration 30: what is needed to replay it was written to dumps/30
  iteration 31: the run went back to step 14336: 3 attempts
  iterations 32 to 33: entry into the fine-tune phase was held back: norm 12
  iteration 34: the ladder went from full to freeze-gat (guard): the loss is NaN

What to do next
  1. discarded updates: `gatefold replay-update RUN/dumps/30` runs the update again";
        assert!(text.contains(expected), "{text}");
        assert!(text.starts_with("This run had no alarm and no warning, but not everything"), "{text}");
    }

    #[test]
    fn a_run_that_nobody_watched_is_not_called_healthy() {
        let config = MonitorConfig { enabled: false, ..MonitorConfig::default() };
        assert!(explain(&[], None, &config).starts_with("The monitors are off"));
    }
}
