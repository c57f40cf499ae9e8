//! Running scale of observations.

use serde::{Deserialize, Serialize};

/// Scaled observations are clipped to this magnitude.
const CLIP: f32 = 10.0;

/// Running mean and variance of each feature (Welford, merged batch by batch), in `f64`.
///
/// Taken in at the end of an iteration and constant within it, so that a rollout and its update
/// see the same numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObservationScaling {
    count: f64,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

impl ObservationScaling {
    /// No observations yet: the identity.
    pub fn new(num_features: usize) -> Self {
        Self { count: 0.0, mean: vec![0.0; num_features], squares: vec![0.0; num_features] }
    }

    /// Takes in raw rows `[rows, F]`, row-major.
    pub fn observe(&mut self, rows: &[f32]) {
        let width = self.mean.len();
        for row in rows.chunks_exact(width) {
            self.count += 1.0;
            for (i, &x) in row.iter().enumerate() {
                let x = f64::from(x);
                let delta = x - self.mean[i];
                self.mean[i] += delta / self.count;
                self.squares[i] += delta * (x - self.mean[i]);
            }
        }
    }

    /// Lets an installed probe change the means, at the site `normaliser/observations`.
    #[cfg(feature = "chaos")]
    pub fn probe(&mut self) {
        const SITE: &str = "normaliser/observations";
        if gatefold_ops::probe::wants(SITE) {
            let mut means: Vec<f32> = self.mean.iter().map(|&x| x as f32).collect();
            let width = means.len();
            gatefold_ops::probe::slice(SITE, &mut means, width);
            self.mean = means.into_iter().map(f64::from).collect();
        }
    }

    /// Whether all statistics are numbers.
    pub fn is_finite(&self) -> bool {
        self.mean.iter().chain(&self.squares).all(|x| x.is_finite())
    }

    /// Scales rows `[rows, F]` in place: `clip((x - mean) / sqrt(var + 1e-8), +-10)`.
    pub fn apply(&self, rows: &mut [f32]) {
        if self.count < 2.0 {
            return;
        }
        let width = self.mean.len();
        for row in rows.chunks_exact_mut(width) {
            for (i, x) in row.iter_mut().enumerate() {
                let deviation = (self.squares[i] / self.count + 1e-8).sqrt();
                let scaled = ((f64::from(*x) - self.mean[i]) / deviation) as f32;
                *x = scaled.clamp(-CLIP, CLIP); // keeps NaN
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_out_with_mean_0_and_variance_1() {
        let mut rows: Vec<f32> = (0..100).flat_map(|i| [i as f32, 1e6 + (i % 2) as f32]).collect();
        let mut scaling = ObservationScaling::new(2);
        let (first, second) = rows.split_at(60);
        scaling.observe(first);
        scaling.observe(second);
        scaling.apply(&mut rows);
        for feature in 0..2 {
            let column: Vec<f64> = rows.iter().skip(feature).step_by(2).map(|&x| f64::from(x)).collect();
            let mean = column.iter().sum::<f64>() / 100.0;
            let variance = column.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 100.0;
            assert!(mean.abs() < 1e-4 && (variance - 1.0).abs() < 1e-3, "{mean} {variance}");
        }
    }

    #[test]
    fn before_any_observation_nothing_changes_and_a_nan_is_not_hidden() {
        let mut rows = [3.0, f32::NAN];
        let mut scaling = ObservationScaling::new(1);
        scaling.apply(&mut rows);
        assert_eq!(rows[0], 3.0);
        scaling.observe(&[0.0, 1.0]);
        scaling.apply(&mut rows);
        assert!(rows[1].is_nan());
    }
}
