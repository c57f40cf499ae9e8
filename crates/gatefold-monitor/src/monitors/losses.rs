//! Do losses that should fall stay near their best.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::value_head::VALUE_ERROR;
use super::view::{View, number, verdict};
use crate::{Severity, Verdict, names};

/// Rise of a supervised loss, in its own units, that is noise even if the best is near 0.
const SLACK: f64 = 0.02;

/// A loss smoothed over the short window, and the lowest it was.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Smoothed {
    count: u64,
    smooth: f64,
    best: f64,
    /// Updates in a row in which the smoothed loss was above its best by more than the relative rise.
    patience_used: u64,
}

/// The losses that are held against their best: supervised ones in their own units, and the critic's error
/// in units of the return scale. PPO's own loss is left out: its value means nothing by itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct LossRecord {
    losses: BTreeMap<String, Smoothed>,
}

const SUPERVISED: [&str; 2] = [names::SUPERVISED_LOSS, names::SUPERVISED_VALIDATION_LOSS];

impl LossRecord {
    pub(crate) fn observe(&mut self, short_window: usize, rise: f64, name: &str, value: f64) {
        if !value.is_finite() {
            return; // another monitor's business
        }
        let weight = 2.0 / (short_window as f64 + 1.0);
        let fresh = Smoothed { count: 0, smooth: value, best: f64::INFINITY, patience_used: 0 };
        let loss = self.losses.entry(name.to_string()).or_insert(fresh);
        loss.count += 1;
        loss.smooth += weight * (value - loss.smooth);
        loss.best = loss.best.min(loss.smooth);
        let risen = loss.smooth > loss.best + (rise * loss.best.abs()).max(SLACK);
        loss.patience_used = if risen { loss.patience_used + 1 } else { 0 };
    }

    /// Patience starts anew; what was best stays.
    pub(crate) fn empty_windows(&mut self) {
        for loss in self.losses.values_mut() {
            (loss.smooth, loss.patience_used) = (loss.best, 0);
        }
    }
}

pub(crate) fn judge(view: &View, record: &LossRecord, out: &mut Vec<Verdict>) {
    let judged = |name: &str| {
        view.history.last(name)?; // reported at all
        record
            .losses
            .get(name)
            .filter(|loss| loss.count >= (view.config.grace + view.config.short_window) as u64)
    };
    let config = view.config;
    for name in SUPERVISED {
        let Some(loss) = judged(name) else { continue };
        let at_once = loss.smooth > loss.best + config.loss_rise;
        if at_once || loss.patience_used >= config.short_window as u64 {
            out.push(verdict(
                "loss-rise",
                Severity::Alarm,
                (name, loss.smooth),
                format!(
                    "within {} of its best, {}; at most {} above it",
                    number((config.loss_rise_relative * loss.best.abs()).max(SLACK)),
                    number(loss.best),
                    config.loss_rise
                ),
                format!(
                    "the loss, smoothed over {} updates, rose from its best of {} to {} and has been up for {} updates",
                    config.short_window,
                    number(loss.best),
                    number(loss.smooth),
                    loss.patience_used
                ),
                "lower the learning rate, or stop and keep the best checkpoint; if only the held-out loss rises, \
                 regularise (label smoothing, input noise, augmentation)",
            ));
        }
    }
    if let Some(loss) = judged(VALUE_ERROR).filter(|loss| loss.smooth > loss.best + config.loss_rise) {
        out.push(verdict(
            "value-loss",
            Severity::Alarm,
            (names::TRAIN_VALUE_LOSS, view.metrics.get(names::TRAIN_VALUE_LOSS).unwrap_or(f64::NAN)),
            format!(
                "an error within {} of the return scale of its best, {}",
                config.loss_rise,
                number(loss.best)
            ),
            format!(
                "the critic's error, smoothed over {} iterations, rose from {} to {} of the return scale",
                config.short_window,
                number(loss.best),
                number(loss.smooth)
            ),
            "lower curriculum.lr_scale or ppo.value_coef, set ppo.value_clip or ppo.value_loss = \"huber\"",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience(values: impl IntoIterator<Item = f64>) -> u64 {
        let mut record = LossRecord::default();
        values.into_iter().for_each(|value| record.observe(10, 0.1, "supervised/loss", value));
        record.losses["supervised/loss"].patience_used
    }

    #[test]
    fn patience_runs_while_the_smoothed_loss_is_above_its_best() {
        assert_eq!(patience([0.6; 50]), 0);
        let step = std::iter::repeat_n(0.60, 30).chain(std::iter::repeat_n(0.74, 12));
        // 0.14 (1 - (9/11)^n) exceeds a tenth of 0.6 from n = 3 on.
        assert_eq!(patience(step), 10);
        let falling = (0..60).map(|i| 0.7 - 0.01 * f64::from(i) + 0.02 * f64::from(i % 2));
        assert_eq!(patience(falling), 0);
    }

    #[test]
    fn a_loss_near_zero_may_double_without_alarm() {
        assert_eq!(patience(std::iter::repeat_n(0.001, 30).chain(std::iter::repeat_n(0.01, 30))), 0);
    }
}
