//! Rows picked by their numbers, as often as they are wanted.

// R rows, N wanted rows, D width

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use crate::OpsBackend;

/// `y_n = x_rows[n]`; the gradient of a row is the sum over where it was wanted, in that order.
///
/// Shapes: `x` `[R, D]`, result `[N, D]`. Panics if a row is not below R.
pub fn gather_rows<B: OpsBackend>(x: Tensor<B, 2>, rows: &Arc<[u32]>) -> Tensor<B, 2> {
    let [count, _] = x.dims();
    if let Some(&most) = rows.iter().max() {
        assert!((most as usize) < count, "gather_rows: row {most} of {count}");
    }
    B::gather_rows(x, rows)
}

/// [`gather_rows`] by plain tensor operations.
pub fn composed<B: Backend>(x: Tensor<B, 2>, rows: &Arc<[u32]>) -> Tensor<B, 2> {
    let device = x.device();
    let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let count = rows.len();
    x.select(0, Tensor::<B, 1, Int>::from_data(TensorData::new(rows, [count]), &device))
}
