//! A curve, its file, and how far two curves may be apart.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use gatefold_monitor::names;
use serde::Deserialize;

/// Iterations of every curve.
pub(crate) const ITERATIONS: usize = 20;

/// Allowed distance, relative to the largest magnitude that the recorded quantity has on its curve.
pub(crate) const TOLERANCE: f64 = 1e-4;

/// Set to `write`, the curves are recorded anew.
pub(crate) const MODE: &str = "GATEFOLD_GOLDEN";

/// What is compared. Quantities that count (a share of clipped rows, experts in the support) are left out:
/// they jump by a whole row where all else moves in its last bit.
const QUANTITIES: [&str; 30] = [
    names::ROLLOUT_RETURN_MEAN,
    names::ROLLOUT_SCORE_MEAN,
    names::ROLLOUT_LENGTH_MEAN,
    names::ROLLOUT_VALUE_MEAN,
    names::TRAIN_LOSS,
    names::TRAIN_POLICY_LOSS,
    names::TRAIN_VALUE_LOSS,
    names::TRAIN_ENTROPY,
    names::TRAIN_APPROX_KL,
    names::TRAIN_GRAD_NORM,
    names::TRAIN_EXPLAINED_VARIANCE,
    names::TRAIN_ADVANTAGE_STD,
    names::TRAIN_LEARNING_RATE,
    names::REWARD_SCALE,
    names::ROUTER_ENTROPY,
    names::GAT_ATTENTION_ENTROPY,
    names::CURRICULUM_TEMPERATURE,
    names::CURRICULUM_BLEND,
    names::LOSSES_LOAD_BALANCE,
    names::LOSSES_DIVERSITY,
    names::LOSSES_GATE_ENTROPY,
    names::LOSSES_ALIGNMENT,
    names::LOSSES_SEMANTIC,
    names::LOSSES_OVERLAP,
    names::LOSSES_TEMPORAL,
    names::LOSSES_IMPORTANCE,
    names::LOSSES_ROUTER_Z,
    names::LOSSES_ATTENTION_GINI,
    names::LOSSES_NEXT_OPERATOR,
    names::LOSSES_PET,
];

/// The quantities of each iteration; `None` where an iteration does not report one, such as a return before
/// the first episode has ended.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Curve {
    curves: BTreeMap<String, Vec<Option<f64>>>,
}

impl Curve {
    /// Keeps of each iteration what is compared.
    pub(crate) fn new<M>(iterations: &[M], get: impl Fn(&M, &str) -> Option<f64>) -> Self {
        assert_eq!(iterations.len(), ITERATIONS, "iterations of a curve");
        let of = |name: &str| iterations.iter().map(|i| get(i, name)).collect::<Vec<_>>();
        let all = QUANTITIES.map(|name| (name.to_string(), of(name)));
        Self { curves: all.into_iter().filter(|(_, curve)| curve.iter().any(Option::is_some)).collect() }
    }

    /// What lies further apart than [`TOLERANCE`], a line for the first place of each quantity.
    pub(crate) fn differences(&self, recorded: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let names = self.curves.keys().chain(recorded.curves.keys());
        for name in names.collect::<BTreeSet<_>>() {
            let (Some(now), Some(then)) = (self.curves.get(name), recorded.curves.get(name)) else {
                found.push(format!("{name}: only in one of the two"));
                continue;
            };
            let scale = then.iter().flatten().fold(0.0, |most: f64, x| most.max(x.abs()));
            let near = |(now, then): (&Option<f64>, &Option<f64>)| match (now, then) {
                (Some(now), Some(then)) => (now - then).abs() <= TOLERANCE * scale,
                (now, then) => now.is_none() && then.is_none(),
            };
            if let Some(at) = now.iter().zip(then).position(|pair| !near(pair)) {
                found.push(format!("{name}: {:?} in iteration {at}, recorded {:?}", now[at], then[at]));
            }
        }
        found
    }

    /// The largest distance to another curve of the same quantities, relative as in [`TOLERANCE`], and whose.
    pub(crate) fn distance(&self, recorded: &Self) -> (f64, String) {
        let mut worst = (0.0, String::new());
        for (name, then) in &recorded.curves {
            let scale = then.iter().flatten().fold(f64::MIN_POSITIVE, |most: f64, x| most.max(x.abs()));
            for (now, then) in self.curves[name].iter().zip(then) {
                let apart = (now.unwrap_or(0.0) - then.unwrap_or(0.0)).abs() / scale;
                if apart > worst.0 {
                    worst = (apart, name.clone());
                }
            }
        }
        worst
    }

    /// Compares with `golden/NAME.json`, or records it if [`MODE`] says so.
    #[track_caller]
    pub(crate) fn assert_recorded(&self, name: &str) {
        if std::env::var(MODE).is_ok_and(|mode| mode == "write") {
            fs::write(path(name), self.to_text()).unwrap();
            return;
        }
        let differences = self.differences(&Self::recorded(name));
        assert!(
            differences.is_empty(),
            "{name} differs from the recorded curve:\n  {}\nIf learning was meant to change, record it with \
             {MODE}=write and say why in CHANGELOG.md. If only samples differ from one iteration on, a \
             rounding error may have changed an action: the update curves tell.",
            differences.join("\n  ")
        );
    }

    /// The curve of `golden/NAME.json`.
    pub(crate) fn recorded(name: &str) -> Self {
        let path = path(name);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// One line for each quantity, so that a change shows which of them it moved.
    fn to_text(&self) -> String {
        let mut text = format!("{{\n  \"about\": \"{ABOUT}\",\n  \"curves\": {{\n");
        for (index, (name, curve)) in self.curves.iter().enumerate() {
            let comma = if index + 1 < self.curves.len() { "," } else { "" };
            // Shortest digits that read back as the same number of 32 bits, which is far below the tolerance.
            let curve: Vec<Option<f32>> = curve.iter().map(|x| x.map(|x| x as f32)).collect();
            writeln!(text, "    {name:?}: {}{comma}", serde_json::to_string(&curve).unwrap()).unwrap();
        }
        text + "  }\n}\n"
    }
}

const ABOUT: &str = "20 iterations, one number each. Recorded by `GATEFOLD_GOLDEN=write cargo test -p gatefold-tests \
--release --test golden recorded`; compared by the same without the variable, each number within 1e-4 of the \
largest magnitude on its line.";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.json"))
}
