//! Arms beside each other: estimates with intervals, and who improves on the first.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::Serialize;

use crate::bootstrap::Interval;
use crate::error::StudyError;
use crate::runs::{Arm, Run};
use crate::statistics::{
    Scores, iqm, mean, median, optimality_gap, probability_of_improvement, share_above, sorted,
};

/// Seed of the resamples: the same runs give the same intervals, whatever stands beside them.
const SEED: u64 = 2108_13264;

/// Thresholds of the performance profile unless given.
const THRESHOLDS: usize = 5;

/// What to compare by.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// A number of `summary.json`; more counts as better.
    pub metric: String,
    /// The score below which the optimality gap is measured, if it is.
    pub target: Option<f64>,
    /// Thresholds of the performance profile; if empty, five inside the range of the scores.
    pub thresholds: Vec<f64>,
}

/// An estimate with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Its stratified bootstrap interval.
    #[serde(flatten)]
    pub interval: Interval,
}

/// One arm of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArmResult {
    /// The arm.
    pub name: String,
    /// The score of each run.
    pub runs: Vec<RunScore>,
    /// Trainable parameters, if all runs have as many.
    pub params: Option<usize>,
    /// Interquartile mean.
    pub iqm: Estimate,
    /// Mean.
    pub mean: Estimate,
    /// Median of the runs.
    pub median: Estimate,
    /// How far runs stay behind the target, if there is one.
    pub optimality_gap: Option<Estimate>,
    /// Share of runs above each threshold.
    pub profile: Vec<Estimate>,
    /// Probability that a run of this arm scores higher than one of the first arm; `None` for itself.
    pub improvement: Option<Estimate>,
}

/// The score of one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunScore {
    /// The run directory.
    pub run: PathBuf,
    /// Its seed.
    pub seed: u64,
    /// Its score.
    pub score: f64,
}

/// Arms beside each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The environment of all runs.
    pub env: String,
    /// The number compared by.
    pub metric: String,
    /// The target of the optimality gap, if there is one.
    pub target: Option<f64>,
    /// Thresholds of the performance profiles.
    pub thresholds: Vec<f64>,
    /// The arms; the first is the one that others are held against.
    pub arms: Vec<ArmResult>,
    /// What makes the comparison less than it looks.
    pub warnings: Vec<String>,
}

/// Compares arms, each with at least one run. The order of an arm's runs does not matter.
pub fn compare(arms: &[Arm], question: &Question) -> Result<Comparison, StudyError> {
    let mut arms = arms.to_vec();
    for arm in &mut arms {
        arm.runs.sort_by(|a, b| (a.summary.seed, &a.path).cmp(&(b.summary.seed, &b.path)));
    }
    let runs: Vec<&Run> = arms.iter().flat_map(|arm| &arm.runs).collect();
    let Some(first) = runs.first() else {
        return Err(StudyError::Arguments { message: "no runs to compare".into(), help: None });
    };
    if let Some(run) = runs.iter().find(|run| run.summary.env != first.summary.env) {
        return Err(StudyError::MixedEnvironments {
            run: run.path.clone(),
            env: run.summary.env.clone(),
            first: first.path.clone(),
            other: first.summary.env.clone(),
        });
    }
    let scores: Vec<Vec<f64>> = arms
        .iter()
        .map(|arm| arm.runs.iter().map(|run| run.metric(&question.metric)).collect())
        .collect::<Result<_, _>>()?;
    let thresholds = match question.thresholds.as_slice() {
        [] => inner_thresholds(&scores.concat()),
        given => given.to_vec(),
    };
    let held_against = Scores::of_one_task(&scores[0]);
    let results = arms.iter().zip(&scores).enumerate().map(|(place, (arm, scores))| {
        let own = Scores::of_one_task(scores);
        let of = |statistic: &dyn Fn(&Scores) -> f64| estimate(&own, statistic);
        ArmResult {
            name: arm.name.clone(),
            runs: run_scores(arm, scores),
            params: common(arm, |run| run.summary.params),
            iqm: of(&iqm),
            mean: of(&mean),
            median: of(&median),
            optimality_gap: question.target.map(|target| of(&|scores| optimality_gap(scores, target))),
            profile: thresholds.iter().map(|&at| of(&|scores| share_above(scores, at))).collect(),
            improvement: (place > 0).then(|| Estimate {
                value: probability_of_improvement(&own, &held_against),
                interval: Interval::of_two(&own, &held_against, probability_of_improvement, &mut generator()),
            }),
        }
    });
    Ok(Comparison {
        env: first.summary.env.clone(),
        metric: question.metric.clone(),
        target: question.target,
        arms: results.collect(),
        thresholds,
        warnings: warnings(&arms),
    })
}

fn generator() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(SEED)
}

fn estimate(scores: &Scores, statistic: &dyn Fn(&Scores) -> f64) -> Estimate {
    Estimate { value: statistic(scores), interval: Interval::of(scores, statistic, &mut generator()) }
}

fn run_scores(arm: &Arm, scores: &[f64]) -> Vec<RunScore> {
    let one = |(run, &score): (&Run, &f64)| RunScore { run: run.path.clone(), seed: run.summary.seed, score };
    arm.runs.iter().zip(scores).map(one).collect()
}

/// What all runs of an arm agree on.
fn common<T: PartialEq>(arm: &Arm, of: impl Fn(&Run) -> T) -> Option<T> {
    let first = of(&arm.runs[0]);
    arm.runs.iter().all(|run| of(run) == first).then_some(first)
}

/// Thresholds that cut the range of the scores into equal parts.
fn inner_thresholds(scores: &[f64]) -> Vec<f64> {
    let sorted = sorted(scores.to_vec());
    let (low, high) = (sorted[0], sorted[sorted.len() - 1]);
    if low == high {
        return vec![low];
    }
    (1..=THRESHOLDS).map(|part| low + (high - low) * part as f64 / (THRESHOLDS + 1) as f64).collect()
}

/// What a reader of the table should know.
fn warnings(arms: &[Arm]) -> Vec<String> {
    let mut warnings = Vec::new();
    for arm in arms {
        if arm.runs.len() < 3 {
            warnings.push(format!("{}: intervals of fewer than 3 runs say little", arm.name));
        }
        let seeds: BTreeSet<u64> = arm.runs.iter().map(|run| run.summary.seed).collect();
        if seeds.len() < arm.runs.len() {
            warnings.push(format!("{}: some runs have the same seed and are not independent", arm.name));
        }
        if common(arm, |run| run.summary.params).is_none() {
            warnings.push(format!("{}: its runs have different numbers of parameters", arm.name));
        }
    }
    let distinct =
        |of: fn(&Run) -> u64| arms.iter().flat_map(|arm| &arm.runs).map(of).collect::<BTreeSet<_>>();
    let numbers = |set: BTreeSet<u64>| set.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let steps = distinct(|run| run.summary.total_steps);
    if steps.len() > 1 {
        warnings.push(format!("runs were trained for different numbers of steps: {}", numbers(steps)));
    }
    let episodes = distinct(|run| run.summary.eval_episodes as u64);
    if episodes.len() > 1 {
        warnings.push(format!("runs were evaluated on different numbers of episodes: {}", numbers(episodes)));
    }
    warnings
}
