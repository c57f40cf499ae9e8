//! The same linear layer of K experts in one operation.

use burn::tensor::{Tensor, backend::Backend};

use crate::{Activation, OpsBackend};

/// K linear layers on all rows: `y_k = act(x_k W_k + b_k)`.
///
/// Shapes: `x` `[K, B, in]`, or `[1, B, in]` for an input that all experts share; `weight`
/// `[K, in, out]`; `bias` `[K, out]`; result `[K, B, out]`. Where most rows need few experts,
/// [`packed_expert_linear`](crate::packed_expert_linear) computes those alone. Panics if shapes differ.
pub fn expert_linear<B: OpsBackend>(
    x: Tensor<B, 3>,
    weight: Tensor<B, 3>,
    bias: Tensor<B, 2>,
    act: Activation,
) -> Tensor<B, 3> {
    let ([x_experts, rows, x_in], [experts, w_in, w_out]) = (x.dims(), weight.dims());
    assert!(
        (x_experts == 1 || x_experts == experts) && x_in == w_in,
        "expert_linear: x [{x_experts}, {rows}, {x_in}], weight [{experts}, {w_in}, {w_out}]"
    );
    assert_eq!(bias.dims(), [experts, w_out], "expert_linear: shape of the bias");
    B::expert_linear(x, weight, bias, act)
}

/// [`expert_linear`] by plain tensor operations.
pub fn composed<B: Backend>(
    x: Tensor<B, 3>,
    weight: Tensor<B, 3>,
    bias: Tensor<B, 2>,
    act: Activation,
) -> Tensor<B, 3> {
    let [_, rows, width] = x.dims();
    let [experts, _, _] = weight.dims();
    let x = x.expand([experts, rows, width]);
    act.composed(x.matmul(weight) + bias.unsqueeze_dim::<3>(1))
}
