//! AdamW in one pass over a tensor's elements, and the squared norm.

use burn::backend::flex::FlexTensor;

use super::{
    chunks::map_tasks,
    flat::{floats, row_major, tensor, whole},
    level::{mul_add, multiversion},
};
use crate::AdamwStep;

/// Elements per chunk.
const CHUNK: usize = 1 << 15;

multiversion! {
    fn step_chunk(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], step: &AdamwStep) = step_body
}

#[inline(always)]
fn step_body<const FMA: bool>(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], step: &AdamwStep) {
    let n = p.len();
    let (g, m, v) = (&g[..n], &mut m[..n], &mut v[..n]);
    let (keep1, keep2) = (1.0 - step.beta1, 1.0 - step.beta2);
    let decay = 1.0 - step.lr * step.weight_decay;
    let size = step.lr / step.bias_correction1;
    let root = step.bias_correction2.sqrt();
    for i in 0..n {
        let gradient = g[i] * step.grad_scale;
        m[i] = mul_add::<FMA>(keep1, gradient - m[i], m[i]);
        v[i] = mul_add::<FMA>(step.beta2, v[i], keep2 * (gradient * gradient));
        let denominator = v[i].sqrt() / root + step.eps;
        p[i] = mul_add::<FMA>(decay, p[i], -size * (m[i] / denominator));
    }
}

/// [`crate::adamw_step`] on Flex; a buffer with other handles is copied first.
pub(super) fn step(
    param: FlexTensor,
    grad: FlexTensor,
    m: FlexTensor,
    v: FlexTensor,
    step: &AdamwStep,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let grad = row_major(grad);
    let (mut param, mut m, mut v) = (whole(param), whole(m), whole(v));
    let tasks: Vec<_> = param
        .storage_mut::<f32>()
        .chunks_mut(CHUNK)
        .zip(floats(&grad).chunks(CHUNK))
        .zip(m.storage_mut::<f32>().chunks_mut(CHUNK).zip(v.storage_mut::<f32>().chunks_mut(CHUNK)))
        .collect();
    let flops = 16 * floats(&grad).len();
    map_tasks(tasks, flops, |((p, g), (m, v))| step_chunk(p, g, m, v, step));
    (param, m, v)
}

multiversion! {
    fn squares(g: &[f32]) -> f64 = squares_body
}

#[inline(always)]
fn squares_body<const FMA: bool>(g: &[f32]) -> f64 {
    const LANES: usize = 16;
    let mut lanes = [0.0f64; LANES];
    let (chunks, rest) = g.as_chunks::<LANES>();
    // The square of an f32 is exact in f64, so fused or not makes no difference.
    for chunk in chunks {
        for l in 0..LANES {
            lanes[l] += f64::from(chunk[l]) * f64::from(chunk[l]);
        }
    }
    for (l, &x) in rest.iter().enumerate() {
        lanes[l] += f64::from(x) * f64::from(x);
    }
    lanes.iter().sum()
}

/// [`crate::squared_norm`] on Flex.
pub(super) fn squared_norm(g: FlexTensor) -> FlexTensor {
    let g = row_major(g);
    let tasks: Vec<_> = floats(&g).chunks(CHUNK).collect();
    let parts = map_tasks(tasks, 2 * floats(&g).len(), squares);
    tensor(vec![parts.iter().sum::<f64>() as f32], [1])
}
