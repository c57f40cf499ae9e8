//! AdamW in one pass over a tensor's elements, and the squared norm.

use burn::backend::flex::FlexTensor;

use super::{
    chunks::map_tasks,
    flat::{floats, make_whole, row_major},
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
    let correction = 1.0 / step.bias_correction2;
    for i in 0..n {
        let gradient = g[i] * step.grad_scale;
        m[i] = mul_add::<FMA>(keep1, gradient - m[i], m[i]);
        v[i] = mul_add::<FMA>(step.beta2, v[i], keep2 * (gradient * gradient));
        let denominator = (v[i] * correction).sqrt() + step.eps;
        p[i] = mul_add::<FMA>(decay, p[i], -size * (m[i] / denominator));
    }
}

/// [`crate::adamw_step`] on Flex, in place; a buffer with other handles is copied first.
pub(super) fn step_in_place(
    param: &mut FlexTensor,
    grad: FlexTensor,
    m: &mut FlexTensor,
    v: &mut FlexTensor,
    step: &AdamwStep,
) {
    let grad = row_major(grad);
    let g = floats(&grad);
    let sizes = [&*param, m, v].map(|t| t.layout().num_elements());
    assert_eq!(sizes, [g.len(); 3], "adamw: elements of parameter and moments");
    for t in [&mut *param, m, v] {
        make_whole(t);
    }
    let (p, m, v) = (param.storage_mut::<f32>(), m.storage_mut::<f32>(), v.storage_mut::<f32>());
    if g.len() <= CHUNK {
        return step_chunk(p, g, m, v, step);
    }
    let moments = m.chunks_mut(CHUNK).zip(v.chunks_mut(CHUNK));
    let tasks: Vec<_> = p.chunks_mut(CHUNK).zip(g.chunks(CHUNK)).zip(moments).collect();
    map_tasks(tasks, 16 * g.len(), |((p, g), (m, v))| step_chunk(p, g, m, v, step));
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

/// The sum of squares.
pub(super) fn sum_of_squares(g: &[f32]) -> f64 {
    if g.len() <= CHUNK {
        return squares(g);
    }
    map_tasks(g.chunks(CHUNK).collect(), 2 * g.len(), squares).iter().sum()
}
