//! Phases over a run: never backwards, the same after a restore, and foreseeable.

use gatefold_curriculum::{
    Curriculum, CurriculumConfig, CurriculumState, Decay, Phase, Plan, Progress, Routing, Unit,
};

fn curriculum() -> Curriculum {
    Curriculum::new(CurriculumConfig::default(), 256, 4).unwrap()
}

fn progress(env_steps: u64, total_steps: u64) -> Progress {
    Progress { env_steps, total_steps, episodes: env_steps / 100 }
}

/// A run that is extended twice on the way, so that its fraction falls back from .25 and from .7.
fn extended_run() -> Vec<Progress> {
    let first = (0..=5).map(|step| progress(step * 50_000, 1_000_000));
    let second = (6..=28).map(|step| progress(step * 50_000, 2_000_000));
    let third = (29..=80).map(|step| progress(step * 50_000, 4_000_000));
    first.chain(second).chain(third).collect()
}

#[test]
fn phases_and_blend_never_go_back_when_a_run_is_extended() {
    let mut curriculum = curriculum();
    let plans: Vec<Plan> = extended_run().into_iter().map(|at| curriculum.plan(at)).collect();
    assert!(plans.is_sorted_by_key(|plan| plan.phase));
    let weights: Vec<_> = plans.iter().map(|plan| plan.routing.blend().unwrap()).collect();
    assert!(weights.is_sorted(), "{weights:?}");
    // 250,000 of 1,000,000 steps entered the transition; 300,000 of 2,000,000 alone would be warmup.
    assert_eq!(plans[6].phase, Phase::Transition);
    assert_eq!(plans[6].routing, plans[5].routing);
    // 1,450,000 of 4,000,000 alone would be transition.
    assert_eq!((plans[29].phase, plans[29].routing), (Phase::FineTune, Routing::Sparsemax));
}

#[test]
fn each_phase_is_entered_once_and_remembers_where() {
    let mut curriculum = curriculum();
    assert!(curriculum.entered().is_empty());
    for at in extended_run() {
        curriculum.plan(at);
    }
    let entered: Vec<_> = curriculum.entered().iter().map(|entry| (entry.phase, entry.at)).collect();
    assert_eq!(
        entered,
        [
            (Phase::Warmup, progress(0, 1_000_000)),
            (Phase::Transition, progress(200_000, 1_000_000)),
            (Phase::FineTune, progress(1_200_000, 2_000_000)),
        ]
    );
}

#[test]
fn a_restored_curriculum_plans_what_one_that_never_stopped_plans() {
    let run = extended_run();
    let mut uninterrupted = curriculum();
    let expected: Vec<Plan> = run.iter().map(|&at| uninterrupted.plan(at)).collect();
    for cut in 0..run.len() {
        let mut before = curriculum();
        for &at in &run[..cut] {
            before.plan(at);
        }
        let saved = serde_json::to_string(before.state()).unwrap();
        let mut after = curriculum();
        after.restore(serde_json::from_str::<CurriculumState>(&saved).unwrap());
        let resumed: Vec<Plan> = run[cut..].iter().map(|&at| after.plan(at)).collect();
        assert_eq!(resumed, expected[cut..], "cut at {cut}");
        assert_eq!(after.state(), uninterrupted.state(), "cut at {cut}");
    }
}

#[test]
fn planning_the_same_progress_twice_changes_nothing() {
    let mut curriculum = curriculum();
    for at in extended_run() {
        let plan = curriculum.plan(at);
        let state = curriculum.state().clone();
        assert_eq!((curriculum.plan(at), curriculum.state()), (plan, &state));
    }
}

#[test]
fn an_iteration_longer_than_a_phase_steps_over_it() {
    let mut curriculum = curriculum();
    assert_eq!(curriculum.plan(progress(100_000, 1_000_000)).phase, Phase::Warmup);
    assert_eq!(curriculum.plan(progress(700_000, 1_000_000)).phase, Phase::FineTune);
    assert_eq!(curriculum.entered().len(), 2);
}

#[test]
fn planned_phases_are_those_a_long_run_enters() {
    let fraction = |warmup_until, transition_until| CurriculumConfig {
        warmup_until,
        transition_until,
        ..CurriculumConfig::default()
    };
    use Phase::{FineTune, Transition, Warmup};
    let cases: [(CurriculumConfig, &[Phase]); 7] = [
        (CurriculumConfig::default(), &[Warmup, Transition, FineTune]),
        (fraction(0.3, 0.3), &[Warmup, FineTune]),
        (fraction(0.0, 0.5), &[Transition, FineTune]),
        (fraction(0.5, 1.0), &[Warmup, Transition]),
        (fraction(1.0, 1.0), &[Warmup]),
        (CurriculumConfig::seed(), &[Warmup, FineTune]),
        (CurriculumConfig::dense(1e-3, 0.0, Decay::None), &[FineTune]),
    ];
    for (config, expected) in cases {
        let mut curriculum = Curriculum::new(config.clone(), 256, 4).unwrap();
        let planned: Vec<_> = curriculum.planned_phases().iter().map(|planned| planned.phase).collect();
        assert_eq!(planned, expected, "{config:?}");
        for env_steps in (0..1_000_000).step_by(100) {
            curriculum.plan(progress(env_steps, 1_000_000));
        }
        let entered: Vec<_> = curriculum.entered().iter().map(|entry| entry.phase).collect();
        assert_eq!(entered, expected, "{config:?}");
    }
}

#[test]
fn planned_phases_say_where_they_start_and_end() {
    let config = CurriculumConfig {
        unit: Unit::Episodes,
        warmup_until: 1000.0,
        transition_until: 3000.0,
        ..CurriculumConfig::default()
    };
    let planned = Curriculum::new(config, 256, 4).unwrap().planned_phases();
    let bounds: Vec<_> = planned.iter().map(|planned| (planned.from, planned.until)).collect();
    assert_eq!(bounds, [(0.0, Some(1000.0)), (1000.0, Some(3000.0)), (3000.0, None)]);
}
