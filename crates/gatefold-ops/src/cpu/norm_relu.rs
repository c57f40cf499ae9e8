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
    norm_relu_kernel::{backward_rows, forward_rows},
};

/// Rows per chunk.
const CHUNK: usize = 128;

fn run(x: &FlexTensor, gamma: &FlexTensor, beta: &FlexTensor, residual: Option<FlexTensor>) -> FlexTensor {
    let shape: [usize; 2] = dims(x);
    let mut y = vec![0.0; shape[0] * shape[1]];
    if !y.is_empty() {
        let size = CHUNK * shape[1];
        let flops = 12 * y.len();
        let residual = residual.map(row_major);
        let nothing = vec![0.0; if residual.is_some() { 0 } else { size.min(y.len()) }];
        let tasks: Vec<_> = floats(x).chunks(size).zip(y.chunks_mut(size)).enumerate().collect();
        map_tasks(tasks, flops, |(chunk, (x, y))| {
            let residual = match &residual {
                Some(residual) => &floats(residual)[chunk * size..][..y.len()],
                None => &nothing[..y.len()],
            };
            forward_rows(x, floats(gamma), floats(beta), residual, y);
        });
    }
    tensor(y, shape)
}

/// [`crate::norm_relu`] on Flex.
pub(super) fn flex(
    x: FlexTensor,
    gamma: FlexTensor,
    beta: FlexTensor,
    residual: Option<FlexTensor>,
) -> FlexTensor {
    run(&row_major(x), &row_major(gamma), &row_major(beta), residual)
}

#[derive(Debug)]
struct NormRelu;

impl Backward<Flex, 4> for NormRelu {
    /// x, gamma, beta
    type State = [FlexTensor; 3];

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        let [x, gamma, beta] = ops.state;
        let [rows, width] = dims(&x);
        let mut d_x = vec![0.0; rows * width];
        let size = CHUNK * width;
        let parts = if d_x.is_empty() {
            Vec::new()
        } else {
            let tasks: Vec<_> =
                floats(&x).chunks(size).zip(floats(&g).chunks(size)).zip(d_x.chunks_mut(size)).collect();
            map_tasks(tasks, 24 * rows * width, |((x, g), d_x)| {
                let mut sums = vec![0.0; 2 * width];
                let (d_gamma, d_beta) = sums.split_at_mut(width);
                backward_rows(x, floats(&gamma), floats(&beta), g, d_x, d_gamma, d_beta);
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
    let y = run(&state[0], &state[1], &state[2], Some(residual.primitive));
    let nodes = [x.node, gamma.node, beta.node, residual.node];
    match NormRelu.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(state, y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}
