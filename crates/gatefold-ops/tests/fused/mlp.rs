use burn::backend::{Flex, flex::FlexTensor};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{DType, Tensor};
use gatefold_ops::{Activation, AdamwStep, Leaf, MlpLayer, adamw_leaf, composed, mlp, mlp_column};

use crate::support::*;

const SHAPES: [(usize, &[usize]); 9] = [
    (1, &[4, 64, 64, 2]),
    (7, &[4, 64, 64, 1]),
    (64, &[4, 64, 64, 2]),
    (65, &[17, 33, 5]),
    (130, &[3, 20, 70, 30, 9]),
    (300, &[9, 40, 24, 3]),
    (600, &[5, 16, 16, 16, 16, 16, 16, 7]),
    (70, &[6, 12]),
    (520, &[2, 1]),
];

type Parameters = Vec<(Tensor<Flex, 2>, Tensor<Flex, 1>, Activation)>;

fn parameters(widths: &[usize], n: &mut Numbers) -> Parameters {
    let last = widths.len() - 2;
    widths
        .windows(2)
        .enumerate()
        .map(|(layer, pair)| {
            let act = match layer {
                _ if layer == last && last != 0 => Activation::Identity,
                _ if layer % 2 == 0 => Activation::Tanh,
                _ => Activation::Relu,
            };
            (n.tensor([pair[0], pair[1]]), n.tensor([pair[1]]), act)
        })
        .collect()
}

fn layers<B: Backend>(
    parameters: &Parameters,
    matrix: impl Fn(&Tensor<Flex, 2>) -> Tensor<B, 2>,
    vector: impl Fn(&Tensor<Flex, 1>) -> Tensor<B, 1>,
) -> Vec<MlpLayer<B>> {
    let of = |(weight, bias, activation): &(_, _, _)| MlpLayer {
        weight: matrix(weight),
        bias: vector(bias),
        activation: *activation,
    };
    parameters.iter().map(of).collect()
}

type Net = fn(Tensor<Train, 2>, Vec<MlpLayer<Train>>) -> Tensor<Train, 2>;

fn as_column(x: Tensor<Train, 2>, layers: Vec<MlpLayer<Train>>) -> Tensor<Train, 2> {
    mlp_column(x, layers).unsqueeze_dim(1)
}

/// Bits of the value and of the gradients of `sum(y * g)` by x, weights and biases.
fn run(net: Net, x: &Tensor<Flex, 2>, parameters: &Parameters, g: &Tensor<Flex, 2>) -> Vec<Vec<u32>> {
    let (x, layers) = (leaf(x), layers(parameters, leaf, leaf));
    let y = net(x.clone(), layers.clone());
    let grads = (y.clone() * data(g)).sum().backward();
    let mut all = vec![bits(&y.inner()), bits(&x.grad(&grads).expect("x wants a gradient"))];
    for layer in layers {
        all.push(bits(&layer.weight.grad(&grads).expect("weights want a gradient")));
        all.push(bits(&layer.bias.grad(&grads).expect("biases want a gradient")));
    }
    all
}

#[test]
fn one_node_has_the_bits_of_linear_layers_in_values_and_gradients() {
    for (seed, (rows, widths)) in SHAPES.into_iter().enumerate() {
        let mut n = Numbers::new(seed as u64);
        let parameters = parameters(widths, &mut n);
        let outputs = widths[widths.len() - 1];
        let (x, g) = (n.tensor([rows, widths[0]]), n.tensor([rows, outputs]));
        let plain = run(composed::mlp, &x, &parameters, &g);
        assert_eq!(run(mlp, &x, &parameters, &g), plain, "{rows} rows through {widths:?}");
        if outputs == 1 {
            assert_eq!(run(as_column, &x, &parameters, &g), plain, "{rows} rows through {widths:?}");
        }
        let untracked = mlp(x, layers(&parameters, Tensor::clone, Tensor::clone));
        assert_eq!(bits(&untracked), plain[0], "{rows} rows through {widths:?}");
    }
}

#[test]
fn a_row_has_the_same_bits_wherever_it_stands() {
    let mut n = Numbers::new(5);
    let parameters = parameters(&[37, 50, 20, 3], &mut n);
    let x = n.tensor([301, 37]);
    let net = |x| mlp(x, layers(&parameters, Tensor::clone, Tensor::clone));
    let whole = net(x.clone());
    for (first, count) in [(0, 1), (7, 1), (5, 2), (11, 8), (100, 7), (200, 101)] {
        let part = net(x.clone().narrow(0, first, count));
        assert_eq!(bits(&part), bits(&whole.clone().narrow(0, first, count)), "{count} rows from {first}");
    }
}

#[test]
fn nothing_depends_on_the_number_of_threads() {
    let mut n = Numbers::new(6);
    let parameters = parameters(&[40, 48, 48, 4], &mut n);
    let (x, g) = (n.tensor([1100, 40]), n.tensor([1100, 4]));
    let at = |threads| {
        let (x, parameters, g) = (x.clone(), parameters.clone(), g.clone());
        with_threads(threads, move || run(mlp, &x, &parameters, &g))
    };
    assert_eq!(at(1), at(2));
}

#[test]
fn only_what_wants_a_gradient_gets_one() {
    let mut n = Numbers::new(2);
    let parameters = parameters(&[3, 4, 5, 2], &mut n);
    for (tracked, layer) in (0..3).flat_map(|tracked| (0..3).map(move |layer| (tracked, layer))) {
        let mut all = layers(&parameters, data, data);
        if tracked != 1 {
            all[layer].weight = leaf(&parameters[layer].0);
        }
        if tracked != 0 {
            all[layer].bias = leaf(&parameters[layer].1);
        }
        let x = data(&n.tensor([5, 3]));
        let grads = mlp(x.clone(), all.clone()).sum().backward();
        assert!(x.grad(&grads).is_none());
        for (number, of) in all.iter().enumerate() {
            let (weight, bias) = (of.weight.grad(&grads).is_some(), of.bias.grad(&grads).is_some());
            assert_eq!((weight, bias), (number == layer && tracked != 1, number == layer && tracked != 0));
        }
    }
}

#[test]
fn a_nan_in_one_row_reaches_its_result_and_no_other() {
    let mut n = Numbers::new(3);
    let parameters = parameters(&[4, 16, 16, 3], &mut n);
    let mut x = n.vec(80);
    x[3 * 4 + 1] = f32::NAN;
    let y = values(&mlp(from_vec(x, [20, 4]), layers(&parameters, Tensor::clone, Tensor::clone)));
    for (row, y) in y.chunks(3).enumerate() {
        assert!(y.iter().all(|y| y.is_nan() == (row == 3)), "row {row}: {y:?}");
    }
}

#[test]
fn f64_tensors_take_the_composition() {
    let device = Default::default();
    let x = Tensor::<Flex, 2>::from_data([[1.0f64, 1e-9]], (&device, DType::F64));
    let weight = Tensor::<Flex, 2>::from_data([[1.0f64], [1.0]], (&device, DType::F64));
    let bias = Tensor::<Flex, 1>::from_data([0.0f64], (&device, DType::F64));
    let layer = MlpLayer { weight, bias, activation: Activation::Identity };
    let y: Vec<f64> = mlp_column(x, vec![layer]).into_data().to_vec().expect("f64");
    assert!((y[0] - 1.0 - 1e-9).abs() < 1e-15);
}

/// Parameters after some AdamW steps on data of a seed, as a value function learns.
fn train(seed: u64) -> Vec<Vec<u32>> {
    let mut n = Numbers::new(seed);
    let mut parameters: Vec<_> = parameters(&[4, 8, 8, 1], &mut n)
        .into_iter()
        .map(|(weight, bias, act)| (leaf(&weight), leaf(&bias), act))
        .collect();
    let zeros = |size: usize| from_vec(vec![0.0; size], [size]).into_primitive().tensor();
    let sizes = [4 * 8, 8, 8 * 8, 8, 8, 1];
    let mut moments: Vec<_> = sizes.into_iter().map(|size| (zeros(size), zeros(size))).collect();
    for _ in 0..200 {
        let layers = parameters.iter().map(|(weight, bias, activation)| MlpLayer {
            weight: weight.clone(),
            bias: bias.clone(),
            activation: *activation,
        });
        let loss = mlp(data(&n.tensor([1, 4])), layers.collect());
        // As an update does between its operations: others may end a backward pass now.
        std::thread::yield_now();
        let grads = loss.backward();
        let mut moments = moments.iter_mut();
        for (weight, bias, _) in &mut parameters {
            fn step<const D: usize>(
                leaf: &mut Tensor<Train, D>,
                grads: &<Train as AutodiffBackend>::Gradients,
                (m, v): &mut (FlexTensor, FlexTensor),
            ) {
                let grad = leaf.grad(grads).expect("every parameter gets a gradient");
                let grad = grad.into_primitive().tensor();
                *leaf = adamw_leaf(leaf.clone(), grad, [m, v], &STEP, Leaf::Kept);
            }
            step(weight, &grads, moments.next().expect("a moment"));
            step(bias, &grads, moments.next().expect("a moment"));
        }
    }
    let all = parameters.iter();
    all.flat_map(|(weight, bias, _)| [bits(&weight.clone().inner()), bits(&bias.clone().inner())]).collect()
}

const STEP: AdamwStep = AdamwStep {
    lr: 1e-2,
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-5,
    weight_decay: 0.0,
    grad_scale: 1.0,
    bias_correction1: 0.5,
    bias_correction2: 0.1,
};

#[test]
fn threads_that_train_at_once_with_kept_leaves_do_not_disturb_each_other() {
    let alone: Vec<_> = (0..4).map(train).collect();
    let handles: Vec<_> = (0..4).map(|seed| std::thread::spawn(move || train(seed))).collect();
    for (handle, alone) in handles.into_iter().zip(alone) {
        assert_eq!(handle.join().expect("no thread panics"), alone);
    }
}
