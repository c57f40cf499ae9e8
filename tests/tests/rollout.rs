//! A rollout is the same whichever environments a thread takes through it.

use gatefold_curriculum::{Plan, Routing};
use gatefold_env::{
    Action, EnvEntry, EnvError, EnvSpec, Environment, NoOptions, ObservationView, Params, StreamRng,
    Transition,
};
use gatefold_policy::{Architecture, PolicyConfig};
use gatefold_tests::camp;
use gatefold_tests::trainee::{Trainee, plan, small_policy};
use rand::RngExt;
use rayon::ThreadPoolBuilder;
use serde::{Deserialize, Serialize};

/// Not a multiple of the numbers of threads below, so that groups are not all equal.
const NUM_ENVS: usize = 13;

fn on_threads<T: Send>(threads: usize, body: impl FnOnce() -> T + Send) -> T {
    ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool").install(body)
}

/// All that is known after some rollouts, in words: what each gave, and the state it left.
fn collected(entry: &EnvEntry, config: &PolicyConfig, plan: &Plan, threads: usize) -> Vec<String> {
    on_threads(threads, || {
        let mut trainee = Trainee::new(entry, &Params::new(NUM_ENVS, 3), config);
        let rollouts = (0..3).map(|_| {
            let rollout = trainee.collect(plan);
            let state = trainee.collector.save().expect("environments that can be saved");
            format!("{rollout:?} {state:?} {:?}", trainee.collector.scaling())
        });
        rollouts.collect()
    })
}

#[test]
fn threads_change_nothing_for_any_routing_and_for_plain_policies() {
    let config = |architecture, num_experts| PolicyConfig {
        normalize_observations: true,
        twin_critics: true,
        ..small_policy(architecture, num_experts)
    };
    let routed =
        [Routing::Softmax, Routing::Sparsemax, Routing::TopK { k: 2 }, Routing::Gumbel, Routing::Random];
    let mut cases: Vec<_> =
        routed.into_iter().map(|routing| (config(Architecture::Routed, 4), routing)).collect();
    cases.push((config(Architecture::Mlp, 1), Routing::Dense));
    for (config, routing) in cases {
        let plan = plan(routing, 0.5, 0.0);
        let one = collected(&camp::ENTRY, &config, &plan, 1);
        assert!(one.iter().all(|seen| seen.contains("Truncated") && seen.contains("Terminated")));
        for threads in [2, 3] {
            let several = collected(&camp::ENTRY, &config, &plan, threads);
            assert!(several == one, "{routing:?} on {threads} threads:\n{several:?}\nand on one:\n{one:?}");
        }
    }
}

/// Now and then a reward is not a number, in one copy or another.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Fuse(u32);

impl Environment for Fuse {
    type Config = NoOptions;

    fn new(_: &NoOptions) -> Result<Self, EnvError> {
        Ok(Self(0))
    }

    fn spec(&self) -> EnvSpec {
        EnvSpec { max_episode_steps: Some(7), ..EnvSpec::new(1, 2) }
    }

    fn reset(&mut self, rng: &mut StreamRng) {
        self.0 = rng.random_range(0..100);
    }

    fn step(&mut self, _: Action, rng: &mut StreamRng) -> Transition {
        self.0 = rng.random_range(0..100);
        Transition { reward: if self.0 == 0 { f32::NAN } else { 1.0 }, score: 0.0, end: None }
    }

    fn observe(&self, view: &mut ObservationView<'_>) {
        view.features[0] = self.0 as f32 / 100.0;
    }
}

#[test]
fn a_rollout_that_fails_says_and_leaves_the_same_on_any_number_of_threads() {
    let entry = EnvEntry::new::<Fuse>("fuse", "Blows, for tests");
    let plan = plan(Routing::Dense, 1.0, 0.0);
    let config = PolicyConfig { normalize_observations: true, ..small_policy(Architecture::Mlp, 1) };
    let one = collected(&entry, &config, &plan, 1);
    assert!(one.iter().any(|seen| seen.contains("NonFinite")), "the case must fail: {one:?}");
    for threads in [2, 3] {
        assert_eq!(collected(&entry, &config, &plan, threads), one, "{threads} threads");
    }
}
