//! `[monitors]`: windows and thresholds of the health verdicts.

use gatefold_curriculum::Phase;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Windows and thresholds of the monitors.
///
/// Windows count iterations (one rollout and one update). A verdict needs a full window, and judges its
/// median, so that a fault shows after about half a window and a single outlier never does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MonitorConfig {
    /// Whether the run is judged. True or false; default true. False: no verdicts and nothing is unhealthy.
    pub enabled: bool,
    /// Time at the start, and after a return to a snapshot, that is not judged, in iterations. Range 0 to
    /// 1000; default 5.
    #[schemars(range(min = 0, max = 1000))]
    pub grace: usize,
    /// Window in iterations of what goes wrong fast: gradients, KL, actions, rewards. Range 2 to 100;
    /// default 10.
    #[schemars(range(min = 2, max = 100))]
    pub short_window: usize,
    /// Window in iterations of router, attention and explained variance. Range 2 to 100; default 20.
    #[schemars(range(min = 2, max = 100))]
    pub window: usize,
    /// Window in iterations of trends: score, unused experts, a stuck value head, chaotic routing. Range
    /// 4 to 100; default 50.
    #[schemars(range(min = 4, max = 100))]
    pub long_window: usize,

    /// Entropy of the mean gates below which routing has collapsed, as a fraction of ln K. Range 0 to 1;
    /// default 0.3.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub usage_entropy_alarm: f64,
    /// Entropy of the mean gates below which a warning stands, as a fraction of ln K; 0.8 of it in the
    /// fine-tune phase, where sparse routing may leave experts out. Range usage_entropy_alarm to 1;
    /// default 0.5.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub usage_entropy_warning: f64,
    /// Mean entropy of one decision's gates below which they count as low, as a fraction of ln K. Range 0
    /// to 1; default 0.216 (0.3 nats at K = 4).
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gate_entropy_low: f64,
    /// Mean entropy of one decision's gates above which sparse routing in the fine-tune phase is chaos, as
    /// a fraction of ln K. Range gate_entropy_low to 1; default 0.866 (1.2 nats at K = 4).
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gate_entropy_high: f64,
    /// Specialisation below which the router ignores its input, as a fraction of ln K. Range 0 to 1;
    /// default 0.001.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub specialisation_floor: f64,
    /// Mean gate above which one expert does everything, with three or more experts. A share, range 0 to
    /// 1; default 0.8.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub dominance: f64,
    /// Mean gate, and mean routing probability where it is reported, below which an expert is unused; in
    /// units of the even share 1/K. Range 0 to 1; default 0.05.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub dead_share: f64,
    /// Time without use after which an expert is reported, in iterations. Range 1 upwards; default 50.
    #[schemars(range(min = 1))]
    pub dead_after: u64,
    /// Mean change of routing probabilities per iteration below which the router is frozen, although the
    /// learning rate is above 0. A probability, range 0 to 1; default 1e-6.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub drift_floor: f64,

    /// Gradient norm before clipping above which a warning stands; without reward scaling in units of the
    /// return scale. Dimensionless, range 0 to grad_norm_alarm; default 5.
    #[schemars(range(min = 0.0))]
    pub grad_norm_warning: f64,
    /// Gradient norm before clipping above which training is unstable; dimensionless, as above.
    /// Range grad_norm_warning upwards; default 10.
    #[schemars(range(min = 0.0))]
    pub grad_norm_alarm: f64,
    /// Gradient norm of a single tensor that is an alarm, named; dimensionless, as above. Range 0 upwards;
    /// default 100.
    #[schemars(range(min = 0.0))]
    pub tensor_norm_alarm: f64,
    /// Share of clipped optimizer steps above which clipping sets the step size; for information. Range 0
    /// to 1; default 0.95.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub clipped_fraction: f64,

    /// Share of the last 20 updates discarded by the numerical guard above which a warning stands. A share,
    /// range 0 to discard_rate_alarm; default 0.1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub discard_rate_warning: f64,
    /// The share of them above which it is an alarm. Range discard_rate_warning to 1; default 0.25.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub discard_rate_alarm: f64,

    /// Mean cosine distance between nodes below which attention may have smoothed them over, dimensionless.
    /// Range 0 to 2; default 0.05.
    #[schemars(range(min = 0.0, max = 2.0))]
    pub smoothness_floor: f64,
    /// Fraction of the run's own early node distance below which, together with the floor, it is
    /// over-smoothing. Dimensionless, range 0 to 1; default 0.25. A tenth of the floor needs no such fall.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub smoothness_drop: f64,

    /// approx_kl above which a warning stands, in nats. Range 0 to approx_kl_alarm; default 0.05.
    #[schemars(range(min = 0.0))]
    pub approx_kl_warning: f64,
    /// approx_kl above which updates leave the trusted region, in nats. Range approx_kl_warning upwards;
    /// default 0.1.
    #[schemars(range(min = 0.0))]
    pub approx_kl_alarm: f64,
    /// Entropy of actions below which the policy is deterministic, as a fraction of the run's early
    /// entropy. Range 0 to 1; default 0.02.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub action_entropy_floor: f64,
    /// Share of the most frequent action above which the policy takes only one. Range 0 to 1; default
    /// 0.99.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub action_share: f64,
    /// Standard deviation of advantages below which they carry no signal, in units of the return scale.
    /// Range 0 to 1; default 0.001.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub advantage_std_floor: f64,

    /// Root mean squared value error below which the critic is good enough whatever its explained
    /// variance, in units of the return scale. Range 0 upwards; default 0.25.
    #[schemars(range(min = 0.0))]
    pub value_error_floor: f64,
    /// Explained variance below which the critic is worse than none. Dimensionless, at most 1; default
    /// -0.5.
    #[schemars(range(max = 1.0))]
    pub explained_variance_alarm: f64,
    /// sd(values) / sd(returns) below which the critic may be stuck at the mean. Dimensionless, range 0 to
    /// 1; default 0.1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub value_sd_ratio: f64,
    /// Skill over the best constant below which, with the ratio above, it is stuck. Dimensionless, at most
    /// 1; default 0.05.
    #[schemars(range(max = 1.0))]
    pub value_skill: f64,

    /// Gain over the run's first mean return from which on a run counts as having learned, as a fraction
    /// of that return's magnitude. Range 0 upwards; default 0.2.
    #[schemars(range(min = 0.0))]
    pub learned_gain: f64,
    /// Share of its best gain that a run may lose before the loss is reported. Range 0 to 10; default 0.5.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub lost_share: f64,
    /// Rise of a smoothed loss over its best that is an alarm at once: a supervised loss in its own units,
    /// PPO's value error in units of the return scale. Range 0 upwards; default 0.5.
    #[schemars(range(min = 0.0))]
    pub loss_rise: f64,
    /// Rise of a smoothed supervised loss over its best that is an alarm once it has lasted for short_window
    /// iterations, as a fraction of the best (at least 0.02 in the loss's own units). Range 0 upwards;
    /// default 0.1.
    #[schemars(range(min = 0.0))]
    pub loss_rise_relative: f64,
    /// Variance of the loss over 50 updates below which nothing moves, in squared units of the loss; for
    /// information. Range 0 upwards; default 1e-6.
    #[schemars(range(min = 0.0))]
    pub loss_variance_floor: f64,
    /// Gap between training and held-out data above which it is reported, for information: of accuracies as
    /// it is, of returns as a fraction of the larger magnitude. Range 0 to 2; default 0.1.
    #[schemars(range(min = 0.0, max = 2.0))]
    pub generalisation_gap: f64,
}

impl Default for MonitorConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            grace: 5,
            short_window: 10,
            window: 20,
            long_window: 50,
            usage_entropy_alarm: 0.3,
            usage_entropy_warning: 0.5,
            gate_entropy_low: 0.216,
            gate_entropy_high: 0.866,
            specialisation_floor: 1e-3,
            dominance: 0.8,
            dead_share: 0.05,
            dead_after: 50,
            drift_floor: 1e-6,
            grad_norm_warning: 5.0,
            grad_norm_alarm: 10.0,
            tensor_norm_alarm: 100.0,
            clipped_fraction: 0.95,
            discard_rate_warning: 0.1,
            discard_rate_alarm: 0.25,
            smoothness_floor: 0.05,
            smoothness_drop: 0.25,
            approx_kl_warning: 0.05,
            approx_kl_alarm: 0.1,
            action_entropy_floor: 0.02,
            action_share: 0.99,
            advantage_std_floor: 1e-3,
            value_error_floor: 0.25,
            explained_variance_alarm: -0.5,
            value_sd_ratio: 0.1,
            value_skill: 0.05,
            learned_gain: 0.2,
            lost_share: 0.5,
            loss_rise: 0.5,
            loss_rise_relative: 0.1,
            loss_variance_floor: 1e-6,
            generalisation_gap: 0.1,
        }
    }
}

/// A mistake in `[monitors]`: the key, its value, and what would be accepted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MonitorError {
    /// A number outside its range.
    #[error("[monitors] {key} = {value}: need {min} to {max}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// What was given.
        value: f64,
        /// The smallest accepted value.
        min: f64,
        /// The largest accepted value.
        max: f64,
    },
    /// Two thresholds or windows in the wrong order.
    #[error("[monitors] {lower} = {lower_value}: must not exceed {upper} = {upper_value}")]
    Order {
        /// The key that has to be the smaller one.
        lower: &'static str,
        /// Its value.
        lower_value: f64,
        /// The key that has to be the larger one.
        upper: &'static str,
        /// Its value.
        upper_value: f64,
    },
}

/// Share of the usage entropy's warning bound that holds in the fine-tune phase.
const FINE_TUNE_SHARE: f64 = 0.8;

impl MonitorConfig {
    /// Entropy of the mean gates, as a fraction of ln K, below which a warning stands in this phase.
    pub(crate) fn usage_entropy_bound(&self, phase: Phase) -> f64 {
        let share = if phase == Phase::FineTune { FINE_TUNE_SHARE } else { 1.0 };
        (self.usage_entropy_warning * share).max(self.usage_entropy_alarm)
    }

    /// Rejects values outside their range and thresholds out of order. NaN is in no range.
    pub fn validate(&self) -> Result<(), MonitorError> {
        const MOST: f64 = f64::MAX;
        let ranges = [
            ("grace", self.grace as f64, 0.0, 1000.0),
            ("short_window", self.short_window as f64, 2.0, 100.0),
            ("window", self.window as f64, 2.0, 100.0),
            ("long_window", self.long_window as f64, 4.0, 100.0),
            ("usage_entropy_alarm", self.usage_entropy_alarm, 0.0, 1.0),
            ("usage_entropy_warning", self.usage_entropy_warning, 0.0, 1.0),
            ("gate_entropy_low", self.gate_entropy_low, 0.0, 1.0),
            ("gate_entropy_high", self.gate_entropy_high, 0.0, 1.0),
            ("specialisation_floor", self.specialisation_floor, 0.0, 1.0),
            ("dominance", self.dominance, 0.0, 1.0),
            ("dead_share", self.dead_share, 0.0, 1.0),
            ("dead_after", self.dead_after as f64, 1.0, MOST),
            ("drift_floor", self.drift_floor, 0.0, 1.0),
            ("grad_norm_warning", self.grad_norm_warning, 0.0, MOST),
            ("grad_norm_alarm", self.grad_norm_alarm, 0.0, MOST),
            ("tensor_norm_alarm", self.tensor_norm_alarm, 0.0, MOST),
            ("clipped_fraction", self.clipped_fraction, 0.0, 1.0),
            ("discard_rate_warning", self.discard_rate_warning, 0.0, 1.0),
            ("discard_rate_alarm", self.discard_rate_alarm, 0.0, 1.0),
            ("smoothness_floor", self.smoothness_floor, 0.0, 2.0),
            ("smoothness_drop", self.smoothness_drop, 0.0, 1.0),
            ("approx_kl_warning", self.approx_kl_warning, 0.0, MOST),
            ("approx_kl_alarm", self.approx_kl_alarm, 0.0, MOST),
            ("action_entropy_floor", self.action_entropy_floor, 0.0, 1.0),
            ("action_share", self.action_share, 0.0, 1.0),
            ("advantage_std_floor", self.advantage_std_floor, 0.0, 1.0),
            ("value_error_floor", self.value_error_floor, 0.0, MOST),
            ("explained_variance_alarm", self.explained_variance_alarm, -MOST, 1.0),
            ("value_sd_ratio", self.value_sd_ratio, 0.0, 1.0),
            ("value_skill", self.value_skill, -MOST, 1.0),
            ("learned_gain", self.learned_gain, 0.0, MOST),
            ("lost_share", self.lost_share, 0.0, 10.0),
            ("loss_rise", self.loss_rise, 0.0, MOST),
            ("loss_rise_relative", self.loss_rise_relative, 0.0, MOST),
            ("loss_variance_floor", self.loss_variance_floor, 0.0, MOST),
            ("generalisation_gap", self.generalisation_gap, 0.0, 2.0),
        ];
        for (key, value, min, max) in ranges {
            if !(min..=max).contains(&value) {
                return Err(MonitorError::OutOfRange { key, value, min, max });
            }
        }
        let orders = [
            (
                "usage_entropy_alarm",
                self.usage_entropy_alarm,
                "usage_entropy_warning",
                self.usage_entropy_warning,
            ),
            ("gate_entropy_low", self.gate_entropy_low, "gate_entropy_high", self.gate_entropy_high),
            ("grad_norm_warning", self.grad_norm_warning, "grad_norm_alarm", self.grad_norm_alarm),
            ("approx_kl_warning", self.approx_kl_warning, "approx_kl_alarm", self.approx_kl_alarm),
            (
                "discard_rate_warning",
                self.discard_rate_warning,
                "discard_rate_alarm",
                self.discard_rate_alarm,
            ),
            ("short_window", self.short_window as f64, "window", self.window as f64),
            ("window", self.window as f64, "long_window", self.long_window as f64),
        ];
        for (lower, lower_value, upper, upper_value) in orders {
            if lower_value > upper_value {
                return Err(MonitorError::Order { lower, lower_value, upper, upper_value });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The defaults with one key changed, as a file would.
    fn with(key: &str, value: serde_json::Value) -> Result<MonitorConfig, serde_json::Error> {
        let mut table = serde_json::to_value(MonitorConfig::default()).unwrap();
        table[key] = value;
        serde_json::from_value(table)
    }

    #[test]
    fn the_defaults_are_valid_and_an_unknown_key_is_not() {
        assert_eq!(MonitorConfig::default().validate(), Ok(()));
        assert!(with("patience", 3.into()).unwrap_err().to_string().contains("unknown field `patience`"));
    }

    #[test]
    fn every_range_that_the_schema_states_is_checked() {
        let schema = serde_json::to_value(schemars::schema_for!(MonitorConfig)).unwrap();
        let mut checked = 0;
        for (key, property) in schema["properties"].as_object().unwrap() {
            for (bound, outside) in [("minimum", -1.0), ("maximum", 1.0)] {
                let Some(limit) = property.get(bound).and_then(serde_json::Value::as_f64) else { continue };
                let value = limit + outside;
                let whole = property["type"] == "integer";
                if whole && value < 0.0 {
                    continue; // not even a number of iterations
                }
                let value = if whole { (value as u64).into() } else { value.into() };
                let error = with(key, value).unwrap().validate().unwrap_err().to_string();
                assert!(error.starts_with(&format!("[monitors] {key} = ")), "{key}: {error}");
                checked += 1;
            }
            let doc = property["description"].as_str().unwrap_or_default();
            assert!(doc.contains("efault"), "{key} states no default");
        }
        assert!(checked > 40, "{checked}");
        let nan = MonitorConfig { dominance: f64::NAN, ..MonitorConfig::default() };
        assert!(nan.validate().is_err());
    }

    #[test]
    fn a_warning_may_not_stand_behind_its_alarm() {
        let cases = [
            ("usage_entropy_alarm", 0.6, "usage_entropy_warning = 0.5"),
            ("gate_entropy_low", 0.9, "gate_entropy_high = 0.866"),
            ("grad_norm_warning", 11.0, "grad_norm_alarm = 10"),
            ("approx_kl_warning", 0.2, "approx_kl_alarm = 0.1"),
            ("discard_rate_warning", 0.3, "discard_rate_alarm = 0.25"),
        ];
        for (key, value, other) in cases {
            let error = with(key, value.into()).unwrap().validate().unwrap_err().to_string();
            assert!(error.ends_with(&format!("must not exceed {other}")), "{error}");
        }
        for (key, value, other) in [("short_window", 21, "window = 20"), ("window", 51, "long_window = 50")] {
            let error = with(key, value.into()).unwrap().validate().unwrap_err().to_string();
            assert!(error.ends_with(&format!("must not exceed {other}")), "{error}");
        }
    }
}
