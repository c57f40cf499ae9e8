//! How often memory is asked for: a step of a rollout as often as its tensors need, and an iteration as
//! often as the one before, however long a run has been going.

use std::sync::{Mutex, PoisonError};

use allocation_counter::{AllocationInfo, measure};
use burn::backend::Flex;
use burn::module::AutodiffModule;
use gatefold_curriculum::{Coefficients, Plan, Routing};
use gatefold_env::{EnvEntry, ObservationBatch, Params, Purpose, stream};
use gatefold_policy::{Acting, ActorCritic, Architecture, Observation, PolicyConfig, RoutingInput};
use gatefold_ppo::Collector;
use gatefold_tests::tolerance::values;
use gatefold_tests::trainee::{Trainee, plan, small_policy};
use rayon::ThreadPoolBuilder;

fn entry(name: &str) -> &'static EnvEntry {
    gatefold_envs::TABLE.iter().find(|entry| entry.name == name).expect("an environment that ships")
}

/// A plain policy on cartpole, and the full method with losses on delve.
fn problems() -> [(&'static EnvEntry, PolicyConfig, Plan); 2] {
    let experts = ["survival", "combat", "exploration", "general"].map(String::from).to_vec();
    let full = PolicyConfig { experts, ..small_policy(Architecture::Routed, 4) };
    let weighed = Coefficients {
        entropy: 0.01,
        load_balance: 0.02,
        diversity: 0.02,
        gate_entropy: 0.01,
        alignment: 0.05,
        ..Coefficients::default()
    };
    [
        (entry("cartpole"), small_policy(Architecture::Mlp, 1), plan(Routing::Dense, 1.0, 1e-3)),
        (entry("delve"), full, Plan { coefficients: weighed, ..plan(Routing::Softmax, 1.0, 1e-3) }),
    ]
}

/// On one thread, as handing work to others costs them a queue's block now and then; and one test after the
/// other, as Burn keeps the graphs of all of them in one table.
fn alone<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread").install(body)
}

const COPIES: usize = 8;

#[test]
fn a_step_of_a_rollout_allocates_at_most_once_beside_what_its_policy_does() {
    alone(|| {
        for (entry, config, plan) in problems() {
            let trainee = Trainee::new(entry, &Params::new(COPIES, 1), &config);
            let policy = trainee.policy.valid();
            // Too short for an episode to end: a list of episodes grows with them.
            let [_warm, four, eight] = [8, 4, 8].map(|steps| collecting(entry, &policy, &plan, steps));
            let of_a_step = (eight - four) as f64 / 4.0;
            let beside = of_a_step - evaluating(entry, &policy, &plan) as f64;
            // Once: the log-probabilities, from which actions are drawn. Writing into the buffer, none.
            assert!((0.0..=1.0).contains(&beside), "{}: {beside} of {of_a_step}", entry.name);
        }
    });
}

#[test]
fn an_iteration_allocates_as_often_as_the_one_before_and_keeps_nothing() {
    alone(|| {
        for (entry, config, plan) in problems() {
            let mut trainee = Trainee::new(entry, &Params::new(COPIES, 1), &config);
            let mut iterations = |count: usize| -> Vec<AllocationInfo> {
                (0..count).map(|_| measure(|| drop(trainee.iterate(&plan)))).collect()
            };
            // Moments and buffers that are kept are made in the first ones.
            let [_, early, late] = [10, 20, 20].map(&mut iterations);
            let name = entry.name;
            // A buffer may have to grow now and then; what every iteration leaves behind adds up.
            let kept: i64 = late.iter().map(|of| of.count_current).sum();
            assert!(kept < 10, "{name}: {kept} blocks kept in {} iterations", late.len());

            let [early, late] =
                [early, late].map(|of| of.iter().map(|of| of.count_total).collect::<Vec<_>>());
            let usual = median(&early);
            let all = || early.iter().chain(&late);
            if trainee.policy.flat().is_some() {
                assert!(all().all(|&count| count == usual), "{name}: {early:?}, and later {late:?}");
                continue;
            }
            // Burn keeps gradients in tables hashed by random keys, which are made anew now and then; and a graph may
            // be larger than any before.
            assert!(median(&late).abs_diff(usual) <= 1, "{name}: {early:?}, and later {late:?}");
            let far = all().filter(|count| count.abs_diff(usual) > 3).count();
            assert!(far <= 2, "{name}: {early:?}, and later {late:?}");
        }
    });
}

fn median(counts: &[u64]) -> u64 {
    let mut sorted = counts.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

/// Allocations of the first rollout of a collector.
fn collecting(entry: &EnvEntry, policy: &ActorCritic<Flex>, plan: &Plan, steps: usize) -> u64 {
    let envs = (entry.build)(&Params::new(COPIES, 1)).expect("defaults build");
    let mut collector = Collector::new(envs, steps, None);
    let mut rng = stream(1, Purpose::Actions, 0);
    let mut collected = None;
    let counted = measure(|| {
        collected = Some(collector.collect(policy, plan, &[], &mut rng, &Default::default()));
    });
    let rollout = collected.expect("it was called").expect("a rollout");
    assert!(rollout.episodes.is_empty(), "{}: an episode ended", entry.name);
    counted.count_total
}

/// Allocations of what a step of a rollout asks of its policy.
fn evaluating(entry: &EnvEntry, policy: &ActorCritic<Flex>, plan: &Plan) -> u64 {
    let mut envs = (entry.build)(&Params::new(COPIES, 1)).expect("defaults build");
    let spec = envs.spec().clone();
    let mut seen = ObservationBatch::new(&spec, COPIES);
    envs.reset(seen.as_mut()).expect("a reset");
    let acting = Acting::new(policy);
    let evaluate = || {
        let observation = Observation::<Flex>::new(&spec, seen.pick(0..COPIES), &Default::default());
        let acted = acting.act(&observation, RoutingInput::new(plan.routing, plan.temperature));
        if let Some(of_critics) = acted.values {
            drop(values(of_critics.bootstrap()));
        }
        drop(values(acted.logits));
        drop(acted.gates.map(|gates| values(gates.alpha)));
    };
    evaluate();
    measure(evaluate).count_total
}
