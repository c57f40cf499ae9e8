//! Means over the minibatches of an update, weighted by how many samples each had.

use std::borrow::Cow;

use crate::Metrics;

/// Count-weighted means by name: minibatches whose sizes differ by one still give the mean per sample.
///
/// A NaN in any value makes its mean NaN.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MeanAccumulator {
    sums: Vec<Sum>,
}

#[derive(Debug, Clone, PartialEq)]
struct Sum {
    name: Cow<'static, str>,
    total: f64,
    count: u64,
}

impl MeanAccumulator {
    /// No values yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the mean `value` of `count` samples.
    ///
    /// Panics if `count` is 0, since a mean of nothing is no value.
    pub fn add(&mut self, name: impl Into<Cow<'static, str>>, value: f64, count: u64) {
        let name = name.into();
        assert!(count > 0, "{name}: a mean over no samples");
        let weighted = value * count as f64;
        match self.sums.iter_mut().find(|sum| sum.name == name) {
            Some(sum) => {
                sum.total += weighted;
                sum.count += count;
            }
            None => self.sums.push(Sum { name, total: weighted, count }),
        }
    }

    /// The mean of a name so far, if anything was added to it.
    pub fn mean(&self, name: &str) -> Option<f64> {
        self.sums.iter().find(|sum| sum.name == name).map(Sum::mean)
    }

    /// All means, in the order in which their names were first added.
    pub fn metrics(&self) -> Metrics {
        let mut metrics = Metrics::new();
        for sum in &self.sums {
            metrics.set(sum.name.clone(), sum.mean());
        }
        metrics
    }
}

impl Sum {
    fn mean(&self) -> f64 {
        self.total / self.count as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_weigh_each_minibatch_by_its_samples() {
        let mut means = MeanAccumulator::new();
        means.add("loss", 1.0, 3);
        means.add("entropy", 5.0, 3);
        means.add("loss", 2.0, 1);
        assert_eq!(means.mean("loss"), Some(1.25));
        assert_eq!(means.mean("kl"), None);
        assert_eq!(means.metrics().iter().collect::<Vec<_>>(), [("loss", 1.25), ("entropy", 5.0)]);
    }

    #[test]
    fn a_nan_is_not_averaged_away() {
        let mut means = MeanAccumulator::new();
        means.add("loss", f64::NAN, 1);
        means.add("loss", 1.0, 1000);
        assert!(means.mean("loss").unwrap().is_nan());
    }

    #[test]
    #[should_panic(expected = "loss: a mean over no samples")]
    fn a_mean_over_no_samples_is_our_mistake() {
        MeanAccumulator::new().add("loss", 1.0, 0);
    }
}
