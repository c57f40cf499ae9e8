//! What the tests of this folder share: tensors from lists, and a loss with its gradient.

use burn::backend::{Autodiff, Flex};
use burn::tensor::{Tensor, TensorData, backend::Backend};

pub(super) type Train = Autodiff<Flex>;

pub(super) fn tensor<B: Backend, const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<B, D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &Default::default())
}

/// The value of a loss at `values`, and its gradient there: zeros where the loss does not read them.
pub(super) fn probe<const D: usize>(
    values: &[f32],
    shape: [usize; D],
    loss: impl Fn(Tensor<Train, D>) -> Tensor<Train, 1>,
) -> (f32, Vec<f32>) {
    let leaf = tensor::<Train, D>(values, shape).require_grad();
    let loss = loss(leaf.clone());
    // The second term gives a loss that reads nothing a graph to go back through.
    let grads = (loss.clone() + leaf.clone().sum() * 0.0).backward();
    let grad = leaf.grad(&grads).expect("the leaf is in the graph");
    (loss.into_scalar(), grad.into_data().to_vec().expect("f32"))
}

#[track_caller]
pub(super) fn assert_close(got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    for (g, e) in got.iter().zip(expected) {
        assert!((g - e).abs() <= 1e-6 * e.abs().max(1.0), "{got:?}, expected {expected:?}");
    }
}
