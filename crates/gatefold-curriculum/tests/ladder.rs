//! The ladder: what each rung leaves of a plan, and when a run moves between rungs.

use gatefold_curriculum::{
    Applicable, Coefficients, Curriculum, CurriculumConfig, Health, Ladder, LadderConfig, LearningRate,
    Moment, Phase, Plan, Progress, Routing, Rung, StepBy,
};
use serde_json::json;

const FOUR_EXPERTS: Applicable = Applicable { graph: true, router: true, num_experts: 4 };

fn ladder(config: LadderConfig) -> Ladder {
    Ladder::new(config, FOUR_EXPERTS).unwrap()
}

fn at_rung(rung: Rung) -> Ladder {
    ladder(LadderConfig { start: rung, ..LadderConfig::default() })
}

fn moment(iteration: u64) -> Moment {
    Moment { iteration, env_step: iteration * 8192 }
}

/// The rung after each verdict, the first being iteration 1; `x` is unhealthy, `.` healthy.
fn rungs(ladder: &mut Ladder, verdicts: &str) -> Vec<Rung> {
    let verdicts = verdicts.chars().filter(|c| !c.is_whitespace()).zip(1..);
    verdicts
        .map(|(verdict, iteration)| {
            let health = match verdict {
                'x' => Health::unhealthy(format!("alarm {iteration}")),
                _ => Health::healthy(),
            };
            ladder.observe(moment(iteration), &health);
            ladder.rung()
        })
        .collect()
}

/// Every coefficient in play, sparse routing that specialises.
fn plan() -> Plan {
    Plan {
        phase: Phase::FineTune,
        routing: Routing::Sparsemax,
        temperature: 0.5,
        coefficients: Coefficients {
            entropy: 0.1,
            load_balance: 0.2,
            diversity: 0.3,
            gate_entropy: -0.4,
            alignment: 0.5,
            semantic: 0.6,
            overlap: 0.7,
            temporal: 0.8,
            importance: 0.9,
            router_z: 1.0,
            attention_gini: 1.1,
            next_operator: 1.2,
            pet: 1.3,
        },
        learning_rate: LearningRate { phase_rate: 1e-3, decay: 0.5, warmup_steps: 100 },
    }
}

#[test]
fn a_later_rung_keeps_earlier_effects_and_overrides_only_routing() {
    let full = plan().coefficients;
    let frozen = Coefficients { attention_gini: 0.0, next_operator: 0.0, ..full };
    let softmax = Coefficients { gate_entropy: 0.0, ..frozen };
    let v2 = Coefficients { overlap: 0.0, temporal: 0.0, ..softmax };
    let table = [
        (Rung::Full, Routing::Sparsemax, full, [false, false, false, false]),
        (Rung::FreezeGat, Routing::Sparsemax, frozen, [true, false, false, false]),
        (Rung::SoftmaxOnly, Routing::Softmax, softmax, [true, true, false, false]),
        (Rung::FewerExperts, Routing::Softmax, softmax, [true, true, true, false]),
        (Rung::V2Routing, Routing::Gumbel, v2, [true, true, true, true]),
    ];
    for (rung, routing, coefficients, effects) in table {
        let ladder = at_rung(rung);
        assert_eq!(ladder.limit(plan()), Plan { routing, coefficients, ..plan() }, "{rung}");
        let told = [ladder.freezes_gat(), ladder.softmax_only(), ladder.fewer_experts(), ladder.v2_routing()];
        assert_eq!(told, effects, "{rung}");
    }
}

#[test]
fn a_bonus_for_spreading_gates_outlives_softmax_only() {
    let mut spreading = plan();
    spreading.coefficients.gate_entropy = 0.1;
    assert_eq!(at_rung(Rung::SoftmaxOnly).limit(spreading).coefficients.gate_entropy, 0.1);
    assert_eq!(at_rung(Rung::V2Routing).limit(spreading).coefficients.gate_entropy, 0.0);
}

#[test]
fn losses_on_gates_are_off_wherever_gumbel_noise_routes() {
    let weighed = plan().coefficients;
    let configured = Plan { routing: Routing::Gumbel, ..plan() };
    let expected = Coefficients { gate_entropy: 0.0, overlap: 0.0, temporal: 0.0, ..weighed };
    assert_ne!(weighed, expected);
    assert_eq!(at_rung(Rung::Full).limit(configured), Plan { coefficients: expected, ..configured });
}

#[test]
fn every_learned_routing_is_limited_and_no_control_is() {
    let learned = [
        Routing::Softmax,
        Routing::Sparsemax,
        Routing::Blend { weight: 0.5 },
        Routing::Entmax15,
        Routing::TopK { k: 2 },
        Routing::Gumbel,
    ];
    for rung in Rung::ALL {
        let ladder = at_rung(rung);
        for routing in learned {
            let expected = match rung {
                Rung::Full | Rung::FreezeGat => routing,
                Rung::SoftmaxOnly | Rung::FewerExperts => Routing::Softmax,
                Rung::V2Routing => Routing::Gumbel,
            };
            assert_eq!(ladder.limit(Plan { routing, ..plan() }).routing, expected, "{rung}");
        }
        for routing in [Routing::Uniform, Routing::Random, Routing::Dense] {
            let control = Plan { routing, ..plan() };
            assert_eq!(ladder.limit(control), control, "{rung}");
        }
    }
}

#[test]
fn rungs_without_effect_are_passed_over_and_cannot_be_chosen() {
    let config = || LadderConfig { patience: 1, cooldown: 0, ..LadderConfig::default() };
    use Rung::{FewerExperts, FreezeGat, Full, SoftmaxOnly, V2Routing};
    let cases: [(Applicable, &[Rung]); 4] = [
        (FOUR_EXPERTS, &[FreezeGat, SoftmaxOnly, FewerExperts, V2Routing, V2Routing]),
        (Applicable { graph: false, ..FOUR_EXPERTS }, &[SoftmaxOnly, FewerExperts, V2Routing, V2Routing]),
        (Applicable { num_experts: 2, ..FOUR_EXPERTS }, &[FreezeGat, SoftmaxOnly, V2Routing, V2Routing]),
        (Applicable { router: false, ..FOUR_EXPERTS }, &[Full, Full]),
    ];
    for (applicable, expected) in cases {
        let mut ladder = Ladder::new(config(), applicable).unwrap();
        assert_eq!(rungs(&mut ladder, &"x".repeat(expected.len())), expected, "{applicable:?}");
        assert_eq!(ladder.freezes_gat(), applicable.graph && applicable.router, "{applicable:?}");
        assert_eq!(ladder.fewer_experts(), expected.contains(&FewerExperts), "{applicable:?}");
    }
    let no_graph = Applicable { graph: false, ..FOUR_EXPERTS };
    let error = Ladder::new(LadderConfig { start: FreezeGat, ..config() }, no_graph).unwrap_err();
    let message = "[ladder] rung \"freeze-gat\": changes nothing for this policy; it has full, softmax-only, \
                   fewer-experts, v2-routing";
    assert_eq!(error.to_string(), message);
    let mut ladder = Ladder::new(config(), no_graph).unwrap();
    assert_eq!(ladder.set(moment(1), FreezeGat, "by hand").unwrap_err().to_string(), message);
    assert_eq!((ladder.rung(), ladder.history()), (Full, &[][..]));
}

#[test]
fn only_unhealthy_iterations_in_a_row_step_down() {
    let config = || LadderConfig { patience: 3, cooldown: 0, ..LadderConfig::default() };
    let steps_down_after = |verdicts: &str| {
        let rungs = rungs(&mut ladder(config()), verdicts);
        rungs.iter().position(|&rung| rung != Rung::Full).map(|index| index + 1)
    };
    let cases = [("xxx", Some(3)), ("xx.xx.xx.", None), (".x.xxx", Some(6)), ("", None), ("......", None)];
    for (verdicts, expected) in cases {
        assert_eq!(steps_down_after(verdicts), expected, "{verdicts}");
    }
}

#[test]
fn verdicts_after_a_step_do_not_count_until_it_could_show_its_effect() {
    let config = |cooldown| LadderConfig { patience: 2, cooldown, ..LadderConfig::default() };
    let steps_at = |cooldown| {
        let mut ladder = ladder(config(cooldown));
        rungs(&mut ladder, &"x".repeat(30));
        ladder.history().iter().map(|step| step.iteration).collect::<Vec<_>>()
    };
    assert_eq!(steps_at(0), [2, 4, 6, 8]);
    assert_eq!(steps_at(3), [2, 7, 12, 17]);
    // A step by hand or by the guard is followed by the same silence.
    let mut by_hand = ladder(config(3));
    by_hand.set(moment(0), Rung::FreezeGat, "--rung").unwrap();
    let after_hand = rungs(&mut by_hand, "xxxx x");
    assert_eq!((after_hand[3], after_hand[4]), (Rung::FreezeGat, Rung::SoftmaxOnly));
}

#[test]
fn a_step_tells_when_who_and_why() {
    let mut ladder = ladder(LadderConfig { patience: 2, cooldown: 0, ..LadderConfig::default() });
    rungs(&mut ladder, "xx");
    let guard = ladder.step_down(moment(3), "the loss is NaN in 3 attempts").unwrap();
    let hand = ladder.set(moment(4), Rung::Full, "--rung full").unwrap().unwrap();
    assert_eq!(ladder.set(moment(4), Rung::Full, "--rung full"), Ok(None));
    let told: Vec<_> = ladder.history().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "full -> freeze-gat by monitors at iteration 2: 2 unhealthy iterations in a row, the last: alarm 2",
            "freeze-gat -> softmax-only by guard at iteration 3: the loss is NaN in 3 attempts",
            "softmax-only -> full by hand at iteration 4: --rung full",
        ]
    );
    assert_eq!(ladder.history()[1..], [guard.clone(), hand]);
    assert_eq!((guard.env_step, guard.by), (3 * 8192, StepBy::Guard));
    assert_eq!(serde_json::to_value(guard.by).unwrap(), json!("guard"));
}

#[test]
fn a_ladder_that_is_not_automatic_moves_by_hand_alone() {
    let mut ladder = ladder(LadderConfig { automatic: false, patience: 1, ..LadderConfig::default() });
    assert!(rungs(&mut ladder, &"x".repeat(50)).iter().all(|&rung| rung == Rung::Full));
    assert_eq!(ladder.step_down(moment(51), "NaN"), None);
    assert!(ladder.set(moment(52), Rung::V2Routing, "by hand").unwrap().is_some());
    assert_eq!(ladder.rung(), Rung::V2Routing);
}

#[test]
fn nothing_automatic_goes_below_the_lowest_rung() {
    let config =
        LadderConfig { lowest: Rung::SoftmaxOnly, patience: 1, cooldown: 0, ..LadderConfig::default() };
    let mut ladder = ladder(config);
    assert_eq!(*rungs(&mut ladder, "xxxxxx").last().unwrap(), Rung::SoftmaxOnly);
    assert_eq!(ladder.step_down(moment(7), "NaN"), None);
    assert!(ladder.set(moment(8), Rung::FewerExperts, "the user may").unwrap().is_some());
    assert_eq!(ladder.step_down(moment(9), "NaN"), None);
}

#[test]
fn lasting_health_climbs_back_to_what_the_user_chose_and_no_higher() {
    let config = |reversible| LadderConfig {
        start: Rung::FreezeGat,
        reversible,
        patience: 2,
        recovery: 3,
        cooldown: 1,
        ..LadderConfig::default()
    };
    use Rung::{FewerExperts, FreezeGat, SoftmaxOnly};
    let verdicts = "xx xxx .... x... ... ........";
    let mut reversible = ladder(config(true));
    rungs(&mut reversible, verdicts);
    let path: Vec<_> = reversible.history().iter().map(|step| (step.iteration, step.to, step.by)).collect();
    assert_eq!(
        path,
        [
            (2, SoftmaxOnly, StepBy::Monitors),
            (5, FewerExperts, StepBy::Monitors),
            (9, SoftmaxOnly, StepBy::Recovery), // 6 is silent; 7, 8 and 9 are healthy
            (13, FreezeGat, StepBy::Recovery),  // 10 is silent
        ]
    );
    let mut one_way = ladder(config(false));
    assert_eq!(*rungs(&mut one_way, verdicts).last().unwrap(), FewerExperts);
    // What is set by hand is the user's choice from then on.
    let mut by_hand = ladder(config(true));
    by_hand.set(moment(0), SoftmaxOnly, "by hand").unwrap();
    assert_eq!(*rungs(&mut by_hand, &".".repeat(40)).last().unwrap(), SoftmaxOnly);
}

#[test]
fn at_the_top_every_plan_of_a_run_passes_unchanged() {
    let mut curriculum = Curriculum::new(CurriculumConfig::default(), 256, 4).unwrap();
    let ladder = at_rung(Rung::Full);
    for env_steps in (0..=1_000_000).step_by(10_000) {
        let plan = curriculum.plan(Progress { env_steps, total_steps: 1_000_000, episodes: 0 });
        assert_eq!(ladder.limit(plan), plan);
    }
}

#[test]
fn mistakes_in_the_section_name_key_value_and_what_would_be_accepted() {
    let cases = [
        (json!({ "patience": 0 }), "[ladder] patience = 0: need at least 1 iteration"),
        (json!({ "recovery": 0 }), "[ladder] recovery = 0: need at least 1 iteration"),
        (
            json!({ "start": "v2-routing", "lowest": "softmax-only" }),
            "[ladder] start = \"v2-routing\": must not lie below lowest = \"softmax-only\"",
        ),
    ];
    for (section, expected) in cases {
        let config: LadderConfig = serde_json::from_value(section).unwrap();
        assert_eq!(Ladder::new(config, FOUR_EXPERTS).unwrap_err().to_string(), expected);
    }
    assert!(serde_json::from_value::<LadderConfig>(json!({ "patiense": 3 })).is_err());
    assert_eq!(serde_json::from_value::<LadderConfig>(json!({})).unwrap(), LadderConfig::default());
}
