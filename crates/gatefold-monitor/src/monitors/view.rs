//! What a monitor sees of a run, and how it words a verdict.

use super::config::MonitorConfig;
use super::history::{History, median};
use super::score_record::ScoreRecord;
use super::situation::Situation;
use crate::{Metrics, Severity, Verdict, names};

/// An iteration in its run. Windows include this iteration.
pub(crate) struct View<'a> {
    pub(crate) config: &'a MonitorConfig,
    pub(crate) at: &'a Situation<'a>,
    pub(crate) metrics: &'a Metrics,
    pub(crate) history: &'a History,
    pub(crate) score: &'a ScoreRecord,
    /// Largest size of returns in this run, in the critic's units; `None` before the critic reported.
    pub(crate) return_scale: Option<f64>,
}

impl View<'_> {
    /// All values of a full window.
    pub(crate) fn window(&self, name: &str, window: usize) -> Option<Vec<f64>> {
        self.history.window(name, window, self.config.grace)
    }

    /// Median over a full window.
    pub(crate) fn median(&self, name: &str, window: usize) -> Option<f64> {
        median(&self.window(name, window)?)
    }

    /// The unit of gradient norms: 1 where rewards are scaled; else the return scale, since gradients of
    /// the value loss are proportional to it.
    pub(crate) fn gradient_unit(&self) -> f64 {
        let unscaled = self.metrics.get(names::REWARD_SCALE) == Some(1.0);
        self.return_scale.filter(|_| unscaled).map_or(1.0, |scale| scale.max(1.0))
    }

    /// Whether the return is where the run wants it, or near its own best after having learned.
    pub(crate) fn at_its_best(&self) -> bool {
        self.at_target() || self.score.learned(self.config) && self.score.lost_share() < Some(0.25)
    }

    /// Whether the level of the return has reached the target.
    pub(crate) fn at_target(&self) -> bool {
        self.at.target_return.zip(self.score.level()).is_some_and(|(target, level)| level >= target)
    }
}

/// A verdict without its beginning, which [`super::Monitors`] knows.
pub(crate) fn verdict(
    monitor: &str,
    severity: Severity,
    (metric, value): (&str, f64),
    healthy: impl Into<String>,
    evidence: impl Into<String>,
    advice: &str,
) -> Verdict {
    Verdict {
        monitor: monitor.to_string(),
        severity,
        metric: metric.to_string(),
        value,
        healthy: healthy.into(),
        evidence: evidence.into(),
        advice: advice.to_string(),
        since: 0,
    }
}

/// The severity of a value that should stay below two bounds.
pub(crate) fn above(value: f64, warning: f64, alarm: f64) -> Option<Severity> {
    if value > alarm { Some(Severity::Alarm) } else { (value > warning).then_some(Severity::Warning) }
}

/// A number for a sentence: about three digits.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    let short = size < 100.0 && (100.0 * value).round() / 100.0 == value;
    if short || !value.is_finite() {
        format!("{value}")
    } else if (1e-2..1e3).contains(&size) {
        let digits = if size < 1.0 {
            3
        } else if size < 100.0 {
            2
        } else {
            0
        };
        format!("{value:.digits$}")
    } else if (1e3..1e7).contains(&size) {
        format!("{value:.0}")
    } else {
        format!("{value:.1e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_sentences_have_about_three_digits() {
        let cases = [
            (0.0, "0"),
            (0.4968, "0.497"),
            (12.345, "12.35"),
            (212.4, "212"),
            (40_960.0, "40960"),
            (1.23e-5, "1.2e-5"),
            (-0.5, "-0.5"),
            (5.0, "5"),
            (f64::NAN, "NaN"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }
}
