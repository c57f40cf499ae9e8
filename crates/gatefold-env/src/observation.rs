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

// N rows, F features, V graph nodes, A actions

/// Lengths of one row in each buffer: features, activations, mask.
type Widths = [usize; 3];

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
    widths: Widths,
}

impl ObservationBatch {
    /// `rows` zeroed observations of `spec`, everything allowed.
    pub fn new(spec: &EnvSpec, rows: usize) -> Self {
        let widths = [spec.num_features, spec.num_nodes(), spec.num_actions()];
        Self {
            features: vec![0.0; rows * widths[0]],
            activations: vec![0.0; rows * widths[1]],
            mask: vec![true; rows * widths[2]],
            rows,
            widths,
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
        let [features, activations, mask] = self.widths.map(|width| start * width..(start + count) * width);
        ObservationBatchMut {
            features: &mut self.features[features],
            activations: &mut self.activations[activations],
            mask: &mut self.mask[mask],
            rows: count,
            widths: self.widths,
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
    widths: Widths,
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
            widths: self.widths,
        }
    }

    /// Splits after `count` rows.
    pub fn split_at(self, count: usize) -> (Self, Self) {
        let widths = self.widths;
        let [f, v, a] = widths.map(|width| count * width);
        let (f0, f1) = self.features.split_at_mut(f);
        let (v0, v1) = self.activations.split_at_mut(v);
        let (a0, a1) = self.mask.split_at_mut(a);
        (
            Self { features: f0, activations: v0, mask: a0, rows: count, widths },
            Self { features: f1, activations: v1, mask: a1, rows: self.rows - count, widths },
        )
    }

    /// Row `index`, with its mask set to all true.
    pub fn row(&mut self, index: usize) -> ObservationView<'_> {
        let [f, v, a] = self.widths.map(|width| index * width..(index + 1) * width);
        let mask = &mut self.mask[a];
        mask.fill(true);
        ObservationView { features: &mut self.features[f], activations: &mut self.activations[v], mask }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_splits_of_a_batch_are_the_same_memory() {
        let mut batch = ObservationBatch::new(&EnvSpec::new(2, 3), 4);
        batch.mask.fill(false);
        let (_, mut right) = batch.rows_mut(1, 3).split_at(1);
        right.row(1).features.fill(7.0);
        assert_eq!(batch.features, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 7.0, 7.0]);
        assert_eq!(batch.mask.iter().map(|&m| u8::from(m)).sum::<u8>(), 3);
        assert_eq!(batch.mask[9..], [true; 3]);
    }
}
