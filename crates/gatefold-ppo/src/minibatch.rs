//! How an epoch is cut into minibatches: single rows, or whole stretches of time.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use gatefold_env::{EnvSpec, ObservationBatch, StreamRng};
use gatefold_ops::PpoBatch;
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
    pub(crate) rows: Vec<usize>,
    /// Places in the minibatch of adjacent steps; empty without segments.
    pub(crate) pairs: [Vec<usize>; 2],
    pub(crate) triples: [Vec<usize>; 3],
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

    /// One of the minibatches of at most `size` rows, whose sizes differ by at most one row, or segment; `None`
    /// behind the last.
    fn minibatch(&self, number: usize, size: usize, batch: &Batch) -> Option<Minibatch> {
        Some(match self {
            Self::Rows(rows) => Minibatch {
                rows: even_piece(rows, size, number)?.to_vec(),
                pairs: Default::default(),
                triples: Default::default(),
            },
            Self::Segments(segments) => {
                let segments = even_piece(segments, (size / SEGMENT).max(1), number)?;
                let ends = batch.rollout.ends.as_slice().expect("standard layout");
                let places = segments.iter().enumerate().flat_map(|(segment, rows)| {
                    rows.iter().map(move |&row| SegmentRow { segment, ends_episode: ends[row].is_some() })
                });
                let places: Vec<_> = places.collect();
                Minibatch {
                    rows: segments.concat(),
                    pairs: adjacent_pairs(&places),
                    triples: adjacent_triples(&places),
                }
            }
        })
    }
}

/// Piece `number` of `ceil(len / size)` whose lengths differ by at most one.
fn even_piece<T>(order: &[T], size: usize, number: usize) -> Option<&[T]> {
    let pieces = order.len().div_ceil(size);
    (number < pieces).then(|| &order[number * order.len() / pieces..(number + 1) * order.len() / pieces])
}

/// The minibatches of all epochs; an epoch's order is shuffled when its first one is asked for.
pub(crate) struct Epochs<'a> {
    order: Order,
    batch: &'a Batch,
    ppo: &'a PpoConfig,
    rng: &'a mut StreamRng,
    /// Of the minibatch that comes next.
    epoch: usize,
    number: usize,
}

impl<'a> Epochs<'a> {
    pub(crate) fn new(order: Order, batch: &'a Batch, ppo: &'a PpoConfig, rng: &'a mut StreamRng) -> Self {
        Self { order, batch, ppo, rng, epoch: 0, number: 0 }
    }
}

impl Iterator for Epochs<'_> {
    /// Its epoch, its number in the epoch, and itself with its data.
    type Item = (usize, usize, Minibatch, Gathered);

    fn next(&mut self) -> Option<Self::Item> {
        while self.epoch < self.ppo.epochs {
            if self.number == 0 {
                self.order.shuffle(self.rng);
            }
            if let Some(minibatch) = self.order.minibatch(self.number, self.ppo.minibatch, self.batch) {
                let gathered = Gathered::new(self.batch, &minibatch.rows, self.ppo);
                self.number += 1;
                return Some((self.epoch, self.number - 1, minibatch, gathered));
            }
            (self.epoch, self.number) = (self.epoch + 1, 0);
        }
        None
    }
}

/// What a batch holds of a minibatch's rows.
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
    pub(crate) fn new(batch: &Batch, rows: &[usize], ppo: &PpoConfig) -> Self {
        fn of<T: Copy>(all: &Array2<T>, rows: &[usize]) -> Vec<T> {
            let all = all.as_slice().expect("rollout arrays are in standard layout");
            rows.iter().map(|&row| all[row]).collect()
        }
        let rollout = &batch.rollout;
        let mut advantages = of(&batch.advantages, rows);
        if ppo.normalize_advantages {
            normalize(&mut advantages);
        }
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

    /// What gathering so many rows costs, in floating-point operations that take as long.
    pub(crate) fn cost(batch: &Batch, rows: usize) -> usize {
        /// Of a number that is copied from anywhere.
        const NUMBER: usize = 64;
        let (rollout, observations) = (&batch.rollout, &batch.rollout.observations);
        let seen =
            observations.features.len() + observations.activations.len() + observations.node_features.len();
        let others = 5 * rollout.actions.len() + rollout.drawn.len();
        NUMBER * rows * (seen + others) / rollout.actions.len()
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

/// `(a - mean) / (std + 1e-8)` with the unbiased standard deviation, as CleanRL and SB3 do; a
/// minibatch of one row becomes 0.
fn normalize(advantages: &mut [f32]) {
    let count = advantages.len() as f64;
    let mean = advantages.iter().map(|&a| f64::from(a)).sum::<f64>() / count;
    let squares: f64 = advantages.iter().map(|&a| (f64::from(a) - mean).powi(2)).sum();
    let deviation = (squares / (count - 1.0).max(1.0)).sqrt() + 1e-8;
    for a in advantages {
        *a = ((f64::from(*a) - mean) / deviation) as f32;
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
            let pieces = (0..).map_while(|number| even_piece(&order, size, number));
            let lengths: Vec<usize> = pieces.map(<[usize]>::len).collect();
            let (least, most) = (lengths.iter().min().unwrap(), lengths.iter().max().unwrap());
            assert!(most - least <= 1 && *most <= size, "{rows} by {size}: {lengths:?}");
            assert_eq!(lengths.iter().sum::<usize>(), rows);
        }
    }

    #[test]
    fn normalised_advantages_have_mean_0_and_unbiased_deviation_1() {
        let mut advantages = [1.0, 2.0, 3.0];
        normalize(&mut advantages);
        assert_eq!(advantages, [-1.0, 0.0, 1.0]);
        let mut alone = [3.0];
        normalize(&mut alone);
        assert_eq!(alone, [0.0]);
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
        let epochs = Epochs::new(Order::new(&batch, true), &batch, &ppo, &mut rng);
        let minibatches: Vec<Minibatch> = epochs.map(|(_, _, minibatch, _)| minibatch).collect();

        let mut rows: Vec<usize> = minibatches.iter().flat_map(|m| m.rows.clone()).collect();
        assert_ne!(rows[..envs], [0, envs, 2 * envs], "shuffled");
        rows.sort_unstable();
        assert_eq!(rows, (0..steps * envs).collect::<Vec<_>>());

        let mut linked = 0;
        for minibatch in &minibatches {
            assert!(minibatch.rows.len() <= 32);
            let [first, second] = &minibatch.pairs;
            for (&i, &j) in first.iter().zip(second) {
                let (a, b) = (minibatch.rows[i], minibatch.rows[j]);
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
