//! What a handful of runs says about an arm: point estimates over runs and tasks.
//!
//! Agarwal et al. 2021, arXiv 2108.13264; equal to their package rliable on the same numbers, by
//! `tests/rliable.rs`.

// N runs, M tasks

/// The scores of one arm, run by run, on one or several tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    values: Vec<f64>, // [N, M], row by row
    tasks: usize,
}

impl Scores {
    /// Scores `[N, M]`: a row for every run, with a score for every task.
    ///
    /// Panics unless there is a run and a task, all rows are equally long and all scores finite.
    pub fn new(runs: &[Vec<f64>]) -> Self {
        let tasks = runs.first().map_or(0, Vec::len);
        assert!(tasks > 0, "an arm has at least one run with a score");
        assert!(runs.iter().all(|run| run.len() == tasks), "every run has a score for every task");
        let values = runs.concat();
        assert!(values.iter().all(|score| score.is_finite()), "scores are finite");
        Self { values, tasks }
    }

    /// One score for every run on a single task.
    pub fn of_one_task(runs: &[f64]) -> Self {
        Self::new(&runs.iter().map(|&score| vec![score]).collect::<Vec<_>>())
    }

    /// N.
    pub fn num_runs(&self) -> usize {
        self.values.len() / self.tasks
    }

    /// M.
    pub fn num_tasks(&self) -> usize {
        self.tasks
    }

    /// All scores of one task.
    pub fn task(&self, task: usize) -> impl Iterator<Item = f64> + Clone + '_ {
        self.values.iter().skip(task).step_by(self.tasks).copied()
    }

    /// Fills `into` with as many runs, each task's drawn on its own from this task's: the stratified
    /// resample. `draw(N)` gives a run; it is called for each cell, row by row.
    pub(crate) fn resample(&self, into: &mut Self, mut draw: impl FnMut(usize) -> usize) {
        let runs = self.num_runs();
        for (cell, value) in into.values.iter_mut().enumerate() {
            *value = self.values[draw(runs) * self.tasks + cell % self.tasks];
        }
    }
}

/// Mean over runs and tasks.
pub fn mean(scores: &Scores) -> f64 {
    average(&scores.values)
}

/// Interquartile mean: the mean without the lowest and the highest quarter of all runs of all tasks,
/// each rounded down to whole runs.
pub fn iqm(scores: &Scores) -> f64 {
    let sorted = sorted(scores.values.clone());
    let cut = sorted.len() / 4;
    average(&sorted[cut..sorted.len() - cut])
}

/// Median of all runs of all tasks.
///
/// Differs from rliable's `aggregate_median`, which is [`median_of_tasks`]: on one task that is the mean.
pub fn median(scores: &Scores) -> f64 {
    middle(&sorted(scores.values.clone()))
}

/// Median over tasks of each task's mean over runs.
pub fn median_of_tasks(scores: &Scores) -> f64 {
    let runs = scores.num_runs() as f64;
    let means = (0..scores.tasks).map(|task| scores.task(task).sum::<f64>() / runs);
    middle(&sorted(means.collect()))
}

/// How far runs stay behind `target` on average, where those above it count as at it; at least 0.
pub fn optimality_gap(scores: &Scores, target: f64) -> f64 {
    let reached: Vec<f64> = scores.values.iter().map(|score| score.min(target)).collect();
    target - average(&reached)
}

/// Share of runs with a score above `threshold`: the run-score distribution of a performance profile.
pub fn share_above(scores: &Scores, threshold: f64) -> f64 {
    let above = scores.values.iter().filter(|&&score| score > threshold).count();
    above as f64 / scores.values.len() as f64
}

/// Probability that a run of `x` scores higher than a run of `y`, averaged over tasks; ties count half.
///
/// The Mann-Whitney statistic over the number of pairs. Panics if the tasks differ in number.
pub fn probability_of_improvement(x: &Scores, y: &Scores) -> f64 {
    assert_eq!(x.tasks, y.tasks, "arms have the same tasks");
    let pairs = (x.num_runs() * y.num_runs()) as f64;
    let wins = |task: usize| -> f64 {
        x.task(task)
            .flat_map(|x| {
                y.task(task).map(move |y| f64::from(u8::from(x > y)) + 0.5 * f64::from(u8::from(x == y)))
            })
            .sum()
    };
    (0..x.tasks).map(|task| wins(task) / pairs).sum::<f64>() / x.tasks as f64
}

pub(crate) fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { (sorted[half - 1] + sorted[half]) / 2.0 } else { sorted[half] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_cut_from_either_side_and_rounded_down() {
        let cases: [(&[f64], f64); 5] = [
            (&[7.0], 7.0),
            (&[1.0, 2.0, 9.0], 4.0),
            (&[-100.0, 2.0, 4.0, 100.0], 3.0),
            (&[100.0, 1.0, 2.0, 3.0, -100.0], 2.0),
            (&[0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 9.0, 9.0], 2.5),
        ];
        for (runs, expected) in cases {
            assert_eq!(iqm(&Scores::of_one_task(runs)), expected, "{runs:?}");
        }
    }

    #[test]
    fn on_one_task_the_median_of_task_means_is_the_mean() {
        let scores = Scores::of_one_task(&[1.0, 2.0, 9.0]);
        assert_eq!((median(&scores), median_of_tasks(&scores)), (2.0, 4.0));
    }

    #[test]
    fn ties_are_half_an_improvement() {
        let one = |runs: &[f64]| Scores::of_one_task(runs);
        let cases: [(&[f64], &[f64], f64); 4] = [
            (&[1.0, 2.0], &[1.0, 2.0], 0.5),
            (&[3.0], &[1.0, 2.0], 1.0),
            (&[1.0], &[1.0, 2.0, 3.0, 0.0], 0.375),
            (&[1.0, 1.0], &[1.0, 1.0, 1.0], 0.5),
        ];
        for (x, y, expected) in cases {
            assert_eq!(probability_of_improvement(&one(x), &one(y)), expected, "{x:?} {y:?}");
            assert_eq!(probability_of_improvement(&one(y), &one(x)), 1.0 - expected, "{x:?} {y:?}");
        }
    }

    #[test]
    fn the_share_above_a_threshold_leaves_out_runs_at_it() {
        let scores = Scores::of_one_task(&[1.0, 2.0, 3.0, 4.0]);
        let shares = [0.0, 1.0, 2.5, 4.0].map(|threshold| share_above(&scores, threshold));
        assert_eq!(shares, [1.0, 0.75, 0.5, 0.0]);
    }

    #[test]
    fn a_run_beyond_the_target_closes_no_gap_of_others() {
        let scores = Scores::of_one_task(&[2.0, 50.0]);
        assert_eq!(optimality_gap(&scores, 10.0), 4.0);
    }
}
