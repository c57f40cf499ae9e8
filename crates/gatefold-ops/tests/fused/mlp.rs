use burn::backend::Flex;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};
use gatefold_ops::{Activation, FlatMlp, MlpLayer, composed, flat_mlp, flat_mlp_column, mlp};

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

/// All parameters in one tensor.
fn flat<B: Backend>(layers: &[MlpLayer<B>]) -> (Tensor<B, 1>, FlatMlp) {
    let [inputs, _] = layers[0].weight.dims();
    let sizes = layers.iter().map(|layer| (layer.bias.dims()[0], layer.activation)).collect();
    let of = |layer: &MlpLayer<B>| {
        let [inputs, outputs] = layer.weight.dims();
        [layer.weight.clone().reshape([inputs * outputs]), layer.bias.clone()]
    };
    (Tensor::cat(layers.iter().flat_map(of).collect(), 0), FlatMlp::new(inputs, sizes))
}

fn in_one_tensor(x: Tensor<Train, 2>, layers: Vec<MlpLayer<Train>>) -> Tensor<Train, 2> {
    let (parameters, sizes) = flat(&layers);
    flat_mlp(x, parameters, &sizes)
}

fn composed_in_one_tensor(x: Tensor<Train, 2>, layers: Vec<MlpLayer<Train>>) -> Tensor<Train, 2> {
    let (parameters, sizes) = flat(&layers);
    composed::flat_mlp(x, parameters, &sizes)
}

fn as_column(x: Tensor<Train, 2>, layers: Vec<MlpLayer<Train>>) -> Tensor<Train, 2> {
    let (parameters, sizes) = flat(&layers);
    flat_mlp_column(x, parameters, &sizes).unsqueeze_dim(1)
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
        for net in [mlp as Net, in_one_tensor, composed_in_one_tensor] {
            assert_eq!(run(net, &x, &parameters, &g), plain, "{rows} rows through {widths:?}");
        }
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
    // Several chunks of rows, one, and a part of one.
    for rows in [1100, 256, 70] {
        let (x, g) = (n.tensor([rows, 40]), n.tensor([rows, 4]));
        let at = |threads| {
            let (x, parameters, g) = (x.clone(), parameters.clone(), g.clone());
            with_threads(threads, move || {
                [mlp as Net, in_one_tensor].map(|net| run(net, &x, &parameters, &g))
            })
        };
        assert_eq!(at(1), at(2), "{rows} rows");
    }
}

#[test]
fn only_what_wants_a_gradient_gets_one() {
    // On one thread and, with more to do, on two, which share the work out otherwise.
    for (threads, rows, widths) in [(1, 5, [3, 4, 5, 2]), (2, 256, [30, 40, 50, 20])] {
        let mut n = Numbers::new(2);
        let parameters = parameters(&widths, &mut n);
        for (tracked, layer) in (0..3).flat_map(|tracked| (0..3).map(move |layer| (tracked, layer))) {
            let mut all = layers(&parameters, data, data);
            if tracked != 1 {
                all[layer].weight = leaf(&parameters[layer].0);
            }
            if tracked != 0 {
                all[layer].bias = leaf(&parameters[layer].1);
            }
            let x = data(&n.tensor([rows, widths[0]]));
            let gradients = || mlp(x.clone(), all.clone()).sum().backward();
            let grads = with_threads(threads, gradients);
            let on_one = with_threads(1, gradients);
            assert!(x.grad(&grads).is_none());
            for (number, of) in all.iter().enumerate() {
                let (weight, bias) = (of.weight.grad(&grads), of.bias.grad(&grads));
                let there = (weight.is_some(), bias.is_some());
                assert_eq!(there, (number == layer && tracked != 1, number == layer && tracked != 0));
                assert_eq!(weight.map(|g| bits(&g)), of.weight.grad(&on_one).map(|g| bits(&g)));
                assert_eq!(bias.map(|g| bits(&g)), of.bias.grad(&on_one).map(|g| bits(&g)));
            }
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
    let (parameters, sizes) = flat(std::slice::from_ref(&layer));
    for y in [mlp(x.clone(), vec![layer]), flat_mlp_column(x, parameters, &sizes).unsqueeze_dim(1)] {
        let y: Vec<f64> = y.into_data().to_vec().expect("f64");
        assert!((y[0] - 1.0 - 1e-9).abs() < 1e-15);
    }
}
