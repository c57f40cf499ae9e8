//! Phases that wait for health: late but whole, never for ever, and the same after a restore.

use gatefold_curriculum::{
    Curriculum, CurriculumConfig, CurriculumState, Health, Phase, Plan, Progress, Routing, Unit,
};

const TOTAL: u64 = 1_000_000;

fn gated(max_hold: f64) -> Curriculum {
    let config = CurriculumConfig { advance_when_healthy: true, max_hold, ..CurriculumConfig::default() };
    Curriculum::new(config, 256, 4).unwrap()
}

fn percent(percent: u64) -> Progress {
    Progress { env_steps: percent * TOTAL / 100, total_steps: TOTAL, episodes: percent }
}

/// One plan per percent of the run, after an unhealthy verdict where `ill` says so.
fn run(curriculum: &mut Curriculum, ill: impl Fn(u64) -> bool) -> Vec<Plan> {
    (0..=100)
        .map(|at| {
            let alarm = Health::unhealthy(format!("alarm at {at} percent"));
            curriculum.observe(&if ill(at) { alarm } else { Health::healthy() });
            curriculum.plan(percent(at))
        })
        .collect()
}

fn entries(curriculum: &Curriculum) -> Vec<(Phase, u64, Option<u64>)> {
    let in_percent = |progress: Progress| progress.env_steps * 100 / TOTAL;
    let entered = curriculum.entered().iter();
    entered.map(|entry| (entry.phase, in_percent(entry.at), entry.due.map(in_percent))).collect()
}

#[test]
fn a_healthy_run_plans_bit_for_bit_what_it_plans_without_the_gate() {
    let mut plain = Curriculum::new(CurriculumConfig::default(), 256, 4).unwrap();
    let mut gate = gated(0.1);
    assert!(run(&mut gate, |_| false) == run(&mut plain, |_| false));
    assert_eq!(gate.state(), plain.state());
    // Unhealthy verdicts matter only while a phase is due.
    let mut gate = gated(0.1);
    let away_from_boundaries = |at| at != 20 && at != 60;
    let mut plain = Curriculum::new(CurriculumConfig::default(), 256, 4).unwrap();
    assert!(run(&mut gate, away_from_boundaries) == run(&mut plain, |_| false));
}

#[test]
fn without_the_gate_verdicts_change_nothing() {
    let plain = || Curriculum::new(CurriculumConfig::default(), 256, 4).unwrap();
    let (mut ill, mut well) = (plain(), plain());
    assert!(run(&mut ill, |_| true) == run(&mut well, |_| false));
    assert_eq!(ill.state(), well.state());
    assert_eq!(ill.held(), None);
}

#[test]
fn a_transition_that_starts_late_blends_from_its_start_over_its_full_length() {
    let mut curriculum = gated(0.3);
    let plans = run(&mut curriculum, |at| (15..35).contains(&at));
    assert!(plans[..35].iter().all(|plan| (plan.phase, plan.routing) == (Phase::Warmup, Routing::Softmax)));
    assert_eq!((plans[35].phase, plans[35].routing), (Phase::Transition, Routing::Blend { weight: 0.0 }));
    assert_eq!(plans[35].temperature, 1.0);
    for (at, expected) in [(45, 0.25), (55, 0.5), (65, 0.75)] {
        let weight = plans[at].routing.blend().unwrap();
        assert!((weight - expected).abs() < 1e-6, "{at}: {weight}");
    }
    assert_eq!(
        entries(&curriculum),
        [(Phase::Warmup, 0, None), (Phase::Transition, 35, Some(20)), (Phase::FineTune, 75, None)]
    );
}

#[test]
fn a_transition_that_waits_for_fine_tune_stays_at_its_end() {
    let mut curriculum = gated(0.3);
    let plans = run(&mut curriculum, |at| (58..70).contains(&at));
    for plan in &plans[60..70] {
        assert_eq!((plan.phase, plan.routing), (Phase::Transition, Routing::Blend { weight: 1.0 }));
        assert_eq!((plan.temperature, plan.coefficients.gate_entropy), (0.5, 0.0));
    }
    assert_eq!(plans[70].phase, Phase::FineTune);
    assert_eq!(entries(&curriculum)[2], (Phase::FineTune, 70, Some(60)));
}

#[test]
fn an_entry_is_held_back_no_longer_than_max_hold() {
    let cases = [
        // max_hold, entries into transition and fine-tune: percent, and where they were due
        (0.0, (20, None), Some((60, None))),
        (0.05, (25, Some(20)), Some((70, Some(65)))),
        (0.25, (45, Some(20)), None), // due at 85 percent and held beyond the run's end
    ];
    for (max_hold, transition, fine_tune) in cases {
        let mut curriculum = gated(max_hold);
        run(&mut curriculum, |_| true);
        let mut expected = vec![(Phase::Warmup, 0, None), (Phase::Transition, transition.0, transition.1)];
        expected.extend(fine_tune.map(|(at, due)| (Phase::FineTune, at, due)));
        assert_eq!(entries(&curriculum), expected, "max_hold {max_hold}");
        let held = curriculum.held().map(|held| (held.phase, held.since));
        assert_eq!(held, fine_tune.is_none().then_some((Phase::FineTune, percent(85))));
    }
}

#[test]
fn a_wait_longer_than_the_next_phase_does_not_skip_it() {
    let mut curriculum = gated(0.6);
    let plans = run(&mut curriculum, |at| (19..65).contains(&at));
    assert_eq!((plans[65].phase, plans[65].routing), (Phase::Transition, Routing::Blend { weight: 0.0 }));
    assert_eq!(plans[100].phase, Phase::Transition);
}

#[test]
fn a_held_phase_says_which_since_when_and_why() {
    let mut curriculum = gated(0.3);
    for at in 0..=25 {
        curriculum.observe(&Health::unhealthy(format!("alarm at {at} percent")));
        curriculum.plan(percent(at));
    }
    let held = curriculum.held().unwrap();
    assert_eq!((held.phase, held.since), (Phase::Transition, percent(20)));
    assert_eq!(held.evidence, "alarm at 25 percent");
    curriculum.observe(&Health::healthy());
    curriculum.plan(percent(26));
    assert_eq!(curriculum.held(), None);
}

#[test]
fn episodes_hold_in_episodes() {
    let config = CurriculumConfig {
        unit: Unit::Episodes,
        warmup_until: 10.0,
        transition_until: 30.0,
        advance_when_healthy: true,
        max_hold: 5.0,
        ..CurriculumConfig::default()
    };
    let mut curriculum = Curriculum::new(config, 256, 4).unwrap();
    let plans = run(&mut curriculum, |at| at < 40);
    let phases =
        [(14, Phase::Warmup), (15, Phase::Transition), (39, Phase::Transition), (40, Phase::FineTune)];
    for (at, phase) in phases {
        assert_eq!(plans[at].phase, phase, "episode {at}");
    }
    assert_eq!(plans[25].routing, Routing::Blend { weight: 0.5 });
}

/// Progress of a run that is extended while its transition waits, and again within it.
fn extended_run() -> Vec<Progress> {
    let at = |step: u64, total_steps| Progress { env_steps: step * 10_000, total_steps, episodes: step };
    let first = (0..=24).map(|step| at(step, TOTAL));
    let second = (25..=90).map(|step| at(step, 2 * TOTAL));
    first.chain(second).chain((91..=400).map(|step| at(step, 4 * TOTAL))).collect()
}

#[test]
fn a_restored_curriculum_waits_and_enters_like_one_that_never_stopped() {
    let verdict = |step: usize| match step {
        15..30 | 80..90 | 230..260 => Health::unhealthy(format!("alarm {step}")),
        _ => Health::healthy(),
    };
    let run = extended_run();
    let mut uninterrupted = gated(0.2);
    let mut planned = Vec::new();
    let mut saved = Vec::new();
    for (step, &at) in run.iter().enumerate() {
        saved.push(serde_json::to_string(uninterrupted.state()).unwrap());
        planned.push(uninterrupted.plan(at));
        assert_eq!(uninterrupted.plan(at), planned[step], "planning twice changes nothing");
        uninterrupted.observe(&verdict(step));
    }
    assert!(planned.is_sorted_by_key(|plan| plan.phase));
    let blends: Vec<_> = planned.iter().map(|plan| plan.routing.blend().unwrap()).collect();
    assert!(blends.is_sorted(), "{blends:?}");
    assert!(uninterrupted.entered().iter().any(|entry| entry.due.is_some()));
    for cut in (0..run.len()).step_by(7) {
        let mut resumed = gated(0.2);
        resumed.restore(serde_json::from_str::<CurriculumState>(&saved[cut]).unwrap());
        for step in cut..run.len() {
            assert_eq!(resumed.plan(run[step]), planned[step], "cut at {cut}, step {step}");
            resumed.observe(&verdict(step));
        }
        assert_eq!(resumed.state(), uninterrupted.state(), "cut at {cut}");
    }
}
