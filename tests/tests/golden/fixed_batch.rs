//! Updates on one rollout: 20 iterations in which nothing is sampled, so that rounding changes no action.

use gatefold_curriculum::{Coefficients, Plan, Routing};
use gatefold_env::{EnvEntry, Params};
use gatefold_optim::{export, import};
use gatefold_policy::{Architecture, Nonlinearity, PolicyConfig};
use gatefold_tests::trainee::{Train, Trainee, plan, small_policy};

use super::curve::{Curve, ITERATIONS};

/// What is updated on what.
pub(crate) struct Problem {
    entry: &'static EnvEntry,
    num_envs: usize,
    config: PolicyConfig,
    plan: fn(usize) -> Plan,
}

/// A plain policy on 256 rows of cartpole.
pub(crate) fn cartpole() -> Problem {
    Problem {
        entry: entry("cartpole"),
        num_envs: 16,
        config: PolicyConfig { activation: Nonlinearity::Tanh, ..small_policy(Architecture::Mlp, 1) },
        plan: |_| Plan {
            coefficients: Coefficients { entropy: 0.01, ..Coefficients::default() },
            ..plan(Routing::Dense, 1.0, 1e-3)
        },
    }
}

/// The full method on 128 rows of delve: every loss, and the routing of every phase.
pub(crate) fn delve() -> Problem {
    Problem {
        entry: entry("delve"),
        num_envs: 8,
        config: PolicyConfig {
            experts: ["survival", "combat", "exploration", "general"].map(String::from).to_vec(),
            next_operator: true,
            activation: Nonlinearity::Tanh,
            normalize_observations: true,
            ..small_policy(Architecture::Routed, 4)
        },
        plan: |iteration| Plan {
            coefficients: EVERY_LOSS,
            ..match iteration {
                0..7 => plan(Routing::Softmax, 1.0, 3e-4),
                7..14 => plan(Routing::Blend { weight: 0.5 }, 0.8, 3e-4),
                _ => plan(Routing::Sparsemax, 0.6, 3e-4),
            }
        },
    }
}

const EVERY_LOSS: Coefficients = Coefficients {
    entropy: 0.01,
    load_balance: 0.02,
    diversity: 0.02,
    gate_entropy: 0.01,
    alignment: 0.05,
    semantic: 0.02,
    overlap: 0.02,
    temporal: 0.05,
    importance: 0.02,
    router_z: 0.001,
    attention_gini: 0.05,
    next_operator: 0.05,
    pet: 0.01,
};

/// The problem's curve; `change` is done to the new policy and its learner before the first step.
pub(crate) fn curve(problem: &Problem, change: impl FnOnce(&mut Trainee)) -> Curve {
    let mut trainee = Trainee::new(problem.entry, &Params::new(problem.num_envs, 1), &problem.config);
    change(&mut trainee);
    let rollout = trainee.collect(&(problem.plan)(0)).expect("a rollout");
    let batch = trainee.batch(rollout);
    let update = |iteration| trainee.update(&batch, &(problem.plan)(iteration)).expect("an update");
    let metrics: Vec<_> = (0..ITERATIONS).map(update).collect();
    Curve::new(&metrics, |metrics, name| metrics.get(name))
}

/// Moves every parameter to the next number of 32 bits.
pub(crate) fn nudge(trainee: &mut Trainee) {
    let mut tensors = export(&trainee.policy);
    tensors.iter_mut().flat_map(|tensor| &mut tensor.data).for_each(|x| *x = x.next_up());
    trainee.policy = import::<Train, _>(trainee.policy.clone(), &tensors).expect("its own tensors");
}

fn entry(name: &str) -> &'static EnvEntry {
    gatefold_envs::TABLE.iter().find(|entry| entry.name == name).expect("an environment that ships")
}
