use burn::backend::Flex;
use burn::tensor::Tensor;
use gatefold_ops::{composed, norm_relu};
use proptest::prelude::*;

use crate::support::*;

type Block =
    fn(Tensor<Train, 2>, Tensor<Train, 1>, Tensor<Train, 1>, Option<Tensor<Train, 2>>) -> Tensor<Train, 2>;
type Outcome = (Tensor<Flex, 2>, Tensor<Flex, 2>, Tensor<Flex, 1>, Tensor<Flex, 1>, Option<Tensor<Flex, 2>>);

fn run(block: Block, rows: usize, width: usize, with_residual: bool, seed: u64) -> Outcome {
    let mut n = Numbers::new(seed);
    let (x, gamma, beta) =
        (leaf(&n.tensor([rows, width])), leaf(&n.tensor([width])), leaf(&n.tensor([width])));
    let residual = with_residual.then(|| leaf(&n.tensor([rows, width])));
    let g = data(&n.tensor([rows, width]));
    let y = block(x.clone(), gamma.clone(), beta.clone(), residual.clone());
    let grads = (y.clone() * g).sum().backward();
    let missing = "a gradient for every input";
    (
        y.inner(),
        x.grad(&grads).expect(missing),
        gamma.grad(&grads).expect(missing),
        beta.grad(&grads).expect(missing),
        residual.map(|r| r.grad(&grads).expect(missing)),
    )
}

proptest! {
    #![proptest_config(cases(40))]
    #[test]
    fn the_kernel_equals_the_composition(
        rows in 1usize..40, width in 3usize..80, with_residual: bool, seed: u64,
    ) {
        let fused = run(norm_relu, rows, width, with_residual, seed);
        let plain = run(composed::norm_relu, rows, width, with_residual, seed);
        assert_close("value", &fused.0, &plain.0);
        assert_close("gradient of x", &fused.1, &plain.1);
        assert_close("gradient of gamma", &fused.2, &plain.2);
        assert_close("gradient of beta", &fused.3, &plain.3);
        if let (Some(fused), Some(plain)) = (fused.4, plain.4) {
            assert_close("gradient of the residual", &fused, &plain);
        }
    }
}

#[test]
fn two_columns_are_normalised_to_one_and_minus_one() {
    let x = from_vec(vec![3.0, 1.0], [1, 2]);
    let ones = from_vec(vec![1.0, 1.0], [2]);
    let y = values(&norm_relu(x, ones.clone(), ones * 0.5, None));
    // mean 2, variance 1: +-1 / sqrt(1 + 1e-5), and -1 + 0.5 is cut off.
    assert!((f64::from(y[0]) - (1.0 / 1.000_01f64.sqrt() + 0.5)).abs() < 1e-6);
    assert_eq!(y[1], 0.0);
}

#[test]
fn a_nan_passes() {
    let x = from_vec(vec![f32::NAN, 1.0, 2.0, 0.0, 1.0, 2.0], [2, 3]);
    for block in [norm_relu::<Flex>, composed::norm_relu::<Flex>] {
        let ones = from_vec(vec![1.0; 3], [3]);
        let y = values(&block(x.clone(), ones.clone(), ones, None));
        assert!(y[..3].iter().all(|y| y.is_nan()) && y[3..].iter().all(|y| y.is_finite()));
    }
}

#[test]
fn gradients_do_not_depend_on_the_number_of_threads() {
    let at = |threads| {
        with_threads(threads, || {
            let (y, x, gamma, beta, _) = run(norm_relu, 4000, 64, true, 1);
            (bits(&y), bits(&x), bits(&gamma), bits(&beta))
        })
    };
    assert!(at(1) == at(2));
}
