//! Which rows of a minibatch follow each other in time.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

/// Where one row of a minibatch comes from, for minibatches made of whole segments: runs of
/// consecutive steps of one environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentRow {
    /// The segment, by a number that no other segment of the minibatch has. Rows of a segment stand
    /// together, in time order; segments may stand in any order and differ in length.
    pub segment: usize,
    /// Whether this row's step ended an episode, by termination or truncation: the next row then
    /// belongs to another one.
    pub ends_episode: bool,
}

/// All pairs of rows (t, t + 1) of one segment and one episode: `[first, second]`, of equal length.
pub fn adjacent_pairs(rows: &[SegmentRow]) -> [Vec<usize>; 2] {
    adjacent(rows)
}

/// All triples of rows (t, t + 1, t + 2) of one segment and one episode, as three lists.
pub fn adjacent_triples(rows: &[SegmentRow]) -> [Vec<usize>; 3] {
    adjacent(rows)
}

fn adjacent<const N: usize>(rows: &[SegmentRow]) -> [Vec<usize>; N] {
    let follows = |pair: &[SegmentRow]| pair[0].segment == pair[1].segment && !pair[0].ends_episode;
    let mut found: [Vec<usize>; N] = std::array::from_fn(|_| Vec::with_capacity(rows.len()));
    for (start, window) in rows.windows(N).enumerate() {
        if window.windows(2).all(follows) {
            for (offset, list) in found.iter_mut().enumerate() {
                list.push(start + offset);
            }
        }
    }
    found
}

/// The given rows of `[B, D]`.
pub(super) fn pick<B: Backend>(of: &Tensor<B, 2>, rows: &[usize]) -> Tensor<B, 2> {
    let index: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let index = TensorData::new(index, [rows.len()]);
    of.clone().select(0, Tensor::<B, 1, Int>::from_data(index, &of.device()))
}

#[cfg(test)]
pub(super) fn segment_rows(rows: &[(usize, bool)]) -> Vec<SegmentRow> {
    rows.iter().map(|&(segment, ends_episode)| SegmentRow { segment, ends_episode }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pair_and_no_triple_crosses_a_segment_or_an_episode_end() {
        let (on, end) = (false, true);
        // Segment 7: one episode ends in its middle. Segment 2: ends with its last row. Segment 5: one row.
        let rows = segment_rows(&[
            (7, on),
            (7, on),
            (7, end),
            (7, on),
            (7, on),
            (2, on),
            (2, on),
            (2, end),
            (5, on),
        ]);
        let [first, second] = adjacent_pairs(&rows);
        let pairs: Vec<_> = first.into_iter().zip(second).collect();
        assert_eq!(pairs, [(0, 1), (1, 2), (3, 4), (5, 6), (6, 7)]);
        assert_eq!(adjacent_triples(&rows), [vec![0, 5], vec![1, 6], vec![2, 7]]);
    }

    #[test]
    fn too_few_rows_have_no_neighbours() {
        assert!(adjacent_pairs(&[]).concat().is_empty());
        assert!(adjacent_triples(&segment_rows(&[(0, false), (0, false)])).concat().is_empty());
    }

    #[test]
    fn a_segment_of_16_steps_has_15_pairs_and_14_triples() {
        let rows = segment_rows(&[(0, false); 16]);
        assert_eq!(adjacent_pairs(&rows)[0].len(), 15);
        assert_eq!(adjacent_triples(&rows)[0].len(), 14);
    }
}
