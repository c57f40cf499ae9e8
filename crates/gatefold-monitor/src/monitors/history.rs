//! The last values of every metric that is judged, and its first ones as the run's own baseline.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// Values that are kept of a metric: the longest window.
pub(crate) const CAPACITY: usize = 100;
/// Values whose mean is the run's own baseline.
const EARLY: usize = 5;

/// One metric over the iterations that reported it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Series {
    /// Ascending in time, at most [`CAPACITY`], since the windows were last emptied.
    values: VecDeque<f64>,
    /// How many came since the windows were last emptied.
    count: usize,
    /// The first finite values of the run; they stay when windows are emptied.
    early: Vec<f64>,
}

impl Series {
    fn push(&mut self, value: f64) {
        if self.values.len() == CAPACITY {
            self.values.pop_front();
        }
        self.values.push_back(value);
        self.count += 1;
        if self.early.len() < EARLY && value.is_finite() {
            self.early.push(value);
        }
    }
}

/// All series, by metric name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct History {
    series: BTreeMap<String, Series>,
}

impl History {
    pub(crate) fn push(&mut self, name: &str, value: f64) {
        match self.series.get_mut(name) {
            Some(series) => series.push(value),
            None => self.series.entry(name.to_string()).or_default().push(value),
        }
    }

    /// Empties the windows of the metrics that `which` picks, and keeps baselines.
    pub(crate) fn empty_windows(&mut self, which: impl Fn(&str) -> bool) {
        for (name, series) in &mut self.series {
            if which(name) {
                series.values.clear();
                series.count = 0;
            }
        }
    }

    /// The last `window` values, if as many came after the first `grace`.
    pub(crate) fn window(&self, name: &str, window: usize, grace: usize) -> Option<Vec<f64>> {
        let series = self.series.get(name)?;
        let full = series.count >= grace + window;
        full.then(|| series.values.iter().skip(series.values.len() - window).copied().collect())
    }

    /// The last value.
    pub(crate) fn last(&self, name: &str) -> Option<f64> {
        self.series.get(name)?.values.back().copied()
    }

    /// Up to `most` last values, however few there are.
    pub(crate) fn recent(&self, name: &str, most: usize) -> impl Iterator<Item = f64> {
        let values = self.series.get(name).map(|series| &series.values);
        values.into_iter().flat_map(move |values| values.iter().rev().take(most).copied())
    }

    /// Mean of the run's first values, once they are there.
    pub(crate) fn early(&self, name: &str) -> Option<f64> {
        let early = &self.series.get(name)?.early;
        (early.len() == EARLY).then(|| mean(early))
    }
}

/// The arithmetic mean; NaN of nothing.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The population variance; NaN of nothing.
pub(crate) fn variance(values: &[f64]) -> f64 {
    let centre = mean(values);
    values.iter().map(|value| (value - centre).powi(2)).sum::<f64>() / values.len() as f64
}

/// The median of the finite values, if they are more than half.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    if 2 * finite.len() <= values.len() {
        return None;
    }
    finite.sort_by(f64::total_cmp);
    let middle = finite.len() / 2;
    Some(if finite.len() % 2 == 1 { finite[middle] } else { 0.5 * (finite[middle - 1] + finite[middle]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_what_is_not_finite_unless_it_is_half_of_the_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[1.0, f64::NAN, 3.0]), Some(2.0));
        assert_eq!(median(&[1.0, f64::INFINITY]), None);
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn a_window_is_full_only_after_the_grace() {
        let mut history = History::default();
        for value in 0..6 {
            assert_eq!(history.window("a", 4, 2), None);
            history.push("a", f64::from(value));
        }
        assert_eq!(history.window("a", 4, 2), Some(vec![2.0, 3.0, 4.0, 5.0]));
    }

    #[test]
    fn an_emptied_window_keeps_the_baseline() {
        let mut history = History::default();
        (0..200).for_each(|value| history.push("a", f64::from(value)));
        assert_eq!(history.window("a", CAPACITY, 0).unwrap()[0], 100.0);
        history.empty_windows(|name| name == "a");
        assert_eq!(
            (history.window("a", 1, 0), history.last("a"), history.early("a")),
            (None, None, Some(2.0))
        );
        history.push("a", 7.0);
        assert_eq!(history.recent("a", 9).collect::<Vec<_>>(), [7.0]);
    }
}
