//! Estimates and intervals against rliable's; `tests/oracles/bootstrap.py` explains the fields.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use gatefold_study::bootstrap::{Interval, resamples, resamples_of_two};
use gatefold_study::statistics::{
    Scores, iqm, mean, median, median_of_tasks, optimality_gap, probability_of_improvement, share_above,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    name: String,
    x: Vec<Vec<f64>>,
    y: Vec<Vec<f64>>,
    target: f64,
    thresholds: Vec<f64>,
    mean: f64,
    iqm: f64,
    median: f64,
    optimality_gap: f64,
    run_median: f64,
    profile: Vec<f64>,
    improvement: f64,
    draws: Vec<usize>,
    intervals: BTreeMap<String, [f64; 2]>,
    pair_draws: Vec<usize>,
    improvement_interval: [f64; 2],
    large_intervals: BTreeMap<String, [f64; 2]>,
}

type Statistic<'a> = &'a dyn Fn(&Scores) -> f64;

#[derive(Deserialize)]
struct File {
    cases: Vec<Case>,
}

fn cases() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/oracles/bootstrap.json");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file: File = serde_json::from_str(&text).unwrap();
    assert!(file.cases.len() > 3);
    file.cases
}

#[track_caller]
fn close(found: f64, expected: f64, tolerance: f64, what: &str) {
    assert!((found - expected).abs() <= tolerance, "{what}: {found}, rliable {expected}");
}

#[test]
fn point_estimates_are_rliables() {
    for case in cases() {
        let (x, y) = (Scores::new(&case.x), Scores::new(&case.y));
        let estimates = [
            ("mean", mean(&x), case.mean),
            ("iqm", iqm(&x), case.iqm),
            ("median", median_of_tasks(&x), case.median),
            ("run median", median(&x), case.run_median),
            ("optimality gap", optimality_gap(&x, case.target), case.optimality_gap),
            ("improvement", probability_of_improvement(&x, &y), case.improvement),
        ];
        for (what, found, expected) in estimates {
            close(found, expected, 1e-12, &format!("{}: {what}", case.name));
        }
        for (&threshold, &expected) in case.thresholds.iter().zip(&case.profile) {
            close(share_above(&x, threshold), expected, 1e-12, &format!("{}: profile", case.name));
        }
    }
}

#[test]
fn the_same_draws_give_rliables_intervals() {
    for case in cases() {
        let (x, y) = (Scores::new(&case.x), Scores::new(&case.y));
        let statistics: [(&str, Statistic<'_>); 5] = [
            ("mean", &mean),
            ("iqm", &iqm),
            ("median", &median_of_tasks),
            ("optimality_gap", &|scores| optimality_gap(scores, case.target)),
            ("profile", &|scores| share_above(scores, case.thresholds[0])),
        ];
        assert_eq!(case.intervals.len(), statistics.len());
        let count = case.draws.len() / (x.num_runs() * x.num_tasks());
        for (name, statistic) in statistics {
            let mut draws = case.draws.iter().copied();
            let values = resamples(&x, count, statistic, &mut |_| draws.next().unwrap());
            assert_eq!(draws.next(), None, "every draw is used");
            let found = Interval::percentile(values);
            let [low, high] = case.intervals[name];
            close(found.low, low, 1e-12, &format!("{}: {name}, low", case.name));
            close(found.high, high, 1e-12, &format!("{}: {name}, high", case.name));
        }
        let mut draws = case.pair_draws.iter().copied();
        let improvement =
            resamples_of_two(&x, &y, count, probability_of_improvement, &mut |_| draws.next().unwrap());
        assert_eq!(draws.next(), None, "every draw is used");
        let found = Interval::percentile(improvement);
        close(found.low, case.improvement_interval[0], 1e-12, &case.name);
        close(found.high, case.improvement_interval[1], 1e-12, &case.name);
    }
}

#[test]
fn own_draws_give_rliables_intervals_but_for_their_error() {
    for case in cases() {
        let x = Scores::new(&case.x);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let found = [("mean", Interval::of(&x, mean, &mut rng)), ("iqm", Interval::of(&x, iqm, &mut rng))];
        for (name, interval) in found {
            let [low, high] = case.large_intervals[name];
            // The percentiles of few runs jump between the values they can take.
            let tolerance = 0.05 * (high - low);
            close(interval.low, low, tolerance, &format!("{}: {name}, low", case.name));
            close(interval.high, high, tolerance, &format!("{}: {name}, high", case.name));
        }
    }
}
