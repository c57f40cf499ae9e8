//! Work in chunks: which chunks there are depends on shapes alone, so no result depends on threads.

use rayon::prelude::*;

/// Below this many floating-point operations a call stays on one thread: handing work out costs
/// some 10 us, about what one core needs for half of it.
const SPLIT_FROM: usize = 2_000_000;

/// Applies `f` to every task and returns the results in order; in parallel where it pays.
pub(crate) fn map_tasks<I: Send, T: Send>(
    tasks: Vec<I>,
    flops: usize,
    f: impl Fn(I) -> T + Sync + Send,
) -> Vec<T> {
    if tasks.len() > 1 && flops >= SPLIT_FROM && rayon::current_num_threads() > 1 {
        tasks.into_par_iter().map(&f).collect()
    } else {
        tasks.into_iter().map(f).collect()
    }
}

/// The sum of equally long parts, in their order.
pub(crate) fn add_parts(parts: impl IntoIterator<Item = Vec<f32>>, len: usize) -> Vec<f32> {
    let mut parts = parts.into_iter();
    let mut sum = parts.next().unwrap_or_else(|| vec![0.0; len]);
    for part in parts {
        for (s, p) in sum.iter_mut().zip(part) {
            *s += p;
        }
    }
    sum
}
