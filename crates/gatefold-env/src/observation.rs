//! Where observations are written: one row, or a whole batch, of somebody else's buffer.

use crate::EnvSpec;

/// One observation's places in the batch buffers.
#[derive(Debug)]
pub struct ObservationView<'a> {
    /// The observation vector, `num_features` long.
    pub features: &'a mut [f32],
    /// Node activations in [0, 1], one per graph node; empty without a graph.
    pub activations: &'a mut [f32],
    /// Features of the graph's nodes, node by node, `node_features` each; empty without any.
    pub node_features: &'a mut [f32],
    /// Allowed actions, one per action; all true on entry.
    pub mask: &'a mut [bool],
}

// N rows, F features, V graph nodes, G features of a node, A actions

/// Lengths of one row in each buffer: features, activations, node features, mask.
type Widths = [usize; 4];

/// An owned batch of observations, row-major: `[N, F]`, `[N, V]`, `[N, V, G]`, `[N, A]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ObservationBatch {
    /// Observation vectors `[N, F]`.
    pub features: Vec<f32>,
    /// Node activations `[N, V]`.
    pub activations: Vec<f32>,
    /// Features of the graph's nodes `[N, V, G]`.
    pub node_features: Vec<f32>,
    /// Allowed actions `[N, A]`.
    pub mask: Vec<bool>,
    rows: usize,
    widths: Widths,
}

impl ObservationBatch {
    /// `rows` zeroed observations of `spec`, everything allowed.
    pub fn new(spec: &EnvSpec, rows: usize) -> Self {
        let nodes = spec.num_nodes();
        let widths = [spec.num_features, nodes, nodes * spec.node_features, spec.num_actions()];
        Self {
            features: vec![0.0; rows * widths[0]],
            activations: vec![0.0; rows * widths[1]],
            node_features: vec![0.0; rows * widths[2]],
            mask: vec![true; rows * widths[3]],
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
        let [features, activations, node_features, mask] =
            self.widths.map(|width| start * width..(start + count) * width);
        ObservationBatchMut {
            features: &mut self.features[features],
            activations: &mut self.activations[activations],
            node_features: &mut self.node_features[node_features],
            mask: &mut self.mask[mask],
            rows: count,
            widths: self.widths,
        }
    }

    /// A copy of the rows of these indices, in this order; an index may repeat.
    pub fn pick(&self, rows: impl ExactSizeIterator<Item = usize> + Clone) -> Self {
        /// Rows of a width that is known, each copied by a few instructions.
        fn narrow<T: Copy, const W: usize>(all: &[T], rows: impl Iterator<Item = usize>) -> Vec<T> {
            let (all, _) = all.as_chunks::<W>();
            rows.map(|row| all[row]).collect::<Vec<_>>().into_flattened()
        }
        fn of<T: Copy>(all: &[T], width: usize, rows: impl ExactSizeIterator<Item = usize>) -> Vec<T> {
            match width {
                0 => Vec::new(),
                1 => narrow::<T, 1>(all, rows),
                2 => narrow::<T, 2>(all, rows),
                3 => narrow::<T, 3>(all, rows),
                4 => narrow::<T, 4>(all, rows),
                6 => narrow::<T, 6>(all, rows),
                8 => narrow::<T, 8>(all, rows),
                _ => {
                    let mut picked = Vec::with_capacity(rows.len() * width);
                    rows.for_each(|row| picked.extend_from_slice(&all[row * width..(row + 1) * width]));
                    picked
                }
            }
        }
        let [f, v, g, a] = self.widths;
        Self {
            features: of(&self.features, f, rows.clone()),
            activations: of(&self.activations, v, rows.clone()),
            node_features: of(&self.node_features, g, rows.clone()),
            mask: of(&self.mask, a, rows.clone()),
            rows: rows.len(),
            widths: self.widths,
        }
    }

    /// Adds the rows of `other` after its own; an empty batch takes on the other's sizes.
    ///
    /// Panics if both have rows of different sizes.
    pub fn append(&mut self, other: Self) {
        if self.rows == 0 {
            *self = other;
            return;
        }
        assert_eq!(self.widths, other.widths, "observations of one spec");
        self.features.extend(other.features);
        self.activations.extend(other.activations);
        self.node_features.extend(other.node_features);
        self.mask.extend(other.mask);
        self.rows += other.rows;
    }
}

/// A borrowed batch of observations to be written, row-major.
#[derive(Debug)]
pub struct ObservationBatchMut<'a> {
    /// Observation vectors `[N, F]`.
    pub features: &'a mut [f32],
    /// Node activations `[N, V]`.
    pub activations: &'a mut [f32],
    /// Features of the graph's nodes `[N, V, G]`.
    pub node_features: &'a mut [f32],
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

    /// A copy of the rows.
    pub fn copied(&self) -> ObservationBatch {
        ObservationBatch {
            features: self.features.to_vec(),
            activations: self.activations.to_vec(),
            node_features: self.node_features.to_vec(),
            mask: self.mask.to_vec(),
            rows: self.rows,
            widths: self.widths,
        }
    }

    /// The same rows, borrowed for a shorter time.
    pub fn reborrow(&mut self) -> ObservationBatchMut<'_> {
        ObservationBatchMut {
            features: self.features,
            activations: self.activations,
            node_features: self.node_features,
            mask: self.mask,
            rows: self.rows,
            widths: self.widths,
        }
    }

    /// Splits after `count` rows.
    pub fn split_at(self, count: usize) -> (Self, Self) {
        let widths = self.widths;
        let [f, v, g, a] = widths.map(|width| count * width);
        let (f0, f1) = self.features.split_at_mut(f);
        let (v0, v1) = self.activations.split_at_mut(v);
        let (g0, g1) = self.node_features.split_at_mut(g);
        let (a0, a1) = self.mask.split_at_mut(a);
        (
            Self { features: f0, activations: v0, node_features: g0, mask: a0, rows: count, widths },
            Self {
                features: f1,
                activations: v1,
                node_features: g1,
                mask: a1,
                rows: self.rows - count,
                widths,
            },
        )
    }

    /// Row `index`, with its mask set to all true.
    pub fn row(&mut self, index: usize) -> ObservationView<'_> {
        let [f, v, g, a] = self.widths.map(|width| index * width..(index + 1) * width);
        let mask = &mut self.mask[a];
        mask.fill(true);
        ObservationView {
            features: &mut self.features[f],
            activations: &mut self.activations[v],
            node_features: &mut self.node_features[g],
            mask,
        }
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

        assert_eq!(batch.rows_mut(1, 2).copied(), batch.pick(1..3));
        let picked = batch.pick([3, 0].into_iter());
        assert_eq!((picked.rows(), picked.features), (2, vec![7.0, 7.0, 0.0, 0.0]));
        let mut joined = ObservationBatch::default();
        joined.append(batch.pick(2..4));
        joined.append(batch.pick(0..1));
        assert_eq!(joined, batch.pick([2, 3, 0].into_iter()));
    }
}
