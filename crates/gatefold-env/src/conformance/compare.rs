//! Two batches side by side: what differs first.

use crate::ObservationBatch;
use crate::conformance::drive::Drive;
use crate::conformance::report::Fault;

/// The first difference between row `i` of `a` and row `j` of `b`, bit for bit.
pub(super) fn row_difference(
    (a, i): (&ObservationBatch, usize),
    (b, j): (&ObservationBatch, usize),
) -> Option<String> {
    fn row<T>(all: &[T], rows: usize, index: usize) -> &[T] {
        let width = all.len() / rows;
        &all[index * width..(index + 1) * width]
    }
    fn first<T: Copy + std::fmt::Debug>(
        name: &str,
        a: &[T],
        b: &[T],
        same: fn(T, T) -> bool,
    ) -> Option<String> {
        let at = (0..a.len().max(b.len())).find(|&k| match (a.get(k), b.get(k)) {
            (Some(&x), Some(&y)) => !same(x, y),
            _ => true,
        })?;
        Some(format!("{name} {at} is {:?} and {:?}", a.get(at), b.get(at)))
    }
    let bits = |x: f32, y: f32| x.to_bits() == y.to_bits();
    first("feature", row(&a.features, a.rows(), i), row(&b.features, b.rows(), j), bits)
        .or_else(|| {
            let (a, b) = (row(&a.activations, a.rows(), i), row(&b.activations, b.rows(), j));
            first("activation", a, b, bits)
        })
        .or_else(|| {
            let (a, b) = (row(&a.node_features, a.rows(), i), row(&b.node_features, b.rows(), j));
            first("node feature", a, b, bits)
        })
        .or_else(|| {
            let (a, b) = (row(&a.mask, a.rows(), i), row(&b.mask, b.rows(), j));
            first("mask entry", a, b, |x, y| x == y)
        })
}

/// The first difference between environment `env` of two batches after their latest step.
pub(super) fn difference(a: &Drive, b: &Drive, env: usize) -> Option<String> {
    if let Some(found) = row_difference((&a.seen, env), (&b.seen, env)) {
        return Some(found);
    }
    if a.step == 0 || b.step == 0 {
        return None;
    }
    let (ra, rb) = (&a.results, &b.results);
    if ra.rewards[env].to_bits() != rb.rewards[env].to_bits() {
        return Some(format!("reward is {} and {}", ra.rewards[env], rb.rewards[env]));
    }
    if ra.ends[env] != rb.ends[env] {
        return Some(format!("end is {:?} and {:?}", ra.ends[env], rb.ends[env]));
    }
    let episodes = |drive: &Drive| -> Vec<_> {
        let of_env = drive.results.finished.iter().filter(|episode| episode.env == env);
        // Numbers as bits, so that NaN equals itself and fails its own check only.
        of_env.map(|e| (e.episode_return.to_bits(), e.score.to_bits(), e.length, e.end)).collect()
    };
    if episodes(a) != episodes(b) {
        return Some(format!("episodes are {:?} and {:?}", ra.finished, rb.finished));
    }
    let ended = ra.ends[env].is_some();
    let found = ended.then(|| row_difference((&ra.finals, env), (&rb.finals, env))).flatten();
    found.map(|found| format!("final {found}"))
}

/// Lets `a` choose for both, and compares every environment of `b` with the same one of `a` at the
/// start and after each of `steps` steps. `take` steps both.
pub(super) fn in_step(
    a: &mut Drive,
    b: &mut Drive,
    steps: usize,
    mut take: impl FnMut(&mut Drive, &mut Drive) -> Result<(), Fault>,
) -> Result<(), Fault> {
    compared(a, b)?;
    for _ in 0..steps {
        a.choose()?;
        let num_envs = b.num_envs();
        b.actions.copy_from_slice(&a.actions[..num_envs]);
        take(a, b)?;
        compared(a, b)?;
    }
    Ok(())
}

/// The usual way to take a step with both.
pub(super) fn both(a: &mut Drive, b: &mut Drive) -> Result<(), Fault> {
    a.take()?;
    b.take()
}

/// Fails at the first environment of `b` that differs from the same one of `a`.
pub(super) fn compared(a: &Drive, b: &Drive) -> Result<(), Fault> {
    for env in 0..b.num_envs() {
        if let Some(found) = difference(a, b, env) {
            return Err(Fault::at(a.step, format!("environment {env}: {found}")));
        }
    }
    Ok(())
}
