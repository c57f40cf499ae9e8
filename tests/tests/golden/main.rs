//! Learning does not change unnoticed: curves of 20 iterations beside the recorded ones in `golden/`.
//!
//! A run's curve covers the whole loop, but samples: where rounding differs, an action may, and from there
//! on everything. The problems are small enough that neither the portable SIMD level nor, in the updates, a
//! last bit of every parameter reaches the tolerance, and tests here say so. (The updates' networks are of
//! tanh: at the kinks of ReLU a last bit can become a twentieth within 20 iterations.) A curve of updates on one
//! rollout samples nothing after it, and so stays comparable where rounding changes more than here.
//!
//! To record the curves anew: `GATEFOLD_GOLDEN=write cargo test -p gatefold-tests --release --test golden recorded`.

mod curve;
mod fixed_batch;
mod runs;

use std::env;
use std::process::Command;

use curve::{Curve, MODE, TOLERANCE};
use fixed_batch::Problem;
use gatefold_tests::trainee::Trainee;

#[test]
fn a_run_of_plain_ppo_on_cartpole_learns_as_recorded() {
    runs::curve(runs::CARTPOLE).assert_recorded("cartpole-run");
}

#[test]
fn a_run_of_the_full_method_on_delve_learns_as_recorded() {
    runs::curve(runs::DELVE).assert_recorded("delve-run");
}

#[test]
fn updates_of_plain_ppo_on_one_rollout_learn_as_recorded() {
    fixed_batch::curve(&fixed_batch::cartpole(), |_| ()).assert_recorded("cartpole-updates");
}

#[test]
fn updates_of_the_full_method_on_one_rollout_learn_as_recorded() {
    fixed_batch::curve(&fixed_batch::delve(), |_| ()).assert_recorded("delve-updates");
}

/// This level's curves are those of the tests above, each of which this runs again.
#[test]
fn the_portable_simd_level_learns_as_recorded() {
    if env::var(MODE).is_ok() {
        return; // while the files are written, nobody else reads them
    }
    let again = Command::new(env::current_exe().unwrap())
        .args(["learns_as_recorded", "learn_as_recorded", "--skip", "the_portable_simd_level"])
        .env("GATEFOLD_SIMD", "portable")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&again.stdout);
    assert!(told.contains("running 4 tests"), "{told}");
    assert!(again.status.success(), "{told}");
}

#[test]
fn a_last_bit_of_every_parameter_stays_far_below_the_tolerance() {
    for (name, problem) in problems() {
        let (apart, whose) =
            fixed_batch::curve(&problem, fixed_batch::nudge).distance(&Curve::recorded(name));
        assert!(apart > 0.0, "{name}: nothing was nudged");
        assert!(apart < TOLERANCE / 2.0, "{name}: {whose} is {apart:.1e} apart");
    }
}

#[test]
fn a_constant_that_moves_by_a_hundredth_or_less_is_seen() {
    type Change = (&'static str, fn(&mut Trainee));
    let changes: [Change; 7] = [
        ("gamma", |t| t.learner.ppo.gamma += 0.001),
        ("gae_lambda", |t| t.learner.ppo.gae_lambda += 0.001),
        ("clip", |t| t.learner.ppo.clip *= 1.01),
        ("value_coef", |t| t.learner.ppo.value_coef *= 1.01),
        ("max_grad_norm", |t| t.learner.ppo.max_grad_norm *= 0.99),
        ("minibatch", |t| t.learner.ppo.minibatch += 10),
        ("normalize_advantages", |t| t.learner.ppo.normalize_advantages = false),
    ];
    let ([(name, problem), _], recorded) = (problems(), Curve::recorded("cartpole-updates"));
    for (what, change) in changes {
        let differences = fixed_batch::curve(&problem, change).differences(&recorded);
        assert!(!differences.is_empty(), "{name}: {what} may change unnoticed");
    }
}

fn problems() -> [(&'static str, Problem); 2] {
    [("cartpole-updates", fixed_batch::cartpole()), ("delve-updates", fixed_batch::delve())]
}
