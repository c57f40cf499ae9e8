//! Initial weights drawn from a passed-in generator.
//!
//! Burn draws weights lazily from one process-wide generator; a run could be neither repeated nor
//! resumed. These are drawn at once, from the caller's stream.

use burn::module::{Param, ParamId};
use burn::nn::Linear;
use burn::tensor::{Tensor, TensorData, backend::Backend};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal, Uniform};

use crate::{Activation, MlpLayer, OpsBackend, linear};

/// A parameter of the given values.
pub fn parameter<B: Backend, const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    device: &B::Device,
) -> Param<Tensor<B, D>> {
    let tensor = Tensor::from_data(TensorData::new(values, shape), device);
    Param::initialized(ParamId::new(), tensor.require_grad())
}

/// A parameter filled with one value.
pub fn constant<B: Backend, const D: usize>(
    value: f32,
    shape: [usize; D],
    device: &B::Device,
) -> Param<Tensor<B, D>> {
    parameter(vec![value; shape.iter().product()], shape, device)
}

/// A parameter of independent normal draws with mean 0 and standard deviation `std`.
pub fn normal<B: Backend, const D: usize>(
    std: f32,
    shape: [usize; D],
    rng: &mut impl Rng,
    device: &B::Device,
) -> Param<Tensor<B, D>> {
    let draw = |_| std * Distribution::<f32>::sample(&StandardNormal, &mut *rng);
    parameter((0..shape.iter().product()).map(draw).collect(), shape, device)
}

/// A parameter of uniform draws in +-`sqrt(6 / (fan_in + fan_out))` (Glorot & Bengio 2010).
pub fn glorot<B: Backend, const D: usize>(
    shape: [usize; D],
    [fan_in, fan_out]: [usize; 2],
    rng: &mut impl Rng,
    device: &B::Device,
) -> Param<Tensor<B, D>> {
    let bound = (6.0 / (fan_in + fan_out) as f32).sqrt();
    let uniform = Uniform::new_inclusive(-bound, bound).expect("the bound is finite and positive");
    parameter((0..shape.iter().product()).map(|_| uniform.sample(&mut *rng)).collect(), shape, device)
}

/// An orthogonal `[rows, cols]` matrix times `gain`, row-major (Saxe et al. 2014).
///
/// The shorter side is orthonormal. Gram-Schmidt in `f64` over normal draws, which gives the same
/// distribution as the sign-corrected QR decomposition that PyTorch uses.
pub fn orthogonal(rows: usize, cols: usize, gain: f32, rng: &mut impl Rng) -> Vec<f32> {
    let (count, length) = (rows.min(cols), rows.max(cols));
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(count);
    while basis.len() < count {
        let mut v: Vec<f64> = (0..length).map(|_| StandardNormal.sample(&mut *rng)).collect();
        for _ in 0..2 {
            for b in &basis {
                let dot: f64 = v.iter().zip(b).map(|(x, y)| x * y).sum();
                v.iter_mut().zip(b).for_each(|(x, y)| *x -= dot * y);
            }
        }
        let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        if norm > 1e-6 {
            basis.push(v.into_iter().map(|x| x / norm).collect());
        }
    }
    let mut weight = vec![0.0; rows * cols];
    for r in 0..rows {
        for c in 0..cols {
            let value = if rows <= cols { basis[r][c] } else { basis[c][r] };
            weight[r * cols + c] = (f64::from(gain) * value) as f32;
        }
    }
    weight
}

/// A linear layer `[input, output]` with orthogonal weights times `gain` and zero bias.
pub fn orthogonal_linear<B: Backend>(
    [input, output]: [usize; 2],
    gain: f32,
    rng: &mut impl Rng,
    device: &B::Device,
) -> Linear<B> {
    Linear {
        weight: parameter(orthogonal(input, output, gain, rng), [input, output], device),
        bias: Some(constant(0.0, [output], device)),
    }
}

/// `act(x W + b)` of a Burn linear layer, by the fused operation.
pub fn apply_linear<B: OpsBackend>(layer: &Linear<B>, x: Tensor<B, 2>, act: Activation) -> Tensor<B, 2> {
    let bias = layer.bias.as_ref().expect("our linear layers have a bias");
    linear(x, layer.weight.val(), bias.val(), act)
}

/// A Burn linear layer with its activation as a layer of an [`mlp`](crate::mlp).
pub fn mlp_layer<B: Backend>(layer: &Linear<B>, activation: Activation) -> MlpLayer<B> {
    let bias = layer.bias.as_ref().expect("our linear layers have a bias");
    MlpLayer { weight: layer.weight.val(), bias: bias.val(), activation }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn an_orthogonal_matrix_has_an_orthonormal_shorter_side() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        for (rows, cols) in [(4, 64), (64, 4), (5, 5), (1, 3)] {
            let w = orthogonal(rows, cols, 2.0, &mut rng);
            let short = rows.min(cols);
            let at = |i: usize, k: usize| if rows <= cols { w[i * cols + k] } else { w[k * cols + i] };
            for i in 0..short {
                for j in 0..short {
                    let dot: f32 = (0..rows.max(cols)).map(|k| at(i, k) * at(j, k)).sum();
                    let expected = if i == j { 4.0 } else { 0.0 };
                    assert!((dot - expected).abs() < 1e-5, "{rows}x{cols}: <{i}, {j}> = {dot}");
                }
            }
        }
    }

    #[test]
    fn the_same_stream_gives_the_same_weights() {
        let draw = |seed| orthogonal(3, 2, 1.0, &mut rand_chacha::ChaCha8Rng::seed_from_u64(seed));
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
