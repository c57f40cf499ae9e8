//! What projections of rows on the simplex share: the shifted row, its candidates, rows in parallel.

use burn::backend::flex::FlexTensor;

use super::{
    chunks::map_tasks,
    flat::{dims, floats, row_major, tensor},
};

/// Rows per chunk.
const CHUNK: usize = 256;

/// The first row of a row-major `[_, k]` matrix with nothing but `-inf`.
pub(super) fn all_masked_row(z: &FlexTensor) -> Option<usize> {
    let z = row_major(z.clone());
    let [_, k] = dims(&z);
    if k == 0 {
        return None;
    }
    floats(&z).chunks_exact(k).position(|row| row.iter().all(|&z| z == f32::NEG_INFINITY))
}

/// Writes `u = (z - max z) / divisor` and collects the entries above -1 in descending order: both
/// projections give 1 to a largest entry that is alone, so no other can be in a support.
///
/// `false` for a row without a projection: a NaN, `+inf`, or nothing but `-inf`.
pub(super) fn shift(z: &[f32], divisor: f32, u: &mut [f32], above: &mut Vec<f32>) -> bool {
    let mut max = f32::NEG_INFINITY;
    let mut invalid = false;
    for &z in z {
        invalid |= z.is_nan() || z == f32::INFINITY;
        max = max.max(z);
    }
    if invalid || max == f32::NEG_INFINITY {
        return false;
    }
    above.clear();
    for (u, &z) in u.iter_mut().zip(z) {
        *u = (z - max) / divisor;
        if *u > -1.0 {
            above.push(*u);
        }
    }
    if above.len() <= 64 {
        insertion_sort(above);
    } else {
        above.sort_unstable_by(|a, b| b.total_cmp(a));
    }
    true
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

/// A projection of every row: `project(z, candidates, p)`, with room for a row's candidates.
pub(super) fn map_rows(
    z: FlexTensor,
    flops_per_entry: usize,
    project: impl Fn(&[f32], &mut Vec<f32>, &mut [f32]) + Sync + Send,
) -> FlexTensor {
    map_chunks(z, flops_per_entry, |k, z, p| {
        let mut above = Vec::with_capacity(k);
        for (z, p) in z.chunks_exact(k).zip(p.chunks_exact_mut(k)) {
            project(z, &mut above, p);
        }
    })
}

/// A projection of some rows at a time: `project(k, z, p)`.
pub(super) fn map_chunks(
    z: FlexTensor,
    flops_per_entry: usize,
    project: impl Fn(usize, &[f32], &mut [f32]) + Sync + Send,
) -> FlexTensor {
    let z = row_major(z);
    let [rows, k] = dims(&z);
    let mut p = vec![0.0; rows * k];
    if !p.is_empty() {
        let flops = flops_per_entry * p.len();
        let tasks: Vec<_> = floats(&z).chunks(CHUNK * k).zip(p.chunks_mut(CHUNK * k)).collect();
        map_tasks(tasks, flops, |(z, p)| project(k, z, p));
    }
    tensor(p, [rows, k])
}

/// The gradient of every row: `back(p, g, d)`.
pub(super) fn map_gradient_rows(
    p: &FlexTensor,
    g: &FlexTensor,
    back: impl Fn(&[f32], &[f32], &mut [f32]),
) -> FlexTensor {
    map_gradients(p, g, |k, p, g, d| {
        for ((p, g), d) in p.chunks_exact(k).zip(g.chunks_exact(k)).zip(d.chunks_exact_mut(k)) {
            back(p, g, d);
        }
    })
}

/// The gradient of all rows: `back(k, p, g, d)`.
pub(super) fn map_gradients(
    p: &FlexTensor,
    g: &FlexTensor,
    back: impl Fn(usize, &[f32], &[f32], &mut [f32]),
) -> FlexTensor {
    let [rows, k] = dims(p);
    let mut d = vec![0.0; rows * k];
    if !d.is_empty() {
        back(k, floats(p), floats(g), &mut d);
    }
    tensor(d, [rows, k])
}
