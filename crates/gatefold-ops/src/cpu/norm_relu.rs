//! Layer normalisation, ReLU and residual in one pass over each row, and its backward pass.

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
    chunks::{add_parts, map_tasks},
    flat::{Tracked, dims, floats, row_major, tensor},
    norm_relu_kernel::{Residual, backward_rows, forward_rows, num_moments},
    unset::Unset,
};

/// Rows per chunk.
const CHUNK: usize = 128;

/// The result, and the moments of the rows.
fn run(
    x: &FlexTensor,
    gamma: &FlexTensor,
    beta: &FlexTensor,
    residual: Option<FlexTensor>,
) -> (FlexTensor, Vec<f32>) {
    let shape: [usize; 2] = dims(x);
    let size = CHUNK * shape[1];
    let residual = residual.map(row_major);
    let zeros = vec![0.0; if residual.is_none() { size } else { 0 }];
    let mut y = Unset::new(shape[0] * shape[1]);
    let mut moments = vec![0.0; num_moments(shape[0])];
    let mut rest = y.whole();
    if !rest.is_empty() {
        let flops = 12 * rest.len();
        let rows = floats(x).chunks(size).zip(moments.chunks_mut(num_moments(CHUNK)));
        let residual = residual.as_ref().map(floats);
        let tasks = rows.enumerate().map(|(chunk, (x, moments))| {
            let residual = residual.map_or(&zeros[..], |rows| &rows[chunk * size..]);
            (x, Residual::all(residual), moments, rest.take(x.len()))
        });
        map_tasks(tasks.collect(), flops, |(x, residual, moments, y)| {
            forward_rows(x, residual, floats(gamma), floats(beta), moments, y);
        });
    }
    (tensor(y.finish(), shape), moments)
}

/// [`crate::norm_relu`] on Flex.
pub(super) fn flex(
    x: FlexTensor,
    gamma: FlexTensor,
    beta: FlexTensor,
    residual: Option<FlexTensor>,
) -> FlexTensor {
    run(&row_major(x), &row_major(gamma), &row_major(beta), residual).0
}

#[derive(Debug)]
struct NormRelu;

impl Backward<Flex, 4> for NormRelu {
    /// x, gamma, beta; the moments of the rows
    type State = ([FlexTensor; 3], Vec<f32>);

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let ([x, gamma, beta], moments) = ops.state;
        let [rows, width] = dims(&x);
        let mut d_x = vec![0.0; rows * width];
        let size = CHUNK * width;
        let parts = if d_x.is_empty() {
            Vec::new()
        } else {
            let rows_of = floats(&x).chunks(size).zip(moments.chunks(num_moments(CHUNK)));
            let tasks: Vec<_> = rows_of.zip(floats(&g).chunks(size)).zip(d_x.chunks_mut(size)).collect();
            map_tasks(tasks, 24 * rows * width, |(((x, moments), g), d_x)| {
                let mut sums = vec![0.0; 2 * width];
                let (d_gamma, d_beta) = sums.split_at_mut(width);
                backward_rows(x, moments, floats(&gamma), floats(&beta), g, d_x, d_gamma, d_beta);
                sums
            })
        };
        let mut d_gamma = add_parts(parts, 2 * width);
        let d_beta = d_gamma.split_off(width);
        let [x_node, gamma_node, beta_node, residual_node] = ops.parents;
        if let Some(node) = residual_node {
            grads.register::<Flex>(node.id, g);
        }
        if let Some(node) = x_node {
            grads.register::<Flex>(node.id, tensor(d_x, [rows, width]));
        }
        if let Some(node) = gamma_node {
            grads.register::<Flex>(node.id, tensor(d_gamma, [width]));
        }
        if let Some(node) = beta_node {
            grads.register::<Flex>(node.id, tensor(d_beta, [width]));
        }
    }
}

/// [`crate::norm_relu`] with a residual on Flex with its gradient.
pub(super) fn autodiff<C: CheckpointStrategy>(
    x: Tracked<C>,
    gamma: Tracked<C>,
    beta: Tracked<C>,
    residual: Tracked<C>,
) -> Tracked<C> {
    let state = [x.primitive, gamma.primitive, beta.primitive].map(row_major);
    let (y, moments) = run(&state[0], &state[1], &state[2], Some(residual.primitive));
    let nodes = [x.node, gamma.node, beta.node, residual.node];
    match NormRelu.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish((state, moments), y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}
