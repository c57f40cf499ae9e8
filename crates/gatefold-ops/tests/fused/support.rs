//! Inputs in any memory layout, and comparison.

use burn::backend::{Autodiff, Flex};
use burn::tensor::{Tensor, TensorData};
use proptest::test_runner::{Config as ProptestConfig, RngSeed};

/// How many cases a property is tried on; always the same ones, because a gradient that jumps (ReLU,
/// clipping, support) may honestly differ for an input that falls onto its jump.
pub(crate) fn cases(count: u32) -> ProptestConfig {
    ProptestConfig {
        cases: count,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(20),
        ..Default::default()
    }
}

/// The backend that trains on the CPU.
pub(crate) type Train = Autodiff<Flex>;

/// A stream of numbers in [-1, 1), enough for inputs of tests.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((self.next() + 1.0) * 0.5 * n as f32) as usize % n
    }

    pub(crate) fn vec(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.next()).collect()
    }

    /// A tensor whose memory layout is drawn too: contiguous, a transposed view or a slice.
    pub(crate) fn tensor<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<Flex, D> {
        let values = self.vec(shape.iter().product());
        let plain = from_vec(values, shape);
        match self.below(3) {
            1 if D > 1 => {
                let turned = plain.swap_dims(0, D - 1);
                Tensor::<Flex, D>::from_data(turned.into_data(), &Default::default()).swap_dims(0, D - 1)
            }
            2 => {
                let border = Tensor::<Flex, D>::full(plain.dims(), 1e30, &Default::default());
                let rows = shape[0];
                Tensor::cat(vec![border.clone(), plain, border], 0).narrow(0, rows, rows)
            }
            _ => plain,
        }
    }
}

pub(crate) fn from_vec<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<Flex, D> {
    Tensor::from_data(TensorData::new(values, shape), &Default::default())
}

/// The tensor as a leaf that wants a gradient.
pub(crate) fn leaf<const D: usize>(t: &Tensor<Flex, D>) -> Tensor<Train, D> {
    Tensor::from_inner(t.clone()).require_grad()
}

/// The tensor as data, without gradient.
pub(crate) fn data<const D: usize>(t: &Tensor<Flex, D>) -> Tensor<Train, D> {
    Tensor::from_inner(t.clone())
}

pub(crate) fn values<const D: usize>(t: &Tensor<Flex, D>) -> Vec<f32> {
    t.to_data().to_vec().expect("f32")
}

pub(crate) fn bits<const D: usize>(t: &Tensor<Flex, D>) -> Vec<u32> {
    values(t).into_iter().map(f32::to_bits).collect()
}

/// Equal to 1e-5 of the largest element, or of the terms, which are of order 1 and may cancel.
#[track_caller]
pub(crate) fn assert_close<const D: usize>(what: &str, got: &Tensor<Flex, D>, expected: &Tensor<Flex, D>) {
    assert_within(what, 1e-5, 0.5, got, expected);
}

/// Equal to `tolerance` times the largest element, or times `floor` where that is larger.
#[track_caller]
pub(crate) fn assert_within<const D: usize>(
    what: &str,
    tolerance: f32,
    floor: f32,
    got: &Tensor<Flex, D>,
    expected: &Tensor<Flex, D>,
) {
    assert_eq!(got.dims(), expected.dims(), "{what}: shapes");
    let (got, expected) = (values(got), values(expected));
    let scale = expected.iter().fold(floor, |m, x| m.max(x.abs()));
    for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
        assert!((g - e).abs() <= tolerance * scale, "{what}: element {i} is {g}, expected {e}");
    }
}

/// Runs `f` with the given number of threads for what is inside.
pub(crate) fn with_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool").install(f)
}
