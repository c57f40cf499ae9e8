//! What a fixed policy earns: tests hold it against the best return that is known.

use gatefold_env::{Action, EnvEntry, ObservationBatch, Params, StepResults};

/// Mean return of a policy of features and activations, over the episodes that end in `steps` steps.
pub(crate) fn mean_return(
    entry: &EnvEntry,
    params: &Params,
    steps: usize,
    policy: impl Fn(&[f32], &[f32]) -> usize,
) -> f64 {
    let mut batch = (entry.build)(params).expect("the options build");
    let (spec, n) = (batch.spec().clone(), batch.num_envs());
    let (width, nodes) = (spec.num_features, spec.num_nodes());
    let mut seen = ObservationBatch::new(&spec, n);
    let mut results = StepResults::new(&spec, n);
    batch.reset(seen.as_mut()).expect("a reset");
    let (mut sum, mut count) = (0.0, 0);
    for _ in 0..steps {
        let of =
            |i: usize| policy(&seen.features[i * width..][..width], &seen.activations[i * nodes..][..nodes]);
        let actions: Vec<_> = (0..n).map(|i| Action::Discrete(of(i))).collect();
        batch.step(&actions, seen.as_mut(), &mut results).expect("a step");
        for episode in &results.finished {
            sum += episode.episode_return;
            count += 1;
        }
    }
    sum / f64::from(count)
}
