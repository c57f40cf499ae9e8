//! Each monitor fires on a fault planted in a healthy run, within its window, and not without it.

mod memory;
mod planted;

use gatefold_curriculum::{Phase, Routing};
use gatefold_monitor::{Metrics, Severity, names};
use planted::{Run, wobble};

const NO_FAULT: &dyn Fn(u64, &mut Metrics) = &|_, _| {};
/// First iteration of a planted fault, in the fine-tune phase.
const PLANTED: u64 = 130;

/// One metric takes one value from the planted iteration on.
fn from_planted(name: &str, value: f64) -> impl Fn(u64, &mut Metrics) {
    move |iteration, metrics| {
        if iteration >= PLANTED {
            metrics.set(name.to_string(), value);
        }
    }
}

#[test]
fn a_healthy_run_raises_no_warning_and_no_alarm() {
    for experts in [0, 1, 2, 4, 16] {
        let run = Run { experts, ..Run::default() };
        for judgement in run.judge(300, NO_FAULT) {
            let loud: Vec<_> = judgement.verdicts.iter().filter(|v| v.severity > Severity::Info).collect();
            assert!(loud.is_empty(), "K = {experts}: {loud:?}");
            assert!(judgement.is_healthy() && judgement.evidence().is_empty());
        }
    }
}

#[test]
fn every_monitor_fires_within_its_window_and_names_evidence_and_advice() {
    let experts = Run::default().names();
    let smoothness = names::gat_layer(1, "smoothness");
    let dominant = |iteration: u64, metrics: &mut Metrics| {
        if iteration >= PLANTED {
            for (index, expert) in experts.iter().enumerate() {
                metrics.set(names::usage(expert), if index == 2 { 0.85 } else { 0.05 });
            }
        }
    };
    let constant_router = |iteration: u64, metrics: &mut Metrics| {
        if iteration >= PLANTED {
            metrics.set(names::ROUTER_SPECIALISATION, 1e-5);
            metrics.set(names::ROUTER_ENTROPY, 0.2);
        }
    };
    let dead = |iteration: u64, metrics: &mut Metrics| {
        if iteration >= PLANTED {
            for expert in &experts[1..] {
                metrics.set(names::usage(expert), 0.0);
                metrics.set(names::probability(expert), 1e-4);
            }
        }
    };
    let no_reward = |iteration: u64, metrics: &mut Metrics| {
        if iteration >= PLANTED {
            metrics.set(names::ROLLOUT_REWARD_ABS_MEAN, 0.0);
        }
    };
    let bad_critic = |iteration: u64, metrics: &mut Metrics| {
        if iteration >= PLANTED {
            metrics.set(names::TRAIN_EXPLAINED_VARIANCE, -2.0 + 0.1 * wobble(iteration, 99));
            metrics.set(names::TRAIN_VALUE_LOSS, 1.5);
        }
    };
    let stuck_critic = |iteration: u64, metrics: &mut Metrics| {
        if iteration >= PLANTED {
            metrics.set(names::TRAIN_VALUE_SD_RATIO, 0.01);
            metrics.set(names::TRAIN_VALUE_SKILL, 0.0);
            metrics.set(names::TRAIN_EXPLAINED_VARIANCE, 0.0);
            metrics.set(names::TRAIN_VALUE_LOSS, 1.0);
        }
    };
    let lost = |iteration: u64, metrics: &mut Metrics| {
        if iteration >= PLANTED {
            metrics.set(names::ROLLOUT_RETURN_MEAN, 5.0 + wobble(iteration, 98));
        }
    };
    let chaos = from_planted(names::ROUTER_ENTROPY, 1.3);
    let undecided = |_: u64, metrics: &mut Metrics| metrics.set(names::ROUTER_ENTROPY, 1.3);
    let undecided_and_poor = |iteration: u64, metrics: &mut Metrics| {
        undecided(iteration, metrics);
        if iteration > 100 {
            metrics.set(names::ROLLOUT_RETURN_MEAN, 40.0);
        }
    };
    type Case<'a> = (&'a str, Severity, u64, u64, &'a dyn Fn(u64, &mut Metrics));
    use Severity::{Alarm, Info, Warning};
    let kl = from_planted(names::TRAIN_APPROX_KL, 0.3);
    let mild_kl = from_planted(names::TRAIN_APPROX_KL, 0.07);
    let collapse = from_planted(names::ROUTER_USAGE_ENTROPY, 0.2);
    let narrow = from_planted(names::ROUTER_USAGE_ENTROPY, 0.38);
    let frozen = from_planted(names::ROUTER_DRIFT, 0.0);
    let norm = from_planted(names::TRAIN_GRAD_NORM, 30.0);
    let mild_norm = from_planted(names::TRAIN_GRAD_NORM, 7.0);
    let tensor = from_planted(names::TRAIN_GRAD_NORM_MAX_TENSOR, 400.0);
    let clipped = from_planted(names::TRAIN_GRAD_CLIPPED_FRACTION, 1.0);
    let smooth = from_planted(&smoothness, 0.01);
    let silent = from_planted(names::TRAIN_ENTROPY, 1e-4);
    let one_action = |iteration: u64, metrics: &mut Metrics| {
        if iteration >= PLANTED {
            metrics.set(names::TRAIN_ACTION_MAX_SHARE, 0.999);
            metrics.set(names::ROLLOUT_RETURN_MEAN, 30.0);
        }
    };
    let flat_advantages = |iteration: u64, metrics: &mut Metrics| {
        if iteration >= PLANTED {
            metrics.set(names::TRAIN_ADVANTAGE_STD, 1e-5);
            metrics.set(names::ROLLOUT_RETURN_MEAN, 30.0);
        }
    };
    let often = from_planted(names::GUARD_DISCARD_RATE, 0.3);
    let at_times = from_planted(names::GUARD_DISCARD_RATE, 0.15);
    let nan = from_planted(names::TRAIN_LOSS, f64::NAN);
    let low_gates = from_planted(names::ROUTER_ENTROPY, 0.1);
    let cases: &[Case] = &[
        // monitor, severity, first iteration it can know of, window, fault
        ("not-finite", Alarm, PLANTED, 1, &nan),
        ("discarded-updates", Alarm, PLANTED, 1, &often),
        ("discarded-updates", Warning, PLANTED, 1, &at_times),
        ("router-collapse", Alarm, PLANTED, 20, &collapse),
        ("router-collapse", Warning, PLANTED, 20, &narrow),
        ("gate-entropy", Info, PLANTED, 20, &low_gates),
        ("router-chaos", Warning, 70, 100, &undecided),
        ("router-chaos", Alarm, 70, 50, &undecided_and_poor),
        ("router-chaos", Alarm, PLANTED, 20, &chaos),
        ("constant-router", Alarm, PLANTED, 20, &constant_router),
        ("expert-dominance", Alarm, PLANTED, 20, &dominant),
        ("dead-expert", Alarm, PLANTED, 50, &dead),
        ("router-frozen", Alarm, PLANTED, 20, &frozen),
        ("gradient-norm", Alarm, PLANTED, 10, &norm),
        ("gradient-norm", Warning, PLANTED, 10, &mild_norm),
        ("tensor-gradient", Alarm, PLANTED, 10, &tensor),
        ("clipped-gradients", Info, PLANTED, 20, &clipped),
        ("over-smoothing", Alarm, PLANTED, 20, &smooth),
        ("approx-kl", Alarm, PLANTED, 10, &kl),
        ("approx-kl", Warning, PLANTED, 10, &mild_kl),
        ("action-collapse", Alarm, PLANTED, 10, &silent),
        ("action-collapse", Alarm, PLANTED, 10, &one_action),
        ("advantage-std", Warning, PLANTED, 10, &flat_advantages),
        ("explained-variance", Alarm, PLANTED, 20, &bad_critic),
        ("value-head", Alarm, PLANTED, 50, &stuck_critic),
        ("no-reward", Alarm, PLANTED, 10, &no_reward),
        ("score-lost", Warning, PLANTED, 20, &lost),
        ("score-lost", Alarm, PLANTED, 55, &lost),
    ];
    for &(monitor, severity, planted, window, fault) in cases {
        let fired = Run::default().first(planted + window + 5, monitor, severity, fault);
        let fired = fired.unwrap_or_else(|| panic!("{monitor} did not fire"));
        assert!(fired >= planted, "{monitor} fired in {fired}, before its fault");
        let judgements = Run::default().judge(fired, fault);
        let verdict = judgements[fired as usize - 1].verdicts.iter().find(|v| v.monitor == monitor).unwrap();
        assert_eq!(verdict.severity, severity, "{monitor}");
        assert_eq!(verdict.since, Run::default().first(fired, monitor, Info, fault).unwrap());
        let numbers = verdict.evidence.contains(|c: char| c.is_ascii_digit()) || verdict.value.is_nan();
        assert!(numbers, "{monitor}: {}", verdict.evidence);
        assert!(!verdict.advice.is_empty() && !verdict.healthy.is_empty());
        assert_eq!(judgements[fired as usize - 1].is_healthy(), severity != Alarm, "{monitor}");
    }
}

#[test]
fn a_supervised_loss_that_goes_from_60_to_74_fires_within_a_window() {
    let step = |iteration: u64, metrics: &mut Metrics| {
        let loss = if iteration < PLANTED { 0.60 } else { 0.74 };
        metrics.set(names::SUPERVISED_VALIDATION_LOSS, loss + 0.01 * wobble(iteration, 97));
    };
    let fired = Run::default().first(200, "loss-rise", Severity::Alarm, &step).unwrap();
    assert!((PLANTED..=PLANTED + 15).contains(&fired), "{fired}");
    let steady = |iteration: u64, metrics: &mut Metrics| {
        metrics.set(names::SUPERVISED_VALIDATION_LOSS, 0.60 + 0.05 * wobble(iteration, 97));
    };
    assert_eq!(Run::default().first(400, "loss-rise", Severity::Info, &steady), None);
}

#[test]
fn an_absolute_rise_of_a_loss_fires_at_once() {
    let jump = |iteration: u64, metrics: &mut Metrics| {
        metrics.set(names::SUPERVISED_LOSS, if iteration < PLANTED { 2.0 } else { 6.0 });
    };
    let fired = Run::default().first(200, "loss-rise", Severity::Alarm, &jump).unwrap();
    assert!((PLANTED..PLANTED + 3).contains(&fired), "{fired}");
}

#[test]
fn a_critic_that_diverges_fires_in_units_of_the_return_scale() {
    let diverges = |iteration: u64, metrics: &mut Metrics| {
        if iteration >= PLANTED {
            metrics.set(names::TRAIN_VALUE_LOSS, 50.0);
            metrics.set(names::TRAIN_EXPLAINED_VARIANCE, -100.0);
        }
    };
    let fired = Run::default().first(200, "value-loss", Severity::Alarm, &diverges).unwrap();
    assert!((PLANTED..=PLANTED + 15).contains(&fired), "{fired}");
}

#[test]
fn a_return_that_never_rises_is_stagnation_and_one_at_its_best_is_not() {
    let never = |level: f64| {
        move |iteration: u64, metrics: &mut Metrics| {
            metrics.set(names::ROLLOUT_RETURN_MEAN, level + wobble(iteration, 96));
        }
    };
    let stagnates = never(20.0);
    let fired = Run::default().first(60, "stagnation", Severity::Alarm, &stagnates).unwrap();
    assert_eq!(fired, 55, "grace and a long window");
    let at_target = Run { target_return: Some(18.0), ..Run::default() };
    assert_eq!(at_target.first(300, "stagnation", Severity::Info, &stagnates), None);

    // CartPole: up to 500 and there it stays, deterministic, critic exact, advantages tiny.
    let solved = |iteration: u64, metrics: &mut Metrics| {
        let level = (20.0 + 5.0 * iteration as f64).min(500.0);
        metrics.set(names::ROLLOUT_RETURN_MEAN, level);
        metrics.set(names::ROLLOUT_VALUE_MEAN, level / 5.0);
        metrics.set(names::REWARD_SCALE, 1.0);
        if iteration > 110 {
            metrics.set(names::TRAIN_VALUE_LOSS, 1e-7);
            metrics.set(names::TRAIN_EXPLAINED_VARIANCE, -5.0);
            metrics.set(names::TRAIN_VALUE_SKILL, -5.0);
            metrics.set(names::TRAIN_VALUE_SD_RATIO, 0.01);
            metrics.set(names::TRAIN_ADVANTAGE_STD, 1e-4);
        }
        let entropy = (0.69 - 0.004 * iteration as f64).max(1e-3);
        metrics.set(names::TRAIN_ENTROPY, entropy);
        metrics.set(names::TRAIN_GRAD_NORM, 30.0 * f64::from(u8::from(iteration < 110)));
    };
    let run = Run { experts: 1, ..Run::default() };
    for (index, judgement) in run.judge(400, &solved).iter().enumerate() {
        assert!(judgement.is_healthy(), "iteration {}: {}", index + 1, judgement.evidence());
    }
    assert!(run.first(400, "plateau", Severity::Info, &solved).is_some());
}

#[test]
fn rewards_that_were_never_seen_are_given_a_long_window() {
    let nothing = |_: u64, metrics: &mut Metrics| {
        metrics.set(names::ROLLOUT_REWARD_ABS_MEAN, 0.0);
        metrics.set(names::ROLLOUT_RETURN_MEAN, 0.0);
    };
    assert_eq!(Run::default().first(100, "no-reward", Severity::Info, &nothing), Some(55));
    let rare = |iteration: u64, metrics: &mut Metrics| {
        if !iteration.is_multiple_of(30) {
            metrics.set(names::ROLLOUT_REWARD_ABS_MEAN, 0.0);
        }
    };
    assert_eq!(Run::default().first(300, "no-reward", Severity::Info, &rare), None, "rare is not gone");
    let no_more_penalties = |iteration: u64, metrics: &mut Metrics| {
        let left = (40.0 - iteration as f64).max(0.0);
        metrics.set(names::ROLLOUT_REWARD_ABS_MEAN, left);
        metrics.set(names::ROLLOUT_RETURN_MEAN, -left);
    };
    assert_eq!(Run::default().first(300, "no-reward", Severity::Info, &no_more_penalties), None);
}

#[test]
fn ranges_are_relative_to_the_number_of_experts() {
    for (experts, chaotic, calm) in [(2_usize, 0.62, 0.58), (4, 1.22, 1.18), (16, 2.42, 2.38)] {
        let run = Run { experts, ..Run::default() };
        let at = |nats: f64| move |_: u64, metrics: &mut Metrics| metrics.set(names::ROUTER_ENTROPY, nats);
        assert!(run.first(200, "router-chaos", Severity::Warning, &at(chaotic)).is_some(), "K = {experts}");
        assert_eq!(run.first(200, "router-chaos", Severity::Info, &at(calm)), None, "K = {experts}");

        // The range of usage is 0.4/K to 1.6/K, and only with three experts or more can one dominate.
        let names_ = run.names();
        let first_at = |share: f64| {
            let names_ = names_.clone();
            move |_: u64, metrics: &mut Metrics| {
                for (index, name) in names_.iter().enumerate() {
                    let rest = (1.0 - share) / (names_.len() - 1) as f64;
                    metrics.set(names::usage(name), if index == 0 { share } else { rest });
                }
            }
        };
        let even = 1.0 / experts as f64;
        assert!(run.first(39, "expert-usage", Severity::Info, &first_at(1.65 * even)).is_some());
        assert_eq!(run.first(39, "expert-usage", Severity::Info, &first_at(1.3 * even)), None);
        let dominates = run.first(200, "expert-dominance", Severity::Alarm, &first_at(0.85)).is_some();
        assert_eq!(dominates, experts >= 3, "K = {experts}");
    }
}

#[test]
fn there_is_no_verdict_about_routing_where_none_is_learned() {
    let broken = |_: u64, metrics: &mut Metrics| {
        metrics.set(names::ROUTER_USAGE_ENTROPY, 0.0);
        metrics.set(names::ROUTER_ENTROPY, 0.0);
        metrics.set(names::ROUTER_SPECIALISATION, 0.0);
        metrics.set(names::ROUTER_DRIFT, 0.0);
        metrics.set(names::usage("expert0"), 1.0);
        metrics.set(names::usage("expert1"), 0.0);
    };
    for (experts, routing) in
        [(1, None), (4, Some(Routing::Dense)), (4, Some(Routing::Uniform)), (4, Some(Routing::Random))]
    {
        let run = Run { experts, routing, ..Run::default() };
        for judgement in run.judge(150, &broken) {
            assert_eq!(judgement.verdicts, [], "K = {experts}, {routing:?}");
        }
    }
    let learned = Run { routing: Some(Routing::Softmax), ..Run::default() };
    assert!(learned.first(150, "router-collapse", Severity::Alarm, &broken).is_some());
}

#[test]
fn sparse_fine_tune_may_use_fewer_experts_than_warmup() {
    let narrow = |_: u64, metrics: &mut Metrics| metrics.set(names::ROUTER_USAGE_ENTROPY, 0.45);
    assert!(Run::default().first(39, "router-collapse", Severity::Warning, &narrow).is_some());
    let late = |iteration: u64, metrics: &mut Metrics| {
        if Run::default().plan(iteration).0 == Phase::FineTune {
            metrics.set(names::ROUTER_USAGE_ENTROPY, 0.45);
        }
    };
    assert_eq!(Run::default().first(300, "router-collapse", Severity::Info, &late), None);
}

#[test]
fn a_transient_at_the_start_or_a_single_spike_is_no_verdict() {
    let transient = |iteration: u64, metrics: &mut Metrics| {
        if iteration <= 9 || iteration.is_multiple_of(25) {
            metrics.set(names::TRAIN_GRAD_NORM, 200.0);
            metrics.set(names::TRAIN_GRAD_NORM_MAX_TENSOR, 150.0);
            metrics.set(names::TRAIN_APPROX_KL, 1.0);
        }
    };
    for judgement in Run::default().judge(150, &transient) {
        assert_eq!(judgement.verdicts, []);
    }
}

#[test]
fn gradients_of_raw_rewards_are_measured_by_the_size_of_returns() {
    // CartPole with CleanRL's constants: norms of 10 to 40 while returns are of size 100.
    let raw = |iteration: u64, metrics: &mut Metrics| {
        metrics.set(names::REWARD_SCALE, 1.0);
        metrics.set(names::ROLLOUT_VALUE_MEAN, 20.0 + wobble(iteration, 95));
        metrics.set(names::TRAIN_VALUE_LOSS, 10.0);
        metrics.set(names::TRAIN_GRAD_NORM, 40.0);
    };
    assert_eq!(Run::default().first(200, "gradient-norm", Severity::Info, &raw), None);
    let scaled = |iteration: u64, metrics: &mut Metrics| {
        raw(iteration, metrics);
        metrics.set(names::REWARD_SCALE, 7.3);
    };
    assert!(Run::default().first(200, "gradient-norm", Severity::Alarm, &scaled).is_some());
}

#[test]
fn an_expert_that_balance_can_still_reach_is_a_warning_and_not_an_alarm() {
    let experts = Run::default().names();
    let resting = |probability: f64| {
        let experts = experts.clone();
        move |_: u64, metrics: &mut Metrics| {
            for expert in &experts[1..] {
                metrics.set(names::usage(expert), 0.0);
                metrics.set(names::probability(expert), probability);
            }
        }
    };
    let alarm = |probability: f64| {
        Run::default().first(120, "dead-expert", Severity::Alarm, &resting(probability)).is_some()
    };
    assert!(alarm(1e-3) && !alarm(0.1));
    assert!(Run::default().first(120, "dead-expert", Severity::Warning, &resting(0.1)).is_some());
    let judged = Run::default().judge(80, &resting(0.1));
    assert_eq!(judged[79].metrics.get(names::ROUTER_DEAD_AGE), Some(80.0));
}

#[test]
fn gates_that_never_change_are_a_frozen_router_even_without_a_probe_batch() {
    let run = Run::default();
    let without_probe = |frozen: bool| {
        let experts = run.names();
        move |iteration: u64, metrics: &mut Metrics| {
            *metrics = metrics.iter().filter(|(name, _)| *name != names::ROUTER_DRIFT).fold(
                Metrics::new(),
                |mut kept, (name, value)| {
                    kept.set(name.to_string(), value);
                    kept
                },
            );
            if frozen && iteration >= PLANTED {
                experts.iter().for_each(|expert| metrics.set(names::usage(expert), 0.25));
            }
        }
    };
    let fired = run.first(200, "router-frozen", Severity::Alarm, &without_probe(true)).unwrap();
    assert!((PLANTED..=PLANTED + 25).contains(&fired), "{fired}");
    assert_eq!(run.first(200, "router-frozen", Severity::Info, &without_probe(false)), None);
    let no_rate = |iteration: u64, metrics: &mut Metrics| {
        without_probe(true)(iteration, metrics);
        metrics.set(names::TRAIN_LEARNING_RATE, 0.0);
    };
    assert_eq!(run.first(200, "router-frozen", Severity::Info, &no_rate), None, "nothing should move");
}

#[test]
fn variances_and_gaps_are_reported_and_never_alarm() {
    let supervised = |iteration: u64, metrics: &mut Metrics| {
        metrics.set(
            names::SUPERVISED_ACCURACY,
            0.9 + 0.05 * if iteration.is_multiple_of(2) { 1.0 } else { -1.0 },
        );
        metrics.set(names::SUPERVISED_VALIDATION_ACCURACY, 0.7);
        metrics.set(names::LOSSES_PET, 0.5);
        metrics.set(names::TRAIN_LOSS, 0.3);
        metrics.set(names::ROLLOUT_RETURN_MEAN, 5.0);
    };
    let run = Run { target_return: None, ..Run::default() };
    let judgements = run.judge(120, &supervised);
    let last = &judgements[119];
    let close = |name: &str, expected: f64| (last.metrics.get(name).unwrap() - expected).abs() < 1e-12;
    assert!(close(names::SUPERVISED_ACCURACY_VARIANCE_50, 0.0025));
    assert!(close(names::SUPERVISED_ACCURACY_VARIANCE_100, 0.0025));
    assert!(close(names::LOSSES_PET_VARIANCE_50, 0.0) && close(names::TRAIN_LOSS_VARIANCE_100, 0.0));
    assert_eq!(judgements[48].metrics.get(names::TRAIN_LOSS_VARIANCE_50), None, "49 updates");
    for monitor in ["loss-variance", "generalisation-gap"] {
        let verdict = last.verdicts.iter().find(|v| v.monitor == monitor).expect(monitor);
        assert_eq!(verdict.severity, Severity::Info);
    }
    let worse_in_evaluation = |_: u64, metrics: &mut Metrics| {
        let training = metrics.get(names::ROLLOUT_RETURN_MEAN).unwrap();
        metrics.set(names::EVAL_RETURN_MEAN, 0.5 * training);
    };
    assert!(run.first(20, "generalisation-gap", Severity::Info, &worse_in_evaluation).is_some());
}
