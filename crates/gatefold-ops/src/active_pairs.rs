//! Which (expert, row) pairs of a batch are computed.

use std::sync::Arc;

/// The pairs of expert and row whose gate is not exactly 0, packed: expert by expert, rows ascending.
///
/// Conditional computation runs on tensors `[P, width]` with one row per pair, so that its cost grows
/// with the pairs and not with experts times rows. A clone shares the data.
#[derive(Debug, Clone)]
pub struct ActivePairs(Arc<Pairs>);

#[derive(Debug)]
struct Pairs {
    num_rows: usize,
    num_experts: usize,
    /// The pairs of expert k are `expert_offsets[k]..expert_offsets[k + 1]`.
    expert_offsets: Vec<usize>,
    /// Row of each pair.
    rows: Vec<usize>,
    /// Where each pair's gate stands in `[B, K]`.
    gates: Vec<usize>,
    /// The pairs of row b are `of_row[row_offsets[b]..row_offsets[b + 1]]`, experts ascending.
    row_offsets: Vec<usize>,
    of_row: Vec<usize>,
}

impl ActivePairs {
    /// The pairs of gates `[B, K]`, row-major; a NaN is computed like any gate but 0. Panics unless
    /// the gates are whole rows.
    pub fn from_gates(gates: &[f32], num_experts: usize) -> Self {
        assert!(
            num_experts > 0 && gates.len().is_multiple_of(num_experts),
            "{} gates are not whole rows of {num_experts}",
            gates.len()
        );
        let num_rows = gates.len() / num_experts;
        let mut expert_offsets = vec![0; num_experts + 1];
        let mut active = Vec::with_capacity(gates.len().min(4 * num_rows));
        let mut row_offsets = Vec::with_capacity(num_rows + 1);
        row_offsets.push(0);
        for (row, gates) in gates.chunks_exact(num_experts).enumerate() {
            for (expert, &gate) in gates.iter().enumerate() {
                if gate != 0.0 {
                    active.push((row, expert));
                    expert_offsets[expert + 1] += 1;
                }
            }
            row_offsets.push(active.len());
        }
        for expert in 0..num_experts {
            expert_offsets[expert + 1] += expert_offsets[expert];
        }
        let mut next = expert_offsets.clone();
        let (mut rows, mut at) = (vec![0; active.len()], vec![0; active.len()]);
        let mut of_row = Vec::with_capacity(active.len());
        for (row, expert) in active {
            let pair = next[expert];
            next[expert] += 1;
            rows[pair] = row;
            at[pair] = row * num_experts + expert;
            of_row.push(pair);
        }
        Self(Arc::new(Pairs { num_rows, num_experts, expert_offsets, rows, gates: at, row_offsets, of_row }))
    }

    /// Number of pairs P.
    pub fn len(&self) -> usize {
        self.0.rows.len()
    }

    /// Whether no pair is computed.
    pub fn is_empty(&self) -> bool {
        self.0.rows.is_empty()
    }

    /// Number of rows B.
    pub fn num_rows(&self) -> usize {
        self.0.num_rows
    }

    /// Number of experts K.
    pub fn num_experts(&self) -> usize {
        self.0.num_experts
    }

    /// Row of each pair.
    pub fn rows(&self) -> &[usize] {
        &self.0.rows
    }

    /// Where each pair's gate stands in the gates `[B, K]`: `row * K + expert`.
    pub fn gates(&self) -> &[usize] {
        &self.0.gates
    }

    /// The pairs of one expert.
    pub fn of_expert(&self, expert: usize) -> std::ops::Range<usize> {
        self.0.expert_offsets[expert]..self.0.expert_offsets[expert + 1]
    }

    /// The pairs of one row, experts ascending.
    pub fn of_row(&self, row: usize) -> &[usize] {
        &self.0.of_row[self.0.row_offsets[row]..self.0.row_offsets[row + 1]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_listed_by_expert_and_by_row() {
        let gates = [0.5, 0.0, 0.5, 0.0, 0.0, f32::NAN, 1.0, -0.0, 0.0, 0.0, 0.0, 0.0];
        let pairs = ActivePairs::from_gates(&gates, 3);
        assert_eq!((pairs.num_rows(), pairs.num_experts(), pairs.len()), (4, 3, 4));
        assert_eq!([0, 1, 2].map(|expert| pairs.of_expert(expert)), [0..2, 2..2, 2..4]);
        assert_eq!(pairs.rows(), [0, 2, 0, 1]);
        assert_eq!(pairs.gates(), [0, 6, 2, 5]);
        let of_rows: Vec<&[usize]> = (0..4).map(|row| pairs.of_row(row)).collect();
        assert_eq!(of_rows, [&[0, 2][..], &[3], &[1], &[]]);
        assert!(!pairs.is_empty() && ActivePairs::from_gates(&[], 3).is_empty());
    }

    #[test]
    #[should_panic(expected = "4 gates are not whole rows of 3")]
    fn gates_that_are_not_whole_rows_are_refused() {
        ActivePairs::from_gates(&[1.0; 4], 3);
    }
}
