//! Every key of `[monitors]` changes what is judged.

mod planted;

use std::collections::BTreeSet;

use gatefold_monitor::{Metrics, MonitorConfig, Severity, names};
use planted::{Run, wobble};
use serde_json::Value;

/// What is done to an iteration's metrics.
type Fault = Box<dyn Fn(u64, &mut Metrics)>;

/// A run with one key changed.
fn with(key: &str, value: &Value) -> Run {
    let mut table = serde_json::to_value(MonitorConfig::default()).unwrap();
    assert!(table.get(key).is_some(), "no key {key}");
    table[key] = value.clone();
    let config: MonitorConfig = serde_json::from_value(table).unwrap();
    assert_eq!(config.validate(), Ok(()), "{key}");
    Run { config, ..Run::default() }
}

fn set(name: &str, value: f64) -> Fault {
    let name = name.to_string();
    Box::new(move |_, metrics| metrics.set(name.clone(), value))
}

/// After iteration 100, from which on windows are full and the run has learned.
fn later(name: &str, value: f64) -> Fault {
    let name = name.to_string();
    Box::new(move |iteration, metrics| {
        if iteration > 100 {
            metrics.set(name.clone(), value);
        }
    })
}

fn usage(shares: [f64; 4]) -> Fault {
    Box::new(move |_, metrics| {
        for (expert, share) in shares.into_iter().enumerate() {
            metrics.set(names::usage(&format!("expert{expert}")), share);
            metrics.set(names::probability(&format!("expert{expert}")), share);
        }
    })
}

/// Several metrics at fixed values after iteration 100.
fn all(values: &'static [(&'static str, f64)]) -> Fault {
    Box::new(move |iteration, metrics| {
        if iteration > 100 {
            values.iter().for_each(|&(name, value)| metrics.set(name, value));
        }
    })
}

#[test]
fn every_key_decides_whether_or_when_a_fault_fires() {
    use Severity::{Alarm, Info, Warning};
    let layer = names::gat_layer(0, "smoothness");
    let loss = |to: f64| -> Fault {
        Box::new(move |iteration, metrics| {
            metrics.set(names::SUPERVISED_LOSS, if iteration > 100 { to } else { 0.6 });
        })
    };
    let nearly_flat: Fault = Box::new(|iteration, metrics| {
        let rise = if iteration > 20 { 5.0 } else { 0.0 };
        metrics.set(names::ROLLOUT_RETURN_MEAN, 20.0 + rise + 0.1 * wobble(iteration, 90));
    });
    let loses_half: Fault = Box::new(|iteration, metrics| {
        if iteration > 100 {
            metrics.set(names::ROLLOUT_RETURN_MEAN, 25.0 + wobble(iteration, 91));
        }
    });
    let cases: Vec<(&str, Value, &str, Severity, Fault)> = vec![
        ("enabled", false.into(), "approx-kl", Alarm, set(names::TRAIN_APPROX_KL, 1.0)),
        ("grace", 30.into(), "approx-kl", Alarm, set(names::TRAIN_APPROX_KL, 1.0)),
        ("short_window", 20.into(), "approx-kl", Alarm, set(names::TRAIN_APPROX_KL, 1.0)),
        ("window", 40.into(), "router-collapse", Alarm, set(names::ROUTER_USAGE_ENTROPY, 0.1)),
        ("long_window", 80.into(), "stagnation", Alarm, set(names::ROLLOUT_RETURN_MEAN, 20.0)),
        (
            "usage_entropy_alarm",
            0.1.into(),
            "router-collapse",
            Alarm,
            later(names::ROUTER_USAGE_ENTROPY, 0.2),
        ),
        (
            "usage_entropy_warning",
            0.35.into(),
            "router-collapse",
            Warning,
            later(names::ROUTER_USAGE_ENTROPY, 0.36),
        ),
        ("gate_entropy_low", 0.05.into(), "gate-entropy", Info, set(names::ROUTER_ENTROPY, 0.2)),
        ("gate_entropy_high", 0.95.into(), "router-chaos", Warning, set(names::ROUTER_ENTROPY, 1.25)),
        (
            "specialisation_floor",
            1e-5.into(),
            "constant-router",
            Warning,
            set(names::ROUTER_SPECIALISATION, 1e-4),
        ),
        ("dominance", 0.9.into(), "expert-dominance", Alarm, usage([0.85, 0.05, 0.05, 0.05])),
        ("dead_share", 0.01.into(), "dead-expert", Warning, usage([0.005, 0.33, 0.33, 0.335])),
        ("dead_after", 250.into(), "dead-expert", Warning, usage([0.0, 0.33, 0.33, 0.34])),
        ("drift_floor", 1e-9.into(), "router-frozen", Alarm, set(names::ROUTER_DRIFT, 1e-7)),
        ("grad_norm_warning", 8.0.into(), "gradient-norm", Warning, set(names::TRAIN_GRAD_NORM, 7.0)),
        ("grad_norm_alarm", 20.0.into(), "gradient-norm", Alarm, set(names::TRAIN_GRAD_NORM, 15.0)),
        (
            "tensor_norm_alarm",
            500.0.into(),
            "tensor-gradient",
            Alarm,
            set(names::TRAIN_GRAD_NORM_MAX_TENSOR, 200.0),
        ),
        (
            "clipped_fraction",
            0.99.into(),
            "clipped-gradients",
            Info,
            set(names::TRAIN_GRAD_CLIPPED_FRACTION, 0.97),
        ),
        ("smoothness_floor", 0.01.into(), "over-smoothing", Alarm, later(&layer, 0.03)),
        ("smoothness_drop", 0.01.into(), "over-smoothing", Alarm, later(&layer, 0.03)),
        ("approx_kl_warning", 0.09.into(), "approx-kl", Warning, set(names::TRAIN_APPROX_KL, 0.07)),
        (
            "discard_rate_warning",
            0.2.into(),
            "discarded-updates",
            Warning,
            set(names::GUARD_DISCARD_RATE, 0.15),
        ),
        ("discard_rate_alarm", 0.5.into(), "discarded-updates", Alarm, set(names::GUARD_DISCARD_RATE, 0.3)),
        ("approx_kl_alarm", 0.5.into(), "approx-kl", Alarm, set(names::TRAIN_APPROX_KL, 0.3)),
        ("action_entropy_floor", 0.001.into(), "action-collapse", Alarm, later(names::TRAIN_ENTROPY, 0.01)),
        (
            "action_share",
            0.9999.into(),
            "action-collapse",
            Alarm,
            all(&[(names::TRAIN_ACTION_MAX_SHARE, 0.999), (names::ROLLOUT_RETURN_MEAN, 30.0)]),
        ),
        ("advantage_std_floor", 1e-6.into(), "advantage-std", Info, set(names::TRAIN_ADVANTAGE_STD, 1e-5)),
        (
            "value_error_floor",
            0.9.into(),
            "explained-variance",
            Alarm,
            all(&[(names::TRAIN_EXPLAINED_VARIANCE, -2.0), (names::TRAIN_VALUE_LOSS, 1.5)]),
        ),
        (
            "explained_variance_alarm",
            (-3.0).into(),
            "explained-variance",
            Alarm,
            all(&[(names::TRAIN_EXPLAINED_VARIANCE, -2.0), (names::TRAIN_VALUE_LOSS, 1.5)]),
        ),
        (
            "value_sd_ratio",
            0.01.into(),
            "value-head",
            Alarm,
            all(&[
                (names::TRAIN_VALUE_SD_RATIO, 0.05),
                (names::TRAIN_VALUE_SKILL, 0.0),
                (names::TRAIN_VALUE_LOSS, 1.0),
            ]),
        ),
        (
            "value_skill",
            (-0.1).into(),
            "value-head",
            Alarm,
            all(&[
                (names::TRAIN_VALUE_SD_RATIO, 0.05),
                (names::TRAIN_VALUE_SKILL, 0.0),
                (names::TRAIN_VALUE_LOSS, 1.0),
            ]),
        ),
        ("learned_gain", 0.3.into(), "plateau", Info, nearly_flat),
        ("lost_share", 0.9.into(), "score-lost", Warning, loses_half),
        ("loss_rise", 5.0.into(), "loss-rise", Alarm, {
            // Up for less than the patience of the relative rule.
            Box::new(|iteration, metrics| {
                metrics.set(names::SUPERVISED_LOSS, if iteration == 150 { 8.0 } else { 0.6 });
            })
        }),
        ("loss_rise_relative", 0.5.into(), "loss-rise", Alarm, loss(0.74)),
        (
            "loss_variance_floor",
            1e-12.into(),
            "loss-variance",
            Info,
            Box::new(|iteration, metrics| {
                metrics.set(names::TRAIN_LOSS, 1e-4 * wobble(iteration, 92));
                metrics.set(names::ROLLOUT_RETURN_MEAN, 20.0);
            }),
        ),
        ("generalisation_gap", 0.5.into(), "generalisation-gap", Info, {
            Box::new(|_, metrics| {
                metrics.set(names::SUPERVISED_ACCURACY, 0.9);
                metrics.set(names::SUPERVISED_VALIDATION_ACCURACY, 0.7);
            })
        }),
    ];
    for (key, value, monitor, severity, fault) in &cases {
        let by_default = Run::default().first(220, monitor, *severity, fault);
        let changed = with(key, value).first(220, monitor, *severity, fault);
        assert!(by_default.is_some(), "{key}: {monitor} does not fire at all");
        assert_ne!(by_default, changed, "{key} = {value} changes nothing");
        assert!(changed.is_none() || changed > by_default, "{key} = {value} should make {monitor} patient");
    }
    let table = serde_json::to_value(MonitorConfig::default()).unwrap();
    let keys: BTreeSet<&str> = table.as_object().unwrap().keys().map(String::as_str).collect();
    let tested: BTreeSet<&str> = cases.iter().map(|case| case.0).collect();
    assert_eq!(tested, keys);
}
