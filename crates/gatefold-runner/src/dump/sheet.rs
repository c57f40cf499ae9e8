//! `dump.json`: a dump in words and round numbers, for a person.

use gatefold_ppo::{Batch, UpdateError};
use serde_json::{Value, json};

use super::{Dump, Header};

/// The smallest and the largest number of an array over some rows, and how many are not finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Span {
    pub(crate) name: &'static str,
    /// Over the finite ones; `None` if there are none.
    pub(crate) range: Option<(f32, f32)>,
    pub(crate) not_finite: usize,
}

/// What an update read at these rows.
pub(crate) fn spans(batch: &Batch, rows: &[usize]) -> [Span; 5] {
    let rollout = &batch.rollout;
    let width = rollout.observations.features.len() / rollout.observations.rows();
    let features =
        rows.iter().flat_map(|&row| &rollout.observations.features[row * width..(row + 1) * width]);
    let over_time = [
        ("advantages", batch.advantages.as_slice()),
        ("returns", batch.returns.as_slice()),
        ("old values", rollout.values.as_slice()),
        ("old log-probabilities", rollout.log_probs.as_slice()),
    ];
    let [advantages, returns, values, log_probs] = over_time.map(|(name, array)| {
        let array = array.expect("rollout arrays are in standard layout");
        span(name, rows.iter().map(|&row| array[row]))
    });
    [span("observations", features.copied()), advantages, returns, values, log_probs]
}

fn span(name: &'static str, values: impl Iterator<Item = f32>) -> Span {
    let mut span = Span { name, range: None, not_finite: 0 };
    for x in values {
        match span.range {
            _ if !x.is_finite() => span.not_finite += 1,
            Some((least, most)) => span.range = Some((least.min(x), most.max(x))),
            None => span.range = Some((x, x)),
        }
    }
    span
}

/// Rows of a flat buffer as `step/environment`.
pub(crate) fn places(rows: &[usize], num_envs: usize) -> String {
    let places: Vec<_> = rows.iter().map(|row| format!("{}/{}", row / num_envs, row % num_envs)).collect();
    places.join(" ")
}

pub(super) fn text(dump: &Dump, header: &Header) -> String {
    let UpdateError::NonFinite { epoch, minibatch, what, value, rows } = dump.failure;
    let spans = spans(dump.batch, rows).map(|span| {
        let (least, most) = span.range.unzip();
        (span.name.to_string(), json!({"least": least, "most": most, "not_finite": span.not_finite}))
    });
    let sheet = json!({
        "what_happened": dump.failure.to_string(),
        "replay": "gatefold replay-update FOLDER, with this folder",
        "environment": dump.config.env.name,
        "seed": dump.config.run.seed,
        "iteration": header.iterations_before + 1,
        "env_steps": header.env_steps,
        "optimizer_steps_before": header.optimizer_steps,
        "simd_level": header.simd_level,
        "injected_fault": dump.fault,
        "not_finite": {"what": what, "value": value.to_string(), "epoch": epoch, "minibatch": minibatch},
        "policy_shape": dump.shape,
        "plan": dump.plan,
        "minibatch": Value::Object(spans.into_iter().collect()),
        "minibatch_rows_as_step_and_environment": places(rows, dump.batch.rollout.num_envs()),
    });
    format!("{}\n", serde_json::to_string_pretty(&sheet).expect("a sheet is JSON"))
}
