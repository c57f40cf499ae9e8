//! Stratified bootstrap intervals: how far an estimate would move with other seeds.

use rand::{Rng, RngExt};
use serde::Serialize;

use crate::statistics::{Scores, sorted};

/// Resamples behind an interval; rliable's default.
pub const RESAMPLES: usize = 50_000;

/// A 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The 2.5th percentile.
    pub low: f64,
    /// The 97.5th percentile.
    pub high: f64,
}

impl Interval {
    /// The percentiles of a statistic's values over resamples, between neighbours by linear
    /// interpolation. Panics on an empty list.
    pub fn percentile(values: Vec<f64>) -> Self {
        let sorted = sorted(values);
        let at = |share: f64| {
            let place = share * (sorted.len() - 1) as f64;
            let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        Self { low: at(0.025), high: at(0.975) }
    }

    /// The interval of a statistic of one arm, over [`RESAMPLES`] resamples of its runs.
    pub fn of(scores: &Scores, statistic: impl Fn(&Scores) -> f64, rng: &mut impl Rng) -> Self {
        let mut draws = |runs: usize| rng.random_range(0..runs);
        Self::percentile(resamples(scores, RESAMPLES, statistic, &mut draws))
    }

    /// The interval of a statistic of two arms, whose runs are resampled independently.
    pub fn of_two(
        x: &Scores,
        y: &Scores,
        statistic: impl Fn(&Scores, &Scores) -> f64,
        rng: &mut impl Rng,
    ) -> Self {
        let mut draws = |runs: usize| rng.random_range(0..runs);
        Self::percentile(resamples_of_two(x, y, RESAMPLES, statistic, &mut draws))
    }
}

/// Values of a statistic over resamples. `draw(N)` gives one of N runs; it is called for every run
/// and task of a resample, row by row.
pub fn resamples(
    scores: &Scores,
    count: usize,
    statistic: impl Fn(&Scores) -> f64,
    draw: &mut impl FnMut(usize) -> usize,
) -> Vec<f64> {
    let mut resample = scores.clone();
    let mut value = || {
        scores.resample(&mut resample, &mut *draw);
        statistic(&resample)
    };
    (0..count).map(|_| value()).collect()
}

/// [`resamples`] of two arms: each time first all of `x`, then all of `y`.
pub fn resamples_of_two(
    x: &Scores,
    y: &Scores,
    count: usize,
    statistic: impl Fn(&Scores, &Scores) -> f64,
    draw: &mut impl FnMut(usize) -> usize,
) -> Vec<f64> {
    let (mut drawn_x, mut drawn_y) = (x.clone(), y.clone());
    let mut value = || {
        x.resample(&mut drawn_x, &mut *draw);
        y.resample(&mut drawn_y, &mut *draw);
        statistic(&drawn_x, &drawn_y)
    };
    (0..count).map(|_| value()).collect()
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::statistics::mean;

    #[test]
    fn percentiles_lie_between_neighbours() {
        let values = (0..=100).rev().map(f64::from).collect();
        let interval = Interval::percentile(values);
        assert!((interval.low - 2.5).abs() < 1e-12 && (interval.high - 97.5).abs() < 1e-12, "{interval:?}");
        assert_eq!(Interval::percentile(vec![3.0]), Interval { low: 3.0, high: 3.0 });
    }

    #[test]
    fn a_task_is_resampled_from_its_own_runs() {
        let scores = Scores::new(&[vec![1.0, 100.0], vec![2.0, 200.0]]);
        let mut resample = scores.clone();
        let mut draws = [1, 0, 1, 1].into_iter();
        scores.resample(&mut resample, |_| draws.next().unwrap());
        assert_eq!(resample, Scores::new(&[vec![2.0, 100.0], vec![2.0, 200.0]]));
    }

    #[test]
    fn the_same_seed_gives_the_same_interval_and_another_one_nearly() {
        let scores = Scores::of_one_task(&[1.0, 4.0, 2.0, 8.5, 5.0, 7.0, 0.5, 3.3]);
        let interval = |seed| Interval::of(&scores, mean, &mut ChaCha8Rng::seed_from_u64(seed));
        let (first, other) = (interval(1), interval(2));
        assert_eq!(first, interval(1));
        assert_ne!(first, other);
        assert!((first.low - other.low).abs() < 0.1 && (first.high - other.high).abs() < 0.1);
    }
}
