//! Steps per second of every environment of the table, observations included.
//!
//! `cargo bench -p gatefold-envs --bench stepping`

use divan::Bencher;
use divan::counter::ItemsCount;
use gatefold_env::{Action, BatchEnv, ObservationBatch, Params, Purpose, StepResults, stream};
use gatefold_envs::TABLE;
use rand::RngExt;

fn main() {
    divan::main();
}

/// Actions are drawn ahead, so that only stepping is timed.
const TAPE: usize = 64;

#[divan::bench(args = TABLE.iter().map(|entry| entry.name), consts = [64, 1024], sample_size = 32)]
fn step<const NUM_ENVS: usize>(bencher: Bencher, name: &str) {
    let entry = TABLE.iter().find(|entry| entry.name == name).expect("names come from the table");
    let mut batch: Box<dyn BatchEnv> = (entry.build)(&Params::new(NUM_ENVS, 1)).expect("defaults build");
    let spec = batch.spec().clone();
    let mut observations = ObservationBatch::new(&spec, NUM_ENVS);
    let mut results = StepResults::new(&spec, NUM_ENVS);
    batch.reset(observations.as_mut()).expect("a reset");
    let mut rng = stream(1, Purpose::Actions, 0);
    let mut tape: Vec<Vec<usize>> = Vec::new();
    tape.resize_with(TAPE, || (0..NUM_ENVS).map(|_| rng.random_range(0..usize::MAX)).collect());
    let mut actions = vec![Action::Discrete(0); NUM_ENVS];
    let mut at = 0;
    bencher.counter(ItemsCount::new(NUM_ENVS)).bench_local(|| {
        for (env, action) in actions.iter_mut().enumerate() {
            *action = Action::Discrete(allowed(&observations.mask, spec.num_actions(), env, tape[at][env]));
        }
        at = (at + 1) % TAPE;
        batch.step(&actions, observations.as_mut(), &mut results).expect("a step");
    });
}

/// The first allowed action at or after `draw`, cyclically.
fn allowed(mask: &[bool], num_actions: usize, env: usize, draw: usize) -> usize {
    let row = &mask[env * num_actions..(env + 1) * num_actions];
    let start = draw % num_actions;
    (0..num_actions).map(|k| (start + k) % num_actions).find(|&a| row[a]).expect("a mask is never empty")
}
