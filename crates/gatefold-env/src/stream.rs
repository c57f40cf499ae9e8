//! Random streams: every draw of a run comes from one of these, keyed by seed, purpose and index.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// The generator behind every draw; serialisable, so a run can be resumed mid-stream.
pub type StreamRng = ChaCha8Rng;

/// What a stream is for. Streams of different purposes never overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// One environment's dynamics; indexed by environment.
    Environment = 1,
    /// Initial weights.
    Initialisation = 2,
    /// Actions of a rollout; indexed by iteration.
    Actions = 3,
    /// Minibatch shuffles; indexed by iteration.
    Shuffle = 4,
    /// Actions during evaluation; indexed by evaluation.
    Evaluation = 5,
    /// Actions of the conformance check; indexed by round.
    Conformance = 6,
    /// What dropouts drop in an update, minibatch after minibatch; indexed by iteration.
    Dropout = 7,
}

/// The stream of `seed` for `purpose` and `index`.
///
/// ChaCha8 with the seed as key and (purpose, index) as stream number, so any stream can be had
/// without drawing from another. `index` must be below 2^56.
pub fn stream(seed: u64, purpose: Purpose, index: u64) -> StreamRng {
    assert!(index < 1 << 56, "stream index {index} does not fit 56 bits");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream((purpose as u64) << 56 | index);
    rng
}

/// The stream of the same seed and index as `rng`'s for another purpose, from its start.
pub fn sibling(rng: &StreamRng, purpose: Purpose) -> StreamRng {
    let mut sibling = rng.clone();
    sibling.set_stream((purpose as u64) << 56 | (rng.get_stream() & ((1 << 56) - 1)));
    sibling.set_word_pos(0);
    sibling
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    #[test]
    fn a_sibling_is_the_stream_of_its_own_purpose_however_far_the_other_has_gone() {
        let mut rng = stream(3, Purpose::Shuffle, 9);
        for _ in 0..5 {
            assert_eq!(sibling(&rng, Purpose::Dropout), stream(3, Purpose::Dropout, 9));
            rng.random::<u32>();
        }
    }

    #[test]
    fn streams_repeat_by_key_and_differ_between_keys() {
        let draw = |seed, purpose, index| stream(seed, purpose, index).random::<u64>();
        assert_eq!(draw(1, Purpose::Actions, 2), draw(1, Purpose::Actions, 2));
        let others = [(2, Purpose::Actions, 2), (1, Purpose::Shuffle, 2), (1, Purpose::Actions, 3)];
        for (seed, purpose, index) in others {
            assert_ne!(draw(1, Purpose::Actions, 2), draw(seed, purpose, index));
        }
    }
}
