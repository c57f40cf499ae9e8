//! What monitors remember from one iteration to the next: windows, standing verdicts, the saved state.

use gatefold_monitor::{Happening, Metrics, MonitorState, Monitors, Severity, names};

use crate::planted::Run;

#[test]
fn a_saved_state_goes_on_as_if_never_stopped() {
    let faulty = |iteration: u64, metrics: &mut Metrics| {
        metrics.set(names::SUPERVISED_LOSS, 0.6 + 0.1 * f64::from(u8::from(iteration > 60)));
        if iteration > 70 {
            metrics.set(names::ROUTER_USAGE_ENTROPY, 0.1);
            metrics.set(names::TRAIN_EXPLAINED_VARIANCE, f64::NAN);
            metrics.set(names::ROLLOUT_RETURN_MEAN, 5.0);
            metrics.set(names::usage("expert0"), 0.0);
        }
    };
    let run = Run::default();
    let whole = run.judge(160, &faulty);
    assert!(whole.iter().any(|judgement| !judgement.is_healthy()));
    let mut monitors = Monitors::new(run.config.clone());
    for iteration in 1..=160 {
        if iteration % 13 == 0 {
            let saved = rmp_serde::to_vec_named(monitors.state()).unwrap();
            let state: MonitorState = rmp_serde::from_slice(&saved).unwrap();
            assert_eq!(rmp_serde::to_vec_named(&state).unwrap(), saved);
            monitors = Monitors::new(run.config.clone());
            monitors.restore(state);
        }
        let judgement = run.step(&mut monitors, iteration, &faulty);
        assert_eq!(judgement, whole[iteration as usize - 1], "iteration {iteration}");
    }
}

#[test]
fn verdicts_are_raised_once_and_cleared_once() {
    let spell = |iteration: u64, metrics: &mut Metrics| {
        if (100..140).contains(&iteration) {
            metrics.set(names::TRAIN_GRAD_NORM, 30.0);
        }
    };
    let judgements = Run::default().judge(150, &spell);
    let events: Vec<_> = judgements.iter().flat_map(|judgement| &judgement.events).collect();
    let raised: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.what {
            Happening::VerdictRaised { verdict } if verdict.severity == Severity::Alarm => {
                Some((event.iteration, event.env_step, verdict.since))
            }
            _ => None,
        })
        .collect();
    // The median passes 10 as soon as half of the window is faulty.
    assert_eq!(raised, [(104, 4096 * 104, 104)], "{events:?}");
    let cleared: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.what {
            Happening::VerdictCleared { monitor, since, .. } => {
                Some((event.iteration, monitor.as_str(), *since))
            }
            _ => None,
        })
        .collect();
    assert_eq!(cleared, [(145, "gradient-norm", 104)]);
    let alarms = |iteration: usize| judgements[iteration - 1].metrics.get(names::MONITOR_ALARMS);
    assert_eq!((alarms(99), alarms(120)), (Some(0.0), Some(1.0)));
}

#[test]
fn after_windows_start_anew_what_was_before_is_forgotten() {
    let spell = |iteration: u64, metrics: &mut Metrics| {
        if (100..140).contains(&iteration) {
            metrics.set(names::TRAIN_GRAD_NORM, 20.0);
            metrics.set(names::ROUTER_USAGE_ENTROPY, 0.1);
        }
    };
    let run = Run::default();
    let mut monitors = Monitors::new(run.config.clone());
    let judged = |monitors: &mut Monitors, iterations: std::ops::RangeInclusive<u64>| {
        iterations.map(|iteration| run.step(monitors, iteration, &spell)).last().unwrap()
    };
    assert!(!judged(&mut monitors, 1..=139).is_healthy());
    monitors.start_windows_anew();
    assert!(judged(&mut monitors, 140..=140).is_healthy());
    assert!(judged(&mut monitors, 141..=300).is_healthy());
}
