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
    chunks::map_tasks,
    flat::{Tracked, dims, floats, row_major, tensor},
};

/// Rows per chunk.
const CHUNK: usize = 256;

/// Sparsemax of one row; `above` is room for its candidates.
fn project(z: &[f32], temperature: f32, above: &mut Vec<f32>, p: &mut [f32]) {
    let mut max = f32::NEG_INFINITY;
    let mut invalid = false;
    for &z in z {
        invalid |= z.is_nan() || z == f32::INFINITY;
        max = max.max(z);
    }
    if invalid || max == f32::NEG_INFINITY {
        p.fill(f32::NAN);
        return;
    }
    // The largest entry is 0 and the sum of the support's distances from the threshold is 1, so
    // only entries above -1 can be in the support.
    above.clear();
    for (p, &z) in p.iter_mut().zip(z) {
        *p = (z - max) / temperature;
        if *p > -1.0 {
            above.push(*p);
        }
    }
    if above.len() <= 64 {
        insertion_sort(above);
    } else {
        above.sort_unstable_by(|a, b| b.total_cmp(a));
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

/// Sorts in descending order.
fn insertion_sort(xs: &mut [f32]) {
    for i in 1..xs.len() {
        let x = xs[i];
        let mut j = i;
        while j > 0 && xs[j - 1] < x {
            xs[j] = xs[j - 1];
            j -= 1;
        }
        xs[j] = x;
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

fn run(z: FlexTensor, temperature: f32) -> FlexTensor {
    let z = row_major(z);
    let [rows, k] = dims(&z);
    let mut p = vec![0.0; rows * k];
    if !p.is_empty() {
        let flops = 20 * p.len();
        let tasks: Vec<_> = floats(&z).chunks(CHUNK * k).zip(p.chunks_mut(CHUNK * k)).collect();
        map_tasks(tasks, flops, |(z, p)| {
            let mut above = Vec::with_capacity(k);
            for (z, p) in z.chunks_exact(k).zip(p.chunks_exact_mut(k)) {
                project(z, temperature, &mut above, p);
            }
        });
    }
    tensor(p, [rows, k])
}

/// [`crate::sparsemax`] on Flex.
pub(super) fn flex(z: FlexTensor, temperature: f32) -> FlexTensor {
    run(z, temperature)
}

#[derive(Debug)]
struct Sparsemax;

impl Backward<Flex, 1> for Sparsemax {
    /// The result and the temperature.
    type State = (FlexTensor, f32);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let (p, temperature) = ops.state;
        let [rows, k] = dims(&p);
        let mut d = vec![0.0; rows * k];
        if !d.is_empty() {
            let rows = floats(&p).chunks_exact(k).zip(floats(&g).chunks_exact(k));
            for ((p, g), d) in rows.zip(d.chunks_exact_mut(k)) {
                project_back(p, g, temperature, d);
            }
        }
        let [node] = ops.parents;
        if let Some(node) = node {
            grads.register::<Flex>(node.id, tensor(d, [rows, k]));
        }
    }
}

/// [`crate::sparsemax`] on Flex with its gradient.
pub(super) fn autodiff<C: CheckpointStrategy>(z: Tracked<C>, temperature: f32) -> Tracked<C> {
    let p = run(z.primitive, temperature);
    match Sparsemax.prepare::<C>([z.node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish((p.clone(), temperature), p),
        OpsKind::UnTracked(prep) => prep.finish(p),
    }
}
