//! Sparsemax row by row, and its backward pass.

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
    flat::{Tracked, dims, row_major},
    simplex::{map_chunks, map_gradient_rows, map_gradients, map_rows, shift},
    sparsemax_few::{FEW, back_rows, project_rows},
};

/// Sparsemax of one row; `above` is room for its candidates.
fn project(z: &[f32], temperature: f32, above: &mut Vec<f32>, p: &mut [f32]) {
    if !shift(z, temperature, p, above) {
        p.fill(f32::NAN);
        return;
    }
    let (mut sum, mut threshold) = (0.0, -1.0);
    for (i, &u) in above.iter().enumerate() {
        let count = (i + 1) as f32;
        sum += u;
        if 1.0 + count * u <= sum {
            break;
        }
        threshold = (sum - 1.0) / count;
    }
    for p in p {
        *p = if *p > threshold { *p - threshold } else { 0.0 };
    }
}

/// `dz = 1_S (g - mean_S g) / temperature` for one row.
fn project_back(p: &[f32], g: &[f32], temperature: f32, d: &mut [f32]) {
    let (mut sum, mut count) = (0.0, 0.0);
    for (&p, &g) in p.iter().zip(g) {
        if p > 0.0 {
            sum += g;
            count += 1.0;
        }
    }
    let mean = sum / count;
    for ((d, &p), &g) in d.iter_mut().zip(p).zip(g) {
        *d = if p > 0.0 { (g - mean) / temperature } else { 0.0 };
    }
}

/// [`crate::sparsemax`] on Flex.
pub(super) fn flex(z: FlexTensor, temperature: f32) -> FlexTensor {
    let [_, k] = dims(&z);
    if (1..=FEW).contains(&k) {
        return map_chunks(z, 20, |k, z, p| project_rows(k, z, temperature, p));
    }
    map_rows(z, 20, |z, above, p| project(z, temperature, above, p))
}

#[derive(Debug)]
struct Sparsemax;

impl Backward<Flex, 1> for Sparsemax {
    /// The result and the temperature.
    type State = (FlexTensor, f32);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let (p, temperature) = ops.state;
        let [node] = ops.parents;
        if let Some(node) = node {
            let [_, k] = dims(&p);
            let d = if (1..=FEW).contains(&k) {
                map_gradients(&p, &g, |k, p, g, d| back_rows(k, p, g, temperature, d))
            } else {
                map_gradient_rows(&p, &g, |p, g, d| project_back(p, g, temperature, d))
            };
            grads.register::<Flex>(node.id, d);
        }
    }
}

/// [`crate::sparsemax`] on Flex with its gradient.
pub(super) fn autodiff<C: CheckpointStrategy>(z: Tracked<C>, temperature: f32) -> Tracked<C> {
    let p = flex(z.primitive, temperature);
    match Sparsemax.prepare::<C>([z.node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish((p.clone(), temperature), p),
        OpsKind::UnTracked(prep) => prep.finish(p),
    }
}
