//! One AdamW step of one tensor, and the squared norm that global clipping needs.

use burn::tensor::{Shape, Tensor, TensorMetadata, TensorPrimitive, backend::Backend, ops::FloatTensor};

use crate::{OpsAutodiffBackend, OpsBackend};

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
    let [mut param, grad, mut m, mut v] = [param, grad, m, v].map(|t| t.into_primitive().tensor());
    B::adamw_in_place(&mut param, grad, [&mut m, &mut v], step);
    let [param, m, v] = [param, m, v].map(|t| Tensor::from_primitive(TensorPrimitive::Float(t)));
    (param, m, v)
}

/// [`adamw_step`] on primitives, which are changed in place where one is the only handle of its storage.
///
/// They are of one number of elements, of any rank; panics if they are not.
pub fn adamw_in_place<B: OpsBackend>(
    param: &mut FloatTensor<B>,
    grad: FloatTensor<B>,
    moments: [&mut FloatTensor<B>; 2],
    step: &AdamwStep,
) {
    B::adamw_in_place(param, grad, moments, step);
}

/// A step that parameters are still to take: whoever reads them next takes it first, where they will be read.
#[derive(Debug)]
pub struct PendingStep<'a, B: Backend> {
    /// The gradient, of any rank.
    pub gradient: FloatTensor<B>,
    /// The first and the second moment.
    pub moments: [&'a mut FloatTensor<B>; 2],
    /// Its numbers.
    pub numbers: AdamwStep,
}

impl<B: OpsBackend> PendingStep<'_, B> {
    /// [`adamw_in_place`].
    pub fn take(self, parameters: &mut FloatTensor<B>) {
        adamw_in_place::<B>(parameters, self.gradient, self.moments, &self.numbers);
    }
}

/// [`adamw_in_place`] of a leaf, such as a module's parameter: a new leaf.
pub fn adamw_leaf<B: OpsAutodiffBackend, const D: usize>(
    param: Tensor<B, D>,
    grad: FloatTensor<B::InnerBackend>,
    moments: [&mut FloatTensor<B::InnerBackend>; 2],
    step: &AdamwStep,
) -> Tensor<B, D> {
    let tracked = param.is_require_grad();
    let mut value = param.inner().into_primitive().tensor();
    B::InnerBackend::adamw_in_place(&mut value, grad, moments, step);
    let param = Tensor::from_inner(Tensor::from_primitive(TensorPrimitive::Float(value)));
    if tracked { param.require_grad() } else { param }
}

/// [`squared_norm`] of several tensors of any rank, read back at once.
pub fn squared_norms<B: OpsBackend>(tensors: &[FloatTensor<B>]) -> Vec<f64> {
    B::squared_norms(tensors)
}

/// The sums of squares of neighbouring parts of a tensor of these sizes, which cover it; read back at once.
pub fn squared_norms_of_parts<B: OpsBackend>(tensor: &FloatTensor<B>, sizes: &[usize]) -> Vec<f64> {
    assert_eq!(sizes.iter().sum::<usize>(), tensor.shape().num_elements(), "parts of a tensor cover it");
    B::squared_norms_of_parts(tensor, sizes)
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

/// [`adamw_in_place`] by plain tensor operations.
pub(crate) fn composed_in_place<B: Backend>(
    param: &mut FloatTensor<B>,
    grad: FloatTensor<B>,
    [m, v]: [&mut FloatTensor<B>; 2],
    step: &AdamwStep,
) {
    let [p, g, first, second] = [param.clone(), grad, m.clone(), v.clone()].map(flat::<B>);
    let (p, first, second) = composed_step(p, g, first, second, step);
    for (to, value) in [(param, p), (m, first), (v, second)] {
        *to = B::float_reshape(value.into_primitive().tensor(), to.shape());
    }
}

/// [`squared_norms`] one after the other.
pub(crate) fn norms_one_by_one<B: OpsBackend>(tensors: &[FloatTensor<B>]) -> Vec<f64> {
    if tensors.is_empty() {
        return Vec::new();
    }
    let sums = tensors.iter().map(|t| squared_norm::<B, 1>(flat(t.clone()))).collect();
    let sums = Tensor::<B, 1>::cat(sums, 0).into_data().convert::<f64>();
    sums.into_vec().expect("converted to f64")
}

/// [`squared_norms_of_parts`] one after the other.
pub(crate) fn norms_of_parts<B: OpsBackend>(tensor: &FloatTensor<B>, sizes: &[usize]) -> Vec<f64> {
    let (all, mut first) = (flat::<B>(tensor.clone()), 0);
    let part = |&size: &usize| {
        first += size;
        all.clone().narrow(0, first - size, size).into_primitive().tensor()
    };
    norms_one_by_one::<B>(&sizes.iter().map(part).collect::<Vec<_>>())
}

fn flat<B: Backend>(t: FloatTensor<B>) -> Tensor<B, 1> {
    let elements = t.shape().num_elements();
    Tensor::from_primitive(TensorPrimitive::Float(B::float_reshape(t, Shape::new([elements]))))
}
