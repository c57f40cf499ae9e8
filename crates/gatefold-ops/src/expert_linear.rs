//! The same linear layer of K experts in one operation, with rows that need no computing left out.

use burn::tensor::{Bool, Tensor, TensorData, backend::Backend};

use crate::{Activation, OpsBackend};

/// K linear layers: `y_k = act(x_k W_k + b_k)`, computed only where `active`.
///
/// Shapes: `x` `[K, B, in]`, or `[1, B, in]` for an input that all experts share; `weight`
/// `[K, in, out]`; `bias` `[K, out]`; `active` `[K * B]`, expert-major, `true` = compute; result
/// `[K, B, out]`. A row that is not active is exactly 0 and passes no gradient; an active row has
/// the bits of the dense computation. Panics if shapes differ.
pub fn expert_linear<B: OpsBackend>(
    x: Tensor<B, 3>,
    weight: Tensor<B, 3>,
    bias: Tensor<B, 2>,
    act: Activation,
    active: Option<&[bool]>,
) -> Tensor<B, 3> {
    let ([x_experts, rows, x_in], [experts, w_in, w_out]) = (x.dims(), weight.dims());
    assert!(
        (x_experts == 1 || x_experts == experts) && x_in == w_in,
        "expert_linear: x [{x_experts}, {rows}, {x_in}], weight [{experts}, {w_in}, {w_out}]"
    );
    assert_eq!(bias.dims(), [experts, w_out], "expert_linear: shape of the bias");
    if let Some(active) = active {
        assert_eq!(active.len(), experts * rows, "expert_linear: length of active");
    }
    B::expert_linear(x, weight, bias, act, active)
}

/// [`expert_linear`] by plain tensor operations: everything is computed, then selected.
pub fn composed<B: Backend>(
    x: Tensor<B, 3>,
    weight: Tensor<B, 3>,
    bias: Tensor<B, 2>,
    act: Activation,
    active: Option<&[bool]>,
) -> Tensor<B, 3> {
    let [_, rows, width] = x.dims();
    let [experts, _, out] = weight.dims();
    let device = x.device();
    let x = x.expand([experts, rows, width]);
    let y = act.composed(x.matmul(weight) + bias.unsqueeze_dim::<3>(1));
    match active {
        None => y,
        Some(active) => {
            let skipped: Vec<bool> = active.iter().map(|&a| !a).collect();
            let skipped = TensorData::new(skipped, [experts, rows, 1]);
            let skipped = Tensor::<B, 3, Bool>::from_data(skipped, &device);
            y.mask_fill(skipped.expand([experts, rows, out]), 0.0)
        }
    }
}
