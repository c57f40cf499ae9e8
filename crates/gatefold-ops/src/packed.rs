//! Experts computed only where their gate is not 0, on one row per (expert, row) pair.
//!
//! [`pack`] copies each row once per expert that it goes to, [`packed_expert_linear`] applies each
//! expert's layer to its own rows, and [`packed_mix`] adds the results up with their gates. A row has
//! the bits of the dense computation ([`expert_linear`](crate::expert_linear) and
//! [`mix`](crate::mix)), and so do its gradients up to the order of their sums, as long as nothing
//! but the mix reads an expert's output.

// B rows, K experts, P pairs, A outputs of the mix

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData, backend::Backend};

use crate::{Activation, ActivePairs, OpsBackend};

/// The row of each pair: `[B, width]` to `[P, width]`.
///
/// Panics if `x` has not as many rows as the pairs were made for.
pub fn pack<B: OpsBackend>(x: Tensor<B, 2>, pairs: &ActivePairs) -> Tensor<B, 2> {
    assert_eq!(x.dims()[0], pairs.num_rows(), "pack: rows of x and of the pairs");
    B::pack(x, pairs)
}

/// K linear layers on packed rows: `y_p = act(x_p W_k + b_k)`, k the expert of pair p.
///
/// Shapes: `x` `[P, in]`, `weight` `[K, in, out]`, `bias` `[K, out]`, result `[P, out]`. The cost grows
/// with P, and with the weights of experts that have rows. Panics if shapes differ.
pub fn packed_expert_linear<B: OpsBackend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 3>,
    bias: Tensor<B, 2>,
    act: Activation,
    pairs: &ActivePairs,
) -> Tensor<B, 2> {
    let ([x_rows, x_in], [experts, w_in, w_out]) = (x.dims(), weight.dims());
    assert!(
        x_rows == pairs.len() && x_in == w_in && experts == pairs.num_experts(),
        "packed_expert_linear: x [{x_rows}, {x_in}], weight [{experts}, {w_in}, {w_out}], {} pairs of {} experts",
        pairs.len(),
        pairs.num_experts()
    );
    assert_eq!(bias.dims(), [experts, w_out], "packed_expert_linear: shape of the bias");
    B::packed_expert_linear(x, weight, bias, act, pairs)
}

/// The weighted sum of the experts' outputs: `y_b = sum_p w_bk item_p` over the pairs p of row b.
///
/// Shapes: `weights` `[B, K]`, `items` `[P, A]`, result `[B, A]`; a row without pairs is 0. The gradient
/// of a weight without a pair is 0: that is the dense one only where the routing's own gradient
/// vanishes with the gate (sparsemax, entmax, top-k). Panics if shapes differ.
pub fn packed_mix<B: OpsBackend>(
    weights: Tensor<B, 2>,
    items: Tensor<B, 2>,
    pairs: &ActivePairs,
) -> Tensor<B, 2> {
    assert_eq!(weights.dims(), [pairs.num_rows(), pairs.num_experts()], "packed_mix: shape of the weights");
    assert_eq!(items.dims()[0], pairs.len(), "packed_mix: rows of the items");
    B::packed_mix(weights, items, pairs)
}

/// [`pack`] by plain tensor operations.
pub fn composed_pack<B: Backend>(x: Tensor<B, 2>, pairs: &ActivePairs) -> Tensor<B, 2> {
    let rows = positions(pairs.rows(), &x);
    x.select(0, rows)
}

/// [`packed_expert_linear`] by plain tensor operations: each expert's rows are padded to the largest
/// number of rows that one has.
pub fn composed_linear<B: Backend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 3>,
    bias: Tensor<B, 2>,
    act: Activation,
    pairs: &ActivePairs,
) -> Tensor<B, 2> {
    let [experts, inputs, outputs] = weight.dims();
    let most = (0..experts).map(|expert| pairs.of_expert(expert).len()).max().unwrap_or(0);
    if most == 0 {
        return Tensor::zeros([0, outputs], (&x.device(), x.dtype()));
    }
    let mut sources = vec![0; experts * most];
    let mut places = Vec::with_capacity(pairs.len());
    for expert in 0..experts {
        for (at, pair) in pairs.of_expert(expert).enumerate() {
            sources[expert * most + at] = pair;
            places.push(expert * most + at);
        }
    }
    let (sources, places) = (positions(&sources, &x), positions(&places, &x));
    let padded = x.select(0, sources).reshape([experts, most, inputs]);
    let y = act.composed(padded.matmul(weight) + bias.unsqueeze_dim::<3>(1));
    y.reshape([experts * most, outputs]).select(0, places)
}

/// [`packed_mix`] by plain tensor operations.
pub fn composed_mix<B: Backend>(
    weights: Tensor<B, 2>,
    items: Tensor<B, 2>,
    pairs: &ActivePairs,
) -> Tensor<B, 2> {
    let ([rows, experts], [_, width]) = (weights.dims(), items.dims());
    let (gates, row_of) = (positions(pairs.gates(), &items), positions(pairs.rows(), &items));
    let out = Tensor::zeros([rows, width], (&items.device(), items.dtype()));
    if pairs.is_empty() {
        return out;
    }
    let weights = weights.reshape([rows * experts]).select(0, gates).unsqueeze_dim::<2>(1);
    out.select_assign(0, row_of, items * weights, IndexingUpdateOp::Add)
}

fn positions<B: Backend>(at: &[usize], like: &Tensor<B, 2>) -> Tensor<B, 1, Int> {
    let at: Vec<i32> = at.iter().map(|&at| i32::try_from(at).expect("fewer than 2^31 gates")).collect();
    let len = at.len();
    Tensor::from_data(TensorData::new(at, [len]), &like.device())
}
