//! What happened in a run, one line of `events.jsonl` each.

use gatefold_curriculum::Phase;
use serde::{Deserialize, Serialize};

use crate::Verdict;

/// Something that happened, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEvent {
    /// Iterations since the run's start, the present one included.
    pub iteration: u64,
    /// Environment steps since the run's start, over all environments.
    pub env_step: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: Happening,
}

/// Kinds of events, in the order in which an iteration may produce them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Happening {
    /// A monitor's verdict began to stand, or became worse.
    VerdictRaised {
        /// The verdict as it was raised.
        verdict: Verdict,
    },
    /// A verdict no longer stands.
    VerdictCleared {
        /// Its monitor.
        monitor: String,
        /// The metric it was about.
        metric: String,
        /// First iteration in which it stood.
        since: u64,
    },
    /// The numerical guard refused an update; learned state went back to the last healthy snapshot.
    UpdateDiscarded {
        /// Which number was not finite, and where.
        evidence: String,
        /// Attempt at this snapshot, from 1.
        attempt: u64,
    },
    /// The guard wrote what is needed to replay a discarded update.
    DumpWritten {
        /// Its path, relative to the run directory.
        path: String,
    },
    /// The run went back to an earlier state.
    RolledBack {
        /// Environment step of that state.
        to_env_step: u64,
        /// Why.
        evidence: String,
    },
    /// The fallback ladder changed its rung.
    LadderStep {
        /// The rung before.
        from: String,
        /// The rung now.
        to: String,
        /// Who decided: by hand, the monitors, the guard, or recovery.
        by: String,
        /// On what grounds.
        evidence: String,
    },
    /// The curriculum would have entered a phase, and was held back because the run is not healthy.
    PhaseHeld {
        /// The phase that has to wait.
        phase: Phase,
        /// On what grounds.
        evidence: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Severity;

    #[test]
    fn events_survive_json_lines_even_with_a_nan() {
        let verdict = Verdict {
            monitor: "not-finite".into(),
            severity: Severity::Alarm,
            metric: "train/loss".into(),
            value: f64::INFINITY,
            healthy: "finite numbers".into(),
            evidence: "train/loss = inf".into(),
            advice: "lower curriculum.lr_scale".into(),
            since: 3,
        };
        let kinds = [
            Happening::VerdictRaised { verdict },
            Happening::VerdictCleared { monitor: "a".into(), metric: "b".into(), since: 1 },
            Happening::UpdateDiscarded { evidence: "the loss is NaN".into(), attempt: 2 },
            Happening::DumpWritten { path: "dumps/3".into() },
            Happening::RolledBack { to_env_step: 512, evidence: "3 attempts".into() },
            Happening::LadderStep {
                from: "full".into(),
                to: "freeze-gat".into(),
                by: "monitors".into(),
                evidence: "x".into(),
            },
            Happening::PhaseHeld { phase: Phase::FineTune, evidence: "x".into() },
        ];
        for what in kinds {
            let event = RunEvent { iteration: 3, env_step: 1536, what };
            let line = serde_json::to_string(&event).unwrap();
            assert!(line.starts_with(r#"{"iteration":3,"env_step":1536,"event":""#), "{line}");
            assert_eq!(serde_json::from_str::<RunEvent>(&line).unwrap(), event);
        }
    }
}
