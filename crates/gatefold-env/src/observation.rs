//! Where observations are written: one row, or a whole batch, of somebody else's buffer.

use crate::EnvSpec;

/// One observation's places in the batch buffers.
#[derive(Debug)]
pub struct ObservationView<'a> {
    /// The observation vector, `num_features` long.
    pub features: &'a mut [f32],
    /// Node activations in [0, 1], one per graph node; empty without a graph.
    pub activations: &'a mut [f32],
    /// Allowed actions, one per action; all true on entry.
    pub mask: &'a mut [bool],
}

/// An owned batch of observations, row-major: `[N, F]`, `[N, V]`, `[N, A]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ObservationBatch {
    /// Observation vectors `[N, F]`.
    pub features: Vec<f32>,
    /// Node activations `[N, V]`.
    pub activations: Vec<f32>,
    /// Allowed actions `[N, A]`.
    pub mask: Vec<bool>,
    rows: usize,
}

impl ObservationBatch {
    /// `rows` zeroed observations of `spec`, everything allowed.
    pub fn new(spec: &EnvSpec, rows: usize) -> Self {
        Self {
            features: vec![0.0; rows * spec.num_features],
            activations: vec![0.0; rows * spec.num_nodes()],
            mask: vec![true; rows * spec.num_actions()],
            rows,
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// All rows for writing.
    pub fn as_mut(&mut self) -> ObservationBatchMut<'_> {
        self.rows_mut(0, self.rows)
    }

    /// Rows `start..start + count` for writing.
    pub fn rows_mut(&mut self, start: usize, count: usize) -> ObservationBatchMut<'_> {
        assert!(start + count <= self.rows, "rows {start}..{} of {}", start + count, self.rows);
        fn part<T>(all: &mut [T], rows: usize, start: usize, count: usize) -> &mut [T] {
            let width = all.len() / rows.max(1);
            &mut all[start * width..(start + count) * width]
        }
        ObservationBatchMut {
            features: part(&mut self.features, self.rows, start, count),
            activations: part(&mut self.activations, self.rows, start, count),
            mask: part(&mut self.mask, self.rows, start, count),
            rows: count,
        }
    }
}

/// A borrowed batch of observations to be written, row-major.
#[derive(Debug)]
pub struct ObservationBatchMut<'a> {
    /// Observation vectors `[N, F]`.
    pub features: &'a mut [f32],
    /// Node activations `[N, V]`.
    pub activations: &'a mut [f32],
    /// Allowed actions `[N, A]`.
    pub mask: &'a mut [bool],
    rows: usize,
}

impl<'a> ObservationBatchMut<'a> {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The same rows, borrowed for a shorter time.
    pub fn reborrow(&mut self) -> ObservationBatchMut<'_> {
        ObservationBatchMut {
            features: self.features,
            activations: self.activations,
            mask: self.mask,
            rows: self.rows,
        }
    }

    /// Splits after `count` rows.
    pub fn split_at(self, count: usize) -> (Self, Self) {
        fn cut<T>(all: &mut [T], rows: usize, count: usize) -> (&mut [T], &mut [T]) {
            let width = all.len() / rows.max(1);
            all.split_at_mut(count * width)
        }
        let (f0, f1) = cut(self.features, self.rows, count);
        let (a0, a1) = cut(self.activations, self.rows, count);
        let (m0, m1) = cut(self.mask, self.rows, count);
        (
            Self { features: f0, activations: a0, mask: m0, rows: count },
            Self { features: f1, activations: a1, mask: m1, rows: self.rows - count },
        )
    }

    /// Row `index`, with its mask set to all true.
    pub fn row(&mut self, index: usize) -> ObservationView<'_> {
        fn at<T>(all: &mut [T], rows: usize, index: usize) -> &mut [T] {
            let width = all.len() / rows.max(1);
            &mut all[index * width..(index + 1) * width]
        }
        let mask = at(self.mask, self.rows, index);
        mask.fill(true);
        ObservationView {
            features: at(self.features, self.rows, index),
            activations: at(self.activations, self.rows, index),
            mask,
        }
    }
}
