//! What a monitor says: how bad, on what evidence, and what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How bad a verdict is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing; nothing is wrong by itself.
    Info,
    /// Outside the healthy range; nothing is done about it.
    Warning,
    /// The iteration is unhealthy: phases may be held back and the ladder counts it.
    Alarm,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Alarm => "alarm",
        })
    }
}

/// One monitor's verdict on one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Name of the monitor, such as `router-collapse`; the table in the crate's docs lists them.
    pub monitor: String,
    /// How bad it is.
    pub severity: Severity,
    /// The metric that was judged.
    pub metric: String,
    /// Its value over the window, in the metric's unit; NaN where that is what is wrong.
    #[serde(with = "crate::metrics::number")]
    pub value: f64,
    /// The range that would have been healthy, in words.
    pub healthy: String,
    /// What was seen: numbers and window, as a sentence.
    pub evidence: String,
    /// What to do about it, with the configuration keys to change.
    pub advice: String,
    /// First iteration in which this verdict stood without a break.
    pub since: u64,
}

impl Verdict {
    /// Whether the iteration counts as unhealthy.
    pub fn is_alarm(&self) -> bool {
        self.severity == Severity::Alarm
    }

    /// Whether both are about the same thing, whatever the numbers.
    pub fn same_subject(&self, other: &Self) -> bool {
        self.monitor == other.monitor && self.metric == other.metric
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} since iteration {}: {} (healthy: {}). {}",
            self.severity, self.monitor, self.since, self.evidence, self.healthy, self.advice
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(severity: Severity, value: f64) -> Verdict {
        Verdict {
            monitor: "gradient-norm".into(),
            severity,
            metric: "train/grad_norm".into(),
            value,
            healthy: "below 5".into(),
            evidence: "median 12 over 10 iterations".into(),
            advice: "lower curriculum.lr_scale".into(),
            since: 31,
        }
    }

    #[test]
    fn only_an_alarm_is_unhealthy_and_severities_are_ordered() {
        let alarms = [Severity::Info, Severity::Warning, Severity::Alarm].map(|s| verdict(s, 1.0).is_alarm());
        assert_eq!(alarms, [false, false, true]);
        assert!(Severity::Info < Severity::Warning && Severity::Warning < Severity::Alarm);
    }

    #[test]
    fn a_verdict_reads_as_one_line() {
        assert_eq!(
            verdict(Severity::Alarm, 12.0).to_string(),
            "alarm gradient-norm since iteration 31: median 12 over 10 iterations (healthy: below 5). lower \
             curriculum.lr_scale"
        );
    }

    #[test]
    fn a_verdict_about_a_nan_survives_json() {
        let json = serde_json::to_string(&verdict(Severity::Alarm, f64::NAN)).unwrap();
        assert!(json.contains(r#""value":"NaN""#), "{json}");
        assert!(serde_json::from_str::<Verdict>(&json).unwrap().value.is_nan());
    }
}
