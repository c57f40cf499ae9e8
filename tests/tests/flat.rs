//! A policy of MLPs alone learns and acts by a faster form of itself, with the same bits.

use burn::module::AutodiffModule;
use gatefold_curriculum::Routing;
use gatefold_env::Params;
use gatefold_optim::export;
use gatefold_policy::{Acting, Architecture, PolicyConfig, RoutingInput};
use gatefold_tests::camp;
use gatefold_tests::tolerance::{bits, values};
use gatefold_tests::trainee::{Trainee, observation, plan, small_policy};

fn trainee(twin_critics: bool, layers: &[usize]) -> Trainee {
    let config = PolicyConfig {
        trunk: layers.to_vec(),
        twin_critics,
        normalize_observations: true,
        ..small_policy(Architecture::Mlp, 1)
    };
    Trainee::new(&camp::ENTRY, &Params::new(6, 7), &config)
}

const POLICIES: [(bool, &[usize]); 3] = [(false, &[16, 16]), (true, &[16, 24]), (false, &[8, 8, 8, 8, 8, 8])];

#[test]
fn updates_have_the_bits_of_the_whole_module_in_parameters_moments_and_metrics() {
    for (twin_critics, layers) in POLICIES {
        let plan = plan(Routing::Dense, 1.0, 1e-3);
        let [mut flat, mut whole, mut in_turn] = std::array::from_fn(|_| trainee(twin_critics, layers));
        assert!(flat.policy.flat().is_some(), "the case must take the faster form");
        whole.learner.thorough = true; // looks at every tensor after every step
        for iteration in 0..4 {
            in_turn.learner.thorough = iteration % 2 == 1;
            let of_flat = flat.iterate(&plan);
            assert_eq!(of_flat, whole.iterate(&plan), "iteration {iteration}");
            assert_eq!(of_flat, in_turn.iterate(&plan), "iteration {iteration}, the module every other time");
        }
        for other in [&whole, &in_turn] {
            assert_eq!(export(&flat.policy), export(&other.policy));
            assert_eq!(flat.optimizer.export(), other.optimizer.export());
        }
        assert_ne!(
            export(&flat.policy),
            export(&trainee(twin_critics, layers).policy),
            "it must have learned"
        );
    }
}

#[test]
fn a_rollout_sees_the_bits_of_the_whole_policy() {
    for (twin_critics, layers) in POLICIES {
        let mut trainee = trainee(twin_critics, layers);
        let rollout = trainee.collect(&plan(Routing::Dense, 1.0, 0.0)).expect("a rollout");
        let policy = trainee.policy.valid();
        let acting = Acting::new(&policy);
        assert!(matches!(acting, Acting::Flat(_)));
        let seen = observation(&trainee.learner.spec, &rollout.observations, 0..96);
        let input = || RoutingInput::new(Routing::Dense, 1.0);
        let (of_flat, of_whole) = (acting.act(&seen, input()), policy.act(&seen, input()));
        assert!(of_flat.values.is_none(), "values come later, for many steps");
        assert_eq!(bits(of_flat.logits), bits(of_whole.logits));
        assert_eq!(bits(acting.values(&seen)), bits(policy.values(&seen)));
        let step = |t| observation(&trainee.learner.spec, &rollout.observations, t * 6..(t + 1) * 6);
        for (t, recorded) in rollout.values.rows().into_iter().enumerate() {
            assert_eq!(recorded.to_vec(), values(policy.values(&step(t))), "step {t}");
        }
    }
}

#[test]
fn a_policy_with_experts_has_no_flat_form() {
    let config = small_policy(Architecture::Routed, 4);
    let trainee = Trainee::new(&camp::ENTRY, &Params::new(2, 1), &config);
    assert!(trainee.policy.flat().is_none());
}
