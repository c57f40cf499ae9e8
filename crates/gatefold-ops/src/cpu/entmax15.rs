//! 1.5-entmax row by row, and its backward pass.

use burn::backend::{
    Flex,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    flex::FlexTensor,
};

use super::{
    flat::{Tracked, row_major},
    simplex::{map_gradient_rows, map_rows, shift},
};

/// 1.5-entmax of one row; `above` is room for its candidates.
fn project(z: &[f32], temperature: f32, above: &mut Vec<f32>, p: &mut [f32]) {
    if !shift(z, 2.0 * temperature, p, above) {
        p.fill(f32::NAN);
        return;
    }
    // Sums in f64: the scatter is a difference of two of them.
    let (mut sum, mut squares, mut threshold) = (0.0f64, 0.0f64, -1.0f64);
    for (i, &u) in above.iter().enumerate() {
        let (u, count) = (f64::from(u), (i + 1) as f64);
        sum += u;
        squares += u * u;
        let mean = sum / count;
        let rest = (1.0 - (squares - sum * mean)) / count;
        let next = mean - rest.max(0.0).sqrt();
        if next >= u {
            break;
        }
        threshold = next;
    }
    let threshold = threshold as f32;
    for p in p {
        let root = *p - threshold;
        *p = if root > 0.0 { root * root } else { 0.0 };
    }
}

/// `dz = s (g - sum s g / sum s) / temperature` with `s = sqrt(p)` for one row.
fn project_back(p: &[f32], g: &[f32], temperature: f32, d: &mut [f32]) {
    let (mut sum, mut weights) = (0.0, 0.0);
    for (&p, &g) in p.iter().zip(g) {
        if p > 0.0 {
            sum += p.sqrt() * g;
            weights += p.sqrt();
        }
    }
    let mean = sum / weights;
    for ((d, &p), &g) in d.iter_mut().zip(p).zip(g) {
        *d = if p > 0.0 { p.sqrt() * (g - mean) / temperature } else { 0.0 };
    }
}

/// [`crate::entmax15`] on Flex.
pub(super) fn flex(z: FlexTensor, temperature: f32) -> FlexTensor {
    map_rows(z, 30, |z, above, p| project(z, temperature, above, p))
}

#[derive(Debug)]
struct Entmax15;

impl Backward<Flex, 1> for Entmax15 {
    /// The result and the temperature.
    type State = (FlexTensor, f32);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let (p, temperature) = ops.state;
        let [node] = ops.parents;
        if let Some(node) = node {
            let d = map_gradient_rows(&p, &g, |p, g, d| project_back(p, g, temperature, d));
            grads.register::<Flex>(node.id, d);
        }
    }
}

/// [`crate::entmax15`] on Flex with its gradient.
pub(super) fn autodiff<C: CheckpointStrategy>(z: Tracked<C>, temperature: f32) -> Tracked<C> {
    let p = flex(z.primitive, temperature);
    match Entmax15.prepare::<C>([z.node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish((p.clone(), temperature), p),
        OpsKind::UnTracked(prep) => prep.finish(p),
    }
}
