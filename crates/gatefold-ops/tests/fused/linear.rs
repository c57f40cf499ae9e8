use burn::backend::Flex;
use burn::tensor::{DType, Tensor};
use gatefold_ops::{Activation, composed, linear};
use proptest::prelude::*;

use crate::support::*;

const ACTIVATIONS: [Activation; 3] = [Activation::Identity, Activation::Tanh, Activation::Relu];

type Layer = fn(Tensor<Train, 2>, Tensor<Train, 2>, Tensor<Train, 1>, Activation) -> Tensor<Train, 2>;

/// Value and gradients of `sum(y * g)`.
fn run(
    layer: Layer,
    (x, w, b, g): (&Tensor<Flex, 2>, &Tensor<Flex, 2>, &Tensor<Flex, 1>, &Tensor<Flex, 2>),
    act: Activation,
) -> (Tensor<Flex, 2>, Tensor<Flex, 2>, Tensor<Flex, 2>, Tensor<Flex, 1>) {
    let (x, w, b) = (leaf(x), leaf(w), leaf(b));
    let y = layer(x.clone(), w.clone(), b.clone(), act);
    let grads = (y.clone() * data(g)).sum().backward();
    let missing = "a gradient for every input";
    (
        y.inner(),
        x.grad(&grads).expect(missing),
        w.grad(&grads).expect(missing),
        b.grad(&grads).expect(missing),
    )
}

fn check(rows: usize, inputs: usize, outputs: usize, act: Activation, seed: u64) {
    let mut n = Numbers::new(seed);
    let (x, w) = (n.tensor([rows, inputs]), n.tensor([inputs, outputs]));
    let (b, g) = (n.tensor([outputs]), n.tensor([rows, outputs]));
    let fused = run(linear, (&x, &w, &b, &g), act);
    let plain = run(composed::linear, (&x, &w, &b, &g), act);
    assert_close("value", &fused.0, &plain.0);
    assert_close("gradient of x", &fused.1, &plain.1);
    assert_close("gradient of the weight", &fused.2, &plain.2);
    assert_close("gradient of the bias", &fused.3, &plain.3);
    // The inner backend computes the same bits as the tracked one.
    assert_eq!(bits(&linear(x, w, b, act)), bits(&fused.0));
}

proptest! {
    #![proptest_config(cases(48))]
    #[test]
    fn the_kernel_equals_the_composition(
        rows in 1usize..70, inputs in 1usize..40, outputs in 1usize..40, act in 0usize..3, seed: u64,
    ) {
        check(rows, inputs, outputs, ACTIVATIONS[act], seed);
    }
}

#[test]
fn more_rows_than_a_chunk_give_the_composition_too() {
    check(600, 9, 21, Activation::Tanh, 1);
}

#[test]
fn a_row_has_the_same_bits_wherever_it_stands() {
    let mut n = Numbers::new(5);
    let (w, b) = (n.tensor([37, 50]), n.tensor([50]));
    let x = n.tensor([301, 37]);
    let whole = linear(x.clone(), w.clone(), b.clone(), Activation::Tanh);
    for (first, count) in [(0, 1), (7, 1), (5, 2), (11, 3), (100, 7), (200, 101)] {
        let part = linear(x.clone().narrow(0, first, count), w.clone(), b.clone(), Activation::Tanh);
        assert_eq!(bits(&part), bits(&whole.clone().narrow(0, first, count)), "{count} rows from {first}");
    }
}

#[test]
fn gradients_do_not_depend_on_the_number_of_threads() {
    // Several chunks, and one, whose products are shared out; with few outputs too.
    for (rows, inputs, outputs) in
        [(1100, 40, 48), (256, 40, 48), (100, 70, 33), (256, 300, 4), (4, 300, 400)]
    {
        let mut n = Numbers::new(6);
        let (x, w) = (n.tensor([rows, inputs]), n.tensor([inputs, outputs]));
        let (b, g) = (n.tensor([outputs]), n.tensor([rows, outputs]));
        let at = |threads, act| {
            let (x, w, b, g) = (x.clone(), w.clone(), b.clone(), g.clone());
            with_threads(threads, move || run(linear, (&x, &w, &b, &g), act))
        };
        for act in ACTIVATIONS {
            let (one, two) = (at(1, act), at(2, act));
            let what = format!("{rows} x {inputs} x {outputs}, {act:?}");
            assert_eq!(bits(&one.0), bits(&two.0), "{what}");
            assert_eq!(bits(&one.1), bits(&two.1), "{what}");
            assert_eq!(bits(&one.2), bits(&two.2), "{what}");
            assert_eq!(bits(&one.3), bits(&two.3), "{what}");
        }
    }
}

#[test]
fn a_nan_passes_every_activation() {
    for act in ACTIVATIONS {
        for layer in [linear::<Flex>, composed::linear::<Flex>] {
            let mut x = vec![0.5; 40];
            x[3 * 4 + 1] = f32::NAN;
            let y =
                layer(from_vec(x, [10, 4]), Numbers::new(1).tensor([4, 3]), from_vec(vec![0.0; 3], [3]), act);
            let nan: Vec<bool> = values(&y).into_iter().map(f32::is_nan).collect();
            assert_eq!(nan.iter().filter(|&&n| n).count(), 3, "{act:?}");
            assert!(nan[9..12].iter().all(|&n| n), "{act:?}");
        }
    }
}

#[test]
fn an_input_that_wants_no_gradient_gets_none() {
    let mut n = Numbers::new(2);
    let (x, w, b) = (data(&n.tensor([5, 3])), leaf(&n.tensor([3, 4])), data(&n.tensor([4])));
    let grads = linear(x.clone(), w.clone(), b.clone(), Activation::Tanh).sum().backward();
    assert!(w.grad(&grads).is_some() && x.grad(&grads).is_none() && b.grad(&grads).is_none());
}

#[test]
fn f64_tensors_take_the_composition() {
    let device = Default::default();
    let x = Tensor::<Flex, 2>::from_data([[1.0f64, 1e-9]], (&device, DType::F64));
    let w = Tensor::<Flex, 2>::from_data([[1.0f64], [1.0]], (&device, DType::F64));
    let b = Tensor::<Flex, 1>::from_data([0.0f64], (&device, DType::F64));
    let y: Vec<f64> = linear(x, w, b, Activation::Identity).into_data().to_vec().expect("f64");
    assert!((y[0] - 1.0 - 1e-9).abs() < 1e-15);
}
