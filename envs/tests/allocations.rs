//! Stepping allocates nothing: every environment of the table, straight into a rollout's buffer, over
//! episode ends and time limits.

use allocation_counter::measure;
use gatefold_env::{Action, ObservationBatch, Params, Purpose, StepResults, stream};
use gatefold_envs::TABLE;
use rand::RngExt;
use rayon::ThreadPoolBuilder;

const COPIES: usize = 24;
/// Steps of a buffer, which is then begun anew.
const STEPS: usize = 50;

/// Allocations in `rounds` buffers of steps, and the episodes that ended in them.
fn allocations(entry: &gatefold_env::EnvEntry, rounds: usize) -> (u64, usize) {
    let mut batch = (entry.build)(&Params::new(COPIES, 1)).expect("defaults build");
    let spec = batch.spec().clone();
    let mut rollout = ObservationBatch::new(&spec, (STEPS + 1) * COPIES);
    let mut results = StepResults::new(&spec, COPIES);
    let mut actions = [Action::Discrete(0); COPIES];
    let mut rng = stream(1, Purpose::Actions, 0);
    let mut ended = 0;
    batch.reset(rollout.rows_mut(0, COPIES)).expect("a reset");
    let mut fill = || {
        batch.observe(rollout.rows_mut(0, COPIES)).expect("an observation");
        for t in 0..STEPS {
            let seen = rollout.rows_mut(t * COPIES, COPIES);
            for (action, mask) in actions.iter_mut().zip(seen.mask.chunks_exact(spec.num_actions())) {
                let start = rng.random_range(0..mask.len());
                let allowed = (start..mask.len()).chain(0..start).find(|&action| mask[action]);
                *action = Action::Discrete(allowed.expect("a mask is never empty"));
            }
            let next = rollout.rows_mut((t + 1) * COPIES, COPIES);
            batch.step(&actions, next, &mut results).expect("a step");
            ended += results.finished.len();
        }
    };
    fill();
    let counted = measure(|| (0..rounds).for_each(|_| fill()));
    (counted.count_total, ended)
}

#[test]
fn stepping_and_writing_into_the_buffer_allocates_nothing() {
    // One thread: handing work to others costs them a queue's block now and then.
    let pool = ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
    for entry in TABLE {
        let (count, ended) = pool.install(|| allocations(entry, 12));
        assert!(ended >= COPIES, "{}: only {ended} episodes ended", entry.name);
        assert_eq!(count, 0, "{}", entry.name);
    }
}

#[test]
fn an_allocation_would_be_counted() {
    assert_eq!(measure(|| drop(std::hint::black_box(vec![0; 7]))).count_total, 1);
}
