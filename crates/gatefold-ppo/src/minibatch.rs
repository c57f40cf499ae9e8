//! How an epoch is cut into minibatches: single rows, or whole stretches of time.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use gatefold_env::{EnvSpec, ObservationBatch, StreamRng};
use gatefold_ops::{PpoBatch, PpoRows};
use gatefold_policy::Observation;
use ndarray::Array2;
use rand::seq::SliceRandom;

use crate::losses::{SegmentRow, adjacent_pairs, adjacent_triples};
use crate::{Batch, PpoConfig};

/// Consecutive steps of one environment that stay together where a loss looks at several of them.
const SEGMENT: usize = 16;

/// The order of a rollout's rows, shuffled anew each epoch.
pub(crate) enum Order {
    /// Each row by itself.
    Rows(Vec<usize>),
    /// Whole segments, each the rows of consecutive steps of one environment; the last of an
    /// environment may be shorter.
    Segments(Vec<Vec<usize>>),
}

/// Rows of one minibatch, and which of them follow each other in one episode.
pub(crate) struct Minibatch {
    pub(crate) at: Place,
    /// Places in the minibatch of adjacent steps; empty without segments.
    pub(crate) pairs: [Vec<usize>; 2],
    pub(crate) triples: [Vec<usize>; 3],
    normal: Normal,
    /// Its data, if they are wanted in its order.
    pub(crate) gathered: Option<Gathered>,
}

/// Where an update is.
#[derive(Default)]
pub(crate) struct Place {
    pub(crate) epoch: usize,
    pub(crate) minibatch: usize,
    /// In the rollout's flat buffers, in the order in which they are evaluated.
    pub(crate) rows: Vec<usize>,
}

impl Minibatch {
    /// Its rows as the PPO loss wants to know them.
    pub(crate) fn ppo_rows(&self) -> PpoRows<'_> {
        let Normal { mean, deviation } = self.normal;
        PpoRows { rows: &self.at.rows, mean, deviation }
    }

    /// A copy of what a batch holds of its rows.
    pub(crate) fn gather(&self, batch: &Batch) -> Gathered {
        Gathered::new(batch, &self.at.rows, self.normal)
    }
}

impl Order {
    pub(crate) fn new(batch: &Batch, segmented: bool) -> Self {
        let (steps, envs) = (batch.rollout.num_steps(), batch.rollout.num_envs());
        if !segmented {
            return Self::Rows((0..steps * envs).collect());
        }
        let starts = (0..steps).step_by(SEGMENT);
        let segments = starts.flat_map(|start| {
            let end = (start + SEGMENT).min(steps);
            (0..envs).map(move |env| (start..end).map(|t| t * envs + env).collect())
        });
        Self::Segments(segments.collect())
    }

    fn shuffle(&mut self, rng: &mut StreamRng) {
        match self {
            Self::Rows(rows) => rows.shuffle(rng),
            Self::Segments(segments) => segments.shuffle(rng),
        }
    }

    /// Rows or segments.
    fn len(&self) -> usize {
        match self {
            Self::Rows(rows) => rows.len(),
            Self::Segments(segments) => segments.len(),
        }
    }

    /// Into how many minibatches of at most `size` rows it is cut.
    fn pieces(&self, size: usize) -> usize {
        match self {
            Self::Rows(rows) => rows.len().div_ceil(size),
            Self::Segments(segments) => segments.len().div_ceil((size / SEGMENT).max(1)),
        }
    }

    /// The rows of one of so many minibatches, whose sizes differ by at most one row, or segment, and of these rows
    /// adjacent pairs and triples.
    fn piece(
        &self,
        number: usize,
        pieces: usize,
        batch: &Batch,
    ) -> (Vec<usize>, [Vec<usize>; 2], [Vec<usize>; 3]) {
        match self {
            Self::Rows(rows) => {
                (even_piece(rows, number, pieces).to_vec(), Default::default(), Default::default())
            }
            Self::Segments(segments) => {
                let segments = even_piece(segments, number, pieces);
                let ends = batch.rollout.ends.as_slice().expect("standard layout");
                let places = segments.iter().enumerate().flat_map(|(segment, rows)| {
                    rows.iter().map(move |&row| SegmentRow { segment, ends_episode: ends[row].is_some() })
                });
                let places: Vec<_> = places.collect();
                (segments.concat(), adjacent_pairs(&places), adjacent_triples(&places))
            }
        }
    }
}

/// One of so many pieces whose lengths differ by at most one.
fn even_piece<T>(order: &[T], number: usize, pieces: usize) -> &[T] {
    &order[number * order.len() / pieces..(number + 1) * order.len() / pieces]
}

/// The minibatches of all epochs; an epoch's order is shuffled when its first one is asked for.
pub(crate) struct Epochs<'a> {
    order: Order,
    batch: &'a Batch,
    ppo: &'a PpoConfig,
    rng: &'a mut StreamRng,
    gathers: bool,
    /// Of the minibatch that comes next.
    epoch: usize,
    number: usize,
}

impl<'a> Epochs<'a> {
    /// `gathers` is whether minibatches come with their data.
    pub(crate) fn new(
        order: Order,
        batch: &'a Batch,
        ppo: &'a PpoConfig,
        rng: &'a mut StreamRng,
        gathers: bool,
    ) -> Self {
        Self { order, batch, ppo, rng, gathers, epoch: 0, number: 0 }
    }

    /// What the next one costs, if there is one, in floating-point operations that take as long.
    pub(crate) fn cost(&self) -> usize {
        /// Of a number that is copied from anywhere.
        const NUMBER: usize = 64;
        if self.epoch == self.ppo.epochs {
            return 0;
        }
        let Batch { rollout, .. } = self.batch;
        let (rows, seen) = (rollout.actions.len(), &rollout.observations);
        let seen = seen.features.len() + seen.activations.len() + seen.node_features.len();
        let all = rows + if self.gathers { seen + 5 * rows + rollout.drawn.len() } else { 0 };
        let shuffled = if self.number == 0 { self.order.len() } else { 0 };
        NUMBER * (shuffled + all / self.order.pieces(self.ppo.minibatch))
    }
}

impl Iterator for Epochs<'_> {
    type Item = Minibatch;

    fn next(&mut self) -> Option<Minibatch> {
        if self.epoch == self.ppo.epochs {
            return None;
        }
        if self.number == 0 {
            self.order.shuffle(self.rng);
        }
        let pieces = self.order.pieces(self.ppo.minibatch);
        let (rows, pairs, triples) = self.order.piece(self.number, pieces, self.batch);
        let advantages = self.batch.advantages.as_slice().expect("rollout arrays are in standard layout");
        let normal = match self.ppo.normalize_advantages {
            true => Normal::of(rows.iter().map(|&row| advantages[row])),
            false => Normal::NONE,
        };
        let at = Place { epoch: self.epoch, minibatch: self.number, rows };
        let mut minibatch = Minibatch { at, pairs, triples, normal, gathered: None };
        minibatch.gathered = self.gathers.then(|| minibatch.gather(self.batch));
        self.number += 1;
        if self.number == pieces {
            (self.epoch, self.number) = (self.epoch + 1, 0);
        }
        Some(minibatch)
    }
}

/// What a batch holds of some rows.
pub(crate) struct Gathered {
    seen: ObservationBatch,
    actions: Vec<i32>,
    old_log_probs: Vec<f32>,
    advantages: Vec<f32>,
    returns: Vec<f32>,
    old_values: Vec<f32>,
    drawn: Vec<f32>,
}

impl Gathered {
    /// All that a batch holds, in its order, the advantages as they are.
    pub(crate) fn all(batch: &Batch) -> Self {
        let rows: Vec<usize> = (0..batch.rollout.actions.len()).collect();
        Self::new(batch, &rows, Normal::NONE)
    }

    fn new(batch: &Batch, rows: &[usize], normal: Normal) -> Self {
        fn of<T: Copy>(all: &Array2<T>, rows: &[usize]) -> Vec<T> {
            let all = all.as_slice().expect("rollout arrays are in standard layout");
            rows.iter().map(|&row| all[row]).collect()
        }
        let rollout = &batch.rollout;
        let mut advantages = of(&batch.advantages, rows);
        advantages.iter_mut().for_each(|a| *a = normal.apply(*a));
        let drawn = match rollout.drawn.len() / rollout.actions.len() {
            0 => Vec::new(),
            width => rows.iter().flat_map(|row| &rollout.drawn[row * width..][..width]).copied().collect(),
        };
        Self {
            seen: rollout.observations.pick(rows.iter().copied()),
            actions: of(&rollout.actions, rows),
            old_log_probs: of(&rollout.log_probs, rows),
            advantages,
            returns: of(&batch.returns, rows),
            old_values: of(&rollout.values, rows),
            drawn,
        }
    }

    /// As tensors: what the policy sees, what was drawn for its routing, and the data of the PPO loss.
    pub(crate) fn tensors<B: Backend>(
        self,
        spec: &EnvSpec,
        device: &B::Device,
    ) -> (Observation<B>, Option<Tensor<B, 2>>, PpoBatch<B>) {
        let rows = self.actions.len();
        let tensor = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, [rows]), device);
        let observation = Observation::new(spec, self.seen, device);
        let drawn = (!self.drawn.is_empty()).then(|| {
            let width = self.drawn.len() / rows;
            Tensor::from_data(TensorData::new(self.drawn, [rows, width]), device)
        });
        let data = PpoBatch {
            actions: Tensor::<B, 1, Int>::from_data(TensorData::new(self.actions, [rows]), device),
            mask: observation.mask.clone(),
            old_log_probs: tensor(self.old_log_probs),
            advantages: tensor(self.advantages),
            returns: tensor(self.returns),
            old_values: tensor(self.old_values),
        };
        (observation, drawn, data)
    }
}

/// What normalises the advantages of a minibatch: `(a - mean) / (std + 1e-8)` with the unbiased standard deviation, as
/// CleanRL and SB3 do; a minibatch of one row becomes 0.
#[derive(Debug, Clone, Copy)]
struct Normal {
    mean: f64,
    deviation: f64,
}

impl Normal {
    /// Leaves them as they are.
    const NONE: Self = Self { mean: 0.0, deviation: 1.0 };

    fn of(advantages: impl ExactSizeIterator<Item = f32> + Clone) -> Self {
        let count = advantages.len() as f64;
        let mean = advantages.clone().map(f64::from).sum::<f64>() / count;
        let squares: f64 = advantages.map(|a| (f64::from(a) - mean).powi(2)).sum();
        Self { mean, deviation: (squares / (count - 1.0).max(1.0)).sqrt() + 1e-8 }
    }

    fn apply(self, advantage: f32) -> f32 {
        ((f64::from(advantage) - self.mean) / self.deviation) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rollout;
    use gatefold_env::{EpisodeEnd, Purpose, stream};

    #[test]
    fn minibatch_sizes_differ_by_at_most_one_and_cover_every_row() {
        for (rows, size) in [(2048, 64), (100, 32), (7, 2), (5, 5), (6, 4)] {
            let order: Vec<usize> = (0..rows).collect();
            let count = Order::Rows(order.clone()).pieces(size);
            let lengths: Vec<usize> =
                (0..count).map(|number| even_piece(&order, number, count).len()).collect();
            let (least, most) = (lengths.iter().min().unwrap(), lengths.iter().max().unwrap());
            assert!(most - least <= 1 && *most <= size, "{rows} by {size}: {lengths:?}");
            assert_eq!(lengths.iter().sum::<usize>(), rows);
        }
    }

    #[test]
    fn normalised_advantages_have_mean_0_and_unbiased_deviation_1() {
        let normalized = |all: &[f32]| {
            let normal = Normal::of(all.iter().copied());
            all.iter().map(|&a| normal.apply(a)).collect::<Vec<_>>()
        };
        assert_eq!(normalized(&[1.0, 2.0, 3.0]), [-1.0, 0.0, 1.0]);
        assert_eq!(normalized(&[3.0]), [0.0]);
        assert_eq!(
            [0.1, -0.0, f32::MAX].map(|a| Normal::NONE.apply(a).to_bits()),
            [0.1, -0.0, f32::MAX].map(f32::to_bits)
        );
    }

    #[test]
    fn segments_are_whole_shuffled_and_linked_only_within_an_episode() {
        let (steps, envs) = (36, 3);
        let mut rollout = Rollout::new(&EnvSpec::new(1, 2), steps, envs);
        rollout.ends[(5, 1)] = Some(EpisodeEnd::Terminated);
        let zeros = Array2::zeros((steps, envs));
        let batch = Batch { rollout, advantages: zeros.clone(), returns: zeros };
        let ppo = PpoConfig { epochs: 1, minibatch: 32, ..PpoConfig::default() };
        let mut rng = stream(1, Purpose::Shuffle, 0);
        let epochs = Epochs::new(Order::new(&batch, true), &batch, &ppo, &mut rng, false);
        let minibatches: Vec<Minibatch> = epochs.collect();

        let mut rows: Vec<usize> = minibatches.iter().flat_map(|m| m.at.rows.clone()).collect();
        assert_ne!(rows[..envs], [0, envs, 2 * envs], "shuffled");
        rows.sort_unstable();
        assert_eq!(rows, (0..steps * envs).collect::<Vec<_>>());

        let mut linked = 0;
        for minibatch in &minibatches {
            assert!(minibatch.at.rows.len() <= 32);
            let [first, second] = &minibatch.pairs;
            for (&i, &j) in first.iter().zip(second) {
                let (a, b) = (minibatch.at.rows[i], minibatch.at.rows[j]);
                assert_eq!(b, a + envs, "the next step of the same environment");
                assert_eq!(a / envs / SEGMENT, b / envs / SEGMENT, "of the same segment");
                assert_ne!(a, 5 * envs + 1, "a pair crosses an episode's end");
                linked += 1;
            }
        }
        // Segments of 16, 16 and 4 steps hold 15 + 15 + 3 pairs; one crosses an end.
        assert_eq!(linked, envs * 33 - 1);
    }
}
