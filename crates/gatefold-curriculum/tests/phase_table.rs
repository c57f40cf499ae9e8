//! The numbers of each phase against the published table, at the ends of the phases and between.

use gatefold_curriculum::{
    Coefficients, Curriculum, CurriculumConfig, Decay, FixedRouting, OptionalConfig, PetSchedule, Phase,
    Plan, Progress, Routing, RoutingChoice, Unit,
};

fn config_in_episodes() -> CurriculumConfig {
    CurriculumConfig {
        unit: Unit::Episodes,
        warmup_until: 1000.0,
        transition_until: 3000.0,
        lr_decay: Decay::None,
        ..CurriculumConfig::default()
    }
}

fn plan_after_episodes(config: &CurriculumConfig, episodes: u64) -> Plan {
    let progress = Progress { env_steps: 0, total_steps: 1_000_000, episodes };
    Curriculum::new(config.clone(), 256, 4).unwrap().plan(progress)
}

fn plan_after_steps(config: &CurriculumConfig, env_steps: u64) -> Plan {
    let progress = Progress { env_steps, total_steps: 1_000_000, episodes: 0 };
    Curriculum::new(config.clone(), 256, 4).unwrap().plan(progress)
}

/// What the table says of every phase alike, and nothing else.
fn aligned() -> Coefficients {
    Coefficients { alignment: 0.1, semantic: 0.05, ..Coefficients::default() }
}

#[test]
fn every_phase_has_the_numbers_of_the_table() {
    let blend = |weight| Routing::Blend { weight };
    let warmup = Coefficients {
        entropy: 0.05,
        load_balance: 0.02,
        diversity: 0.01,
        gate_entropy: 0.1,
        temporal: 0.0,
        overlap: 0.0,
        ..aligned()
    };
    let moving = |gate_entropy| Coefficients {
        entropy: 0.02,
        load_balance: 0.01,
        diversity: 0.01,
        gate_entropy,
        temporal: 0.01,
        overlap: 0.03,
        ..aligned()
    };
    let fine_tune = Coefficients {
        entropy: 0.01,
        load_balance: 0.005,
        diversity: 0.005,
        gate_entropy: -0.05,
        temporal: 0.02,
        overlap: 0.05,
        ..aligned()
    };
    let table = [
        // episodes, phase, routing, temperature, lr, coefficients
        (0, Phase::Warmup, Routing::Softmax, 1.0, 1e-4, warmup),
        (999, Phase::Warmup, Routing::Softmax, 1.0, 1e-4, warmup),
        (1000, Phase::Transition, blend(0.0), 1.0, 5e-5, moving(0.1)),
        (1500, Phase::Transition, blend(0.25), 0.875, 5e-5, moving(0.075)),
        (2000, Phase::Transition, blend(0.5), 0.75, 5e-5, moving(0.05)),
        (2500, Phase::Transition, blend(0.75), 0.625, 5e-5, moving(0.025)),
        (3000, Phase::FineTune, Routing::Sparsemax, 0.5, 1e-5, fine_tune),
        (1_000_000, Phase::FineTune, Routing::Sparsemax, 0.5, 1e-5, fine_tune),
    ];
    for (episodes, phase, routing, temperature, lr, coefficients) in table {
        let plan = plan_after_episodes(&config_in_episodes(), episodes);
        assert_eq!(plan.phase, phase, "episode {episodes}");
        assert_eq!(plan.routing, routing, "episode {episodes}");
        assert_eq!(plan.temperature, temperature, "episode {episodes}");
        assert_eq!(plan.learning_rate.at(1_000_000), lr, "episode {episodes}");
        assert_eq!(plan.coefficients, coefficients, "episode {episodes}");
    }
}

#[test]
fn fractions_of_the_run_reach_the_same_plans_as_episodes() {
    let by_fraction = CurriculumConfig { lr_decay: Decay::None, ..CurriculumConfig::default() };
    let cases = [
        // environment steps of a million, episodes against 1000 and 3000
        (0, 0),
        (199_999, 999),
        (200_000, 1000),
        (600_000, 3000),
        (1_000_000, 9000),
        (1_000_001, 9000),
    ];
    for (env_steps, episodes) in cases {
        assert_eq!(
            plan_after_steps(&by_fraction, env_steps),
            plan_after_episodes(&config_in_episodes(), episodes),
            "step {env_steps} and episode {episodes}"
        );
    }
    let halfway = plan_after_steps(&by_fraction, 400_000);
    let Routing::Blend { weight } = halfway.routing else { panic!("{:?}", halfway.routing) };
    assert!((weight - 0.5).abs() < 1e-6, "{weight}");
    assert!((halfway.temperature - 0.75).abs() < 1e-6, "{}", halfway.temperature);
}

#[test]
fn routing_and_temperature_are_continuous_across_both_boundaries() {
    let config = CurriculumConfig::default();
    let mut curriculum = Curriculum::new(config, 256, 4).unwrap();
    let mut previous: Option<Plan> = None;
    for env_steps in (0..=1_000_000).step_by(1000) {
        let plan = curriculum.plan(Progress { env_steps, total_steps: 1_000_000, episodes: 0 });
        if let Some(previous) = previous {
            let weight = (previous.routing.blend().unwrap(), plan.routing.blend().unwrap());
            assert!(weight.0 <= weight.1 && weight.1 - weight.0 < 0.0026, "{env_steps}: {weight:?}");
            let temperature = (previous.temperature, plan.temperature);
            let fall = temperature.0 - temperature.1;
            assert!((0.0..0.0013).contains(&fall), "{env_steps}: {temperature:?}");
        }
        previous = Some(plan);
    }
    let last = previous.unwrap();
    assert_eq!((last.routing, last.temperature), (Routing::Sparsemax, 0.5));
}

#[test]
fn the_seed_preset_keeps_its_constants_and_switches_hard_after_1000_episodes() {
    let constants = Coefficients {
        entropy: 0.01,
        load_balance: 0.01,
        diversity: 0.01,
        gate_entropy: 0.05,
        ..Coefficients::default()
    };
    let table = [
        (0, Phase::Warmup, Routing::Softmax, 1.0),
        (999, Phase::Warmup, Routing::Softmax, 1.0),
        (1000, Phase::FineTune, Routing::Sparsemax, 0.5),
        (10_000, Phase::FineTune, Routing::Sparsemax, 0.5),
    ];
    for (episodes, phase, routing, temperature) in table {
        let plan = plan_after_episodes(&CurriculumConfig::seed(), episodes);
        assert_eq!(plan.coefficients, constants, "episode {episodes}");
        assert_eq!((plan.phase, plan.routing), (phase, routing), "episode {episodes}");
        assert_eq!(plan.temperature, temperature, "episode {episodes}");
    }
}

#[test]
fn a_dense_baseline_keeps_one_plan_but_for_the_decay() {
    let config = CurriculumConfig::dense(2.5e-4, 0.01, Decay::None);
    let start = plan_after_steps(&config, 0);
    assert_eq!(start.routing, Routing::Dense);
    assert_eq!(start.coefficients, Coefficients { entropy: 0.01, ..Coefficients::default() });
    assert_eq!(start.learning_rate.at(0), 2.5e-4);
    for env_steps in [1, 200_000, 600_000, 1_000_000] {
        assert_eq!(plan_after_steps(&config, env_steps), start, "step {env_steps}");
    }
}

#[test]
fn a_held_routing_replaces_only_the_routing() {
    let cases = [
        (RoutingChoice::Softmax, Routing::Softmax),
        (RoutingChoice::Sparsemax, Routing::Sparsemax),
        (RoutingChoice::Entmax15, Routing::Entmax15),
        (RoutingChoice::TopK, Routing::TopK { k: 2 }),
        (RoutingChoice::Gumbel, Routing::Gumbel),
        (RoutingChoice::Uniform, Routing::Uniform),
        (RoutingChoice::Random, Routing::Random),
        (RoutingChoice::Dense, Routing::Dense),
    ];
    for (routing, expected) in cases {
        let held = CurriculumConfig { routing, ..CurriculumConfig::default() };
        for env_steps in [0, 300_000, 700_000] {
            let scheduled = plan_after_steps(&CurriculumConfig::default(), env_steps);
            let plan = plan_after_steps(&held, env_steps);
            assert_eq!(plan, Plan { routing: expected, ..scheduled }, "step {env_steps}");
        }
    }
}

#[test]
fn a_phase_routes_as_its_table_says() {
    let cases = [
        (FixedRouting::Softmax, Routing::Softmax),
        (FixedRouting::Sparsemax, Routing::Sparsemax),
        (FixedRouting::Entmax15, Routing::Entmax15),
        (FixedRouting::TopK, Routing::TopK { k: 3 }),
        (FixedRouting::Gumbel, Routing::Gumbel),
        (FixedRouting::Uniform, Routing::Uniform),
        (FixedRouting::Random, Routing::Random),
        (FixedRouting::Dense, Routing::Dense),
    ];
    for (routing, expected) in cases {
        let mut config = CurriculumConfig { top_k: 3, ..CurriculumConfig::default() };
        config.fine_tune.routing = routing;
        assert_eq!(plan_after_steps(&config, 700_000).routing, expected, "{routing:?}");
        assert_eq!(plan_after_steps(&config, 0).routing, Routing::Softmax, "another phase's routing");
    }
}

#[test]
fn optional_losses_are_off_and_keep_their_coefficient_in_every_phase() {
    let mut config = CurriculumConfig::default();
    let scheduled: Vec<_> =
        [0, 300_000, 700_000].map(|env_steps| plan_after_steps(&config, env_steps).coefficients).into();
    config.optional = OptionalConfig {
        importance: 0.01,
        router_z: 0.001,
        attention_gini: 0.02,
        next_operator: 0.1,
        pet: 0.5,
        pet_schedule: PetSchedule::Constant,
    };
    for (env_steps, without) in [0, 300_000, 700_000].into_iter().zip(scheduled) {
        let expected = Coefficients {
            importance: 0.01,
            router_z: 0.001,
            attention_gini: 0.02,
            next_operator: 0.1,
            pet: 0.5,
            ..without
        };
        let off = [without.importance, without.router_z, without.attention_gini];
        assert_eq!((off, without.next_operator, without.pet), ([0.0; 3], 0.0, 0.0));
        assert_eq!(plan_after_steps(&config, env_steps).coefficients, expected, "step {env_steps}");
    }
}

#[test]
fn a_stepped_second_difference_grows_tenfold_at_20_and_60_percent_of_the_run() {
    let mut config = CurriculumConfig::default();
    config.optional.pet = 2.0;
    config.optional.pet_schedule = PetSchedule::Stepped;
    let cases =
        [(0, 0.02), (199_999, 0.02), (200_000, 0.2), (599_999, 0.2), (600_000, 2.0), (1_000_000, 2.0)];
    for (env_steps, expected) in cases {
        assert_eq!(plan_after_steps(&config, env_steps).coefficients.pet, expected, "step {env_steps}");
    }
    let mut constant = CurriculumConfig::dense(1e-3, 0.0, Decay::None);
    constant.optional = config.optional;
    assert_eq!(plan_after_steps(&constant, 0).coefficients.pet, 2.0, "one phase, the last");
}
