//! A run that is resumed around steps of the ladder.

use std::path::Path;

use gatefold_runner::events::Silent;
use gatefold_runner::{checkpoint, resume, train};
use gatefold_tests::camp;
use gatefold_tests::copies::{Copies, metrics_without_time};

use crate::runs::*;

/// Hash of the final state and the metrics without the clock's.
fn outcome(run: &Path) -> (String, Vec<serde_json::Map<String, serde_json::Value>>) {
    (checkpoint::hash(run).unwrap(), metrics_without_time(run))
}

#[test]
fn a_run_resumed_before_at_or_after_any_step_equals_one_that_never_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("whole");
    let mut copies = Copies::new(&run, &folder.path().join("copies"));
    train(&config(STORMY, &[]), &options(&run), &[camp::ENTRY], &mut copies).unwrap();
    let whole = outcome(&run);
    let rungs: Vec<f64> = whole.1.iter().map(|line| line["ladder/rung"].as_f64().unwrap()).collect();
    let changes = rungs.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert_eq!(changes, 8, "{rungs:?}");
    assert_eq!(copies.taken.len(), rungs.len() + 1, "before, at and after every step");
    for (step, copy) in &copies.taken {
        resume(copy, &["run.checkpoint_every=1000".to_string()], &options(copy), &[camp::ENTRY], &mut Silent)
            .unwrap();
        assert_eq!(outcome(copy), whole, "resumed from step {step}");
    }
}
