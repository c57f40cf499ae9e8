//! Fused kernels beside their compositions: `cargo bench -p gatefold-ops`.

use burn::backend::{Autodiff, Flex};
use burn::tensor::{Tensor, TensorData};
use divan::{Bencher, black_box};
use gatefold_ops::{Activation, OpsBackend, composed, linear};

type Train = Autodiff<Flex>;

fn main() {
    divan::main();
}

/// Numbers in [-1, 1) that look random.
fn tensor<B: OpsBackend, const D: usize>(shape: [usize; D]) -> Tensor<B, D> {
    let len = shape.iter().product();
    let values: Vec<f32> = (0..len).map(|i: usize| ((i * 7919) % 1999) as f32 / 1000.0 - 1.0).collect();
    Tensor::from_data(TensorData::new(values, shape), &Default::default())
}

/// rows, inputs, outputs
const LAYERS: [[usize; 3]; 6] =
    [[1, 64, 64], [8, 64, 64], [64, 4, 64], [64, 64, 64], [64, 64, 2], [4096, 64, 64]];

#[divan::bench(args = LAYERS)]
fn linear_forward_fused(bencher: Bencher<'_, '_>, [rows, inputs, outputs]: [usize; 3]) {
    let (x, w, b) = (tensor::<Flex, 2>([rows, inputs]), tensor([inputs, outputs]), tensor([outputs]));
    bencher.bench_local(|| black_box(linear(x.clone(), w.clone(), b.clone(), Activation::Identity)));
}

#[divan::bench(args = LAYERS)]
fn linear_tanh_forward_fused(bencher: Bencher<'_, '_>, [rows, inputs, outputs]: [usize; 3]) {
    let (x, w, b) = (tensor::<Flex, 2>([rows, inputs]), tensor([inputs, outputs]), tensor([outputs]));
    bencher.bench_local(|| black_box(linear(x.clone(), w.clone(), b.clone(), Activation::Tanh)));
}

#[divan::bench(args = LAYERS)]
fn linear_tanh_forward_composed(bencher: Bencher<'_, '_>, [rows, inputs, outputs]: [usize; 3]) {
    let (x, w, b) = (tensor::<Flex, 2>([rows, inputs]), tensor([inputs, outputs]), tensor([outputs]));
    bencher.bench_local(|| black_box(composed::linear(x.clone(), w.clone(), b.clone(), Activation::Tanh)));
}

type Layer = fn(Tensor<Train, 2>, Tensor<Train, 2>, Tensor<Train, 1>, Activation) -> Tensor<Train, 2>;

fn linear_backward(bencher: Bencher<'_, '_>, [rows, inputs, outputs]: [usize; 3], layer: Layer) {
    let x = tensor::<Train, 2>([rows, inputs]).require_grad();
    let w = tensor::<Train, 2>([inputs, outputs]).require_grad();
    let b = tensor::<Train, 1>([outputs]).require_grad();
    bencher.bench_local(|| {
        let y = layer(x.clone(), w.clone(), b.clone(), Activation::Tanh);
        black_box(y.sum().backward())
    });
}

#[divan::bench(args = LAYERS)]
fn linear_tanh_with_backward_fused(bencher: Bencher<'_, '_>, shape: [usize; 3]) {
    linear_backward(bencher, shape, linear);
}

#[divan::bench(args = LAYERS)]
fn linear_tanh_with_backward_composed(bencher: Bencher<'_, '_>, shape: [usize; 3]) {
    linear_backward(bencher, shape, composed::linear);
}
