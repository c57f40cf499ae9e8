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

#[divan::bench(args = TABLE.iter().map(|entry| entry.name), consts = [64, 1024], sample_size = 4, sample_count = 1000)]
fn step<const NUM_ENVS: usize>(bencher: Bencher, name: &str) {
    let entry = TABLE.iter().find(|entry| entry.name == name).expect("names come from the table");
    let mut batch: Box<dyn BatchEnv> = (entry.build)(&Params::new(NUM_ENVS, 1)).expect("defaults build");
    let spec = batch.spec().clone();
    let mut observations = ObservationBatch::new(&spec, NUM_ENVS);
    let mut results = StepResults::new(&spec, NUM_ENVS);
    batch.reset(observations.as_mut()).expect("a reset");
    let mut rng = stream(1, Purpose::Actions, 0);
    let mut tape: Vec<Vec<Action>> = Vec::new();
    let mut draw = || Action::Discrete(rng.random_range(0..spec.num_actions()));
    tape.resize_with(TAPE, || (0..NUM_ENVS).map(|_| draw()).collect());
    let mut actions = tape[0].clone();
    let mut at = 0;
    bencher.counter(ItemsCount::new(NUM_ENVS)).bench_local(|| {
        at = (at + 1) % TAPE;
        let drawn = &tape[at];
        if spec.masked {
            let rows = observations.mask.chunks_exact(spec.num_actions());
            let choices = drawn.iter().zip(rows).map(|(&action, row)| allowed(row, action));
            actions.iter_mut().zip(choices).for_each(|(action, choice)| *action = choice);
        }
        let chosen = if spec.masked { &actions } else { drawn };
        batch.step(chosen, observations.as_mut(), &mut results).expect("a step");
    });
}

/// The first allowed action at or after `draw`, cyclically.
fn allowed(mask: &[bool], draw: Action) -> Action {
    let start = draw.index();
    let action = (start..mask.len()).chain(0..start).find(|&action| mask[action]);
    Action::Discrete(action.expect("a mask is never empty"))
}
