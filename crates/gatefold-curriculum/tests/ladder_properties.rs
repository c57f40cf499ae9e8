//! The ladder on any series of verdicts.

use gatefold_curriculum::{
    Applicable, Health, Ladder, LadderConfig, LadderState, LadderStep, Moment, Rung, StepBy,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// What can happen to a ladder after an iteration.
#[derive(Debug, Clone, Copy)]
enum Event {
    Verdict(bool),
    Guard,
    Hand(Rung),
}

fn any_rung() -> impl Strategy<Value = Rung> {
    prop::sample::select(Rung::ALL.to_vec())
}

/// Verdicts in runs, so that patience and recovery are met, and now and then a step from outside.
fn any_events() -> impl Strategy<Value = Vec<Event>> {
    let run = (any::<bool>(), 1..12_usize).prop_map(|(healthy, times)| vec![Event::Verdict(healthy); times]);
    let outside = prop_oneof![Just(Event::Guard), any_rung().prop_map(Event::Hand)].prop_map(|e| vec![e]);
    prop::collection::vec(prop_oneof![8 => run, 1 => outside], 0..25).prop_map(|runs| runs.concat())
}

fn any_applicable() -> impl Strategy<Value = Applicable> {
    (any::<bool>(), prop::bool::weighted(0.8), 1..6_usize)
        .prop_map(|(graph, router, num_experts)| Applicable { graph, router, num_experts })
}

fn any_config() -> impl Strategy<Value = LadderConfig> {
    (prop::bool::weighted(0.8), 1..6_u64, any::<bool>(), 1..8_u64, 0..5_u64, any_rung()).prop_map(
        |(automatic, patience, reversible, recovery, cooldown, lowest)| LadderConfig {
            start: Rung::Full,
            automatic,
            patience,
            reversible,
            recovery,
            cooldown,
            lowest,
        },
    )
}

fn happen(ladder: &mut Ladder, iteration: u64, event: Event) -> Option<LadderStep> {
    let at = Moment { iteration, env_step: 100 * iteration };
    match event {
        Event::Verdict(true) => ladder.observe(at, &Health::healthy()),
        Event::Verdict(false) => ladder.observe(at, &Health::unhealthy(format!("alarm {iteration}"))),
        Event::Guard => ladder.step_down(at, "NaN"),
        Event::Hand(rung) => ladder.set(at, rung, "by hand").ok().flatten(),
    }
}

/// Whether the newest of `counted` verdicts complete `needed` equal ones in a row.
fn in_a_row(counted: &[bool], healthy: bool, needed: u64) -> bool {
    let needed = needed as usize;
    counted.len() >= needed && counted[counted.len() - needed..].iter().all(|&verdict| verdict == healthy)
}

/// The same cases in every run.
fn cases() -> ProptestConfig {
    ProptestConfig {
        cases: 256,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(7),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_step_comes_exactly_when_patience_or_recovery_is_met_in_a_row(
        config in any_config(),
        applicable in any_applicable(),
        events in any_events(),
    ) {
        let mut ladder = Ladder::new(config.clone(), applicable).unwrap();
        let mut chosen = Rung::Full;
        // The verdicts since the last step; the first `silent` of them do not count.
        let (mut since, mut silent) = (Vec::new(), 0);
        for (iteration, event) in events.into_iter().enumerate() {
            let before = ladder.rung();
            let step = happen(&mut ladder, iteration as u64, event);
            let below = Rung::ALL.into_iter().find(|&rung| rung > before && applicable.has(rung));
            let below = below.filter(|&rung| rung <= config.lowest && config.automatic);
            let above = Rung::ALL.into_iter().rfind(|&rung| rung < before && applicable.has(rung));
            let above = above.filter(|&rung| rung >= chosen && config.automatic && config.reversible);
            let expected = match event {
                Event::Guard => below.map(|to| (to, StepBy::Guard)),
                Event::Hand(rung) => {
                    if applicable.has(rung) {
                        chosen = rung;
                    }
                    (applicable.has(rung) && rung != before).then_some((rung, StepBy::Hand))
                }
                Event::Verdict(healthy) => {
                    since.push(healthy);
                    let counted = &since[usize::min(silent, since.len())..];
                    if in_a_row(counted, false, config.patience) {
                        below.map(|to| (to, StepBy::Monitors))
                    } else if in_a_row(counted, true, config.recovery) {
                        above.map(|to| (to, StepBy::Recovery))
                    } else {
                        None
                    }
                }
            };
            prop_assert_eq!(step.as_ref().map(|step| (step.to, step.by)), expected);
            prop_assert_eq!(ladder.rung(), expected.map_or(before, |(to, _)| to));
            if let Some(step) = step {
                prop_assert_eq!((step.from, step.iteration), (before, iteration as u64));
                prop_assert_eq!(ladder.history().last(), Some(&step));
                (since, silent) = (Vec::new(), config.cooldown as usize);
            }
        }
    }

    #[test]
    fn without_reversible_no_verdict_leads_upwards(
        config in any_config(),
        applicable in any_applicable(),
        events in any_events(),
    ) {
        let mut ladder = Ladder::new(LadderConfig { reversible: false, ..config }, applicable).unwrap();
        let mut rungs = vec![ladder.rung()];
        for (iteration, event) in events.into_iter().enumerate() {
            if !matches!(event, Event::Hand(_)) {
                happen(&mut ladder, iteration as u64, event);
                rungs.push(ladder.rung());
            }
        }
        prop_assert!(rungs.is_sorted(), "{:?}", rungs);
        prop_assert!(rungs.into_iter().all(|rung| applicable.has(rung)));
    }

    #[test]
    fn a_restored_ladder_steps_like_one_that_never_stopped(
        config in any_config(),
        applicable in any_applicable(),
        events in any_events(),
        cut in any::<prop::sample::Index>(),
    ) {
        let cut = cut.index(events.len() + 1);
        let mut uninterrupted = Ladder::new(config.clone(), applicable).unwrap();
        let mut saved = serde_json::to_string(uninterrupted.state()).unwrap();
        let mut steps = Vec::new();
        for (iteration, &event) in events.iter().enumerate() {
            if iteration == cut {
                saved = serde_json::to_string(uninterrupted.state()).unwrap();
            }
            steps.push(happen(&mut uninterrupted, iteration as u64, event));
        }
        if cut == events.len() {
            saved = serde_json::to_string(uninterrupted.state()).unwrap();
        }
        let mut resumed = Ladder::new(config, applicable).unwrap();
        resumed.restore(serde_json::from_str::<LadderState>(&saved).unwrap());
        for (iteration, &event) in events.iter().enumerate().skip(cut) {
            prop_assert_eq!(&happen(&mut resumed, iteration as u64, event), &steps[iteration]);
        }
        prop_assert_eq!(resumed.state(), uninterrupted.state());
    }
}
