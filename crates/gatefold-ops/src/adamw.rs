//! One AdamW step of one tensor, and the squared norm that global clipping needs.

use burn::tensor::{Tensor, backend::Backend};

use crate::OpsBackend;

/// The numbers of one AdamW step, as PyTorch's `AdamW` defines them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamwStep {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the corrected second moment.
    pub eps: f32,
    /// Decoupled weight decay: the parameter is first multiplied by `1 - lr * weight_decay`.
    pub weight_decay: f32,
    /// Factor on the gradient, for clipping by global norm.
    pub grad_scale: f32,
    /// `1 - beta1^t`, or 1 for no correction.
    pub bias_correction1: f32,
    /// `1 - beta2^t`, or 1 for no correction.
    pub bias_correction2: f32,
}

/// One AdamW step in one pass; returns parameter, first and second moment.
///
/// With `g = grad * grad_scale`: `p *= 1 - lr * weight_decay`, `m += (1 - beta1) (g - m)`,
/// `v = beta2 v + (1 - beta2) g^2`, `p -= lr / bc1 * m / (sqrt(v) / sqrt(bc2) + eps)`.
/// Writes in place where a tensor is the only handle of its storage. For inner backends: the
/// step itself has no gradient. Panics if shapes differ.
pub fn adamw_step<B: OpsBackend, const D: usize>(
    param: Tensor<B, D>,
    grad: Tensor<B, D>,
    m: Tensor<B, D>,
    v: Tensor<B, D>,
    step: &AdamwStep,
) -> (Tensor<B, D>, Tensor<B, D>, Tensor<B, D>) {
    let shape = param.dims();
    assert!(
        grad.dims() == shape && m.dims() == shape && v.dims() == shape,
        "adamw_step: parameter {shape:?}, gradient {:?}, moments {:?} and {:?}",
        grad.dims(),
        m.dims(),
        v.dims()
    );
    B::adamw_step(param, grad, m, v, step)
}

/// The sum of squares of all elements, `[1]`; accumulated in `f64` on the CPU.
pub fn squared_norm<B: OpsBackend, const D: usize>(g: Tensor<B, D>) -> Tensor<B, 1> {
    B::squared_norm(g)
}

/// [`adamw_step`] by plain tensor operations.
pub fn composed_step<B: Backend, const D: usize>(
    param: Tensor<B, D>,
    grad: Tensor<B, D>,
    m: Tensor<B, D>,
    v: Tensor<B, D>,
    step: &AdamwStep,
) -> (Tensor<B, D>, Tensor<B, D>, Tensor<B, D>) {
    let g = grad * step.grad_scale;
    let m = m.clone() + (g.clone() - m) * (1.0 - step.beta1);
    let v = v * step.beta2 + g.square() * (1.0 - step.beta2);
    let denominator = v.clone().sqrt() / step.bias_correction2.sqrt() + step.eps;
    let update = m.clone() / denominator * (step.lr / step.bias_correction1);
    let param = param * (1.0 - step.lr * step.weight_decay) - update;
    (param, m, v)
}

/// [`squared_norm`] by plain tensor operations.
pub fn composed_norm<B: Backend, const D: usize>(g: Tensor<B, D>) -> Tensor<B, 1> {
    g.square().sum()
}
