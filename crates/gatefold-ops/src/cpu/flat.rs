//! Flex tensors as plain slices, and back.

use burn::{
    backend::flex::{FlexTensor, Layout},
    tensor::{Bytes, DType, Tensor, TensorMetadata, TensorPrimitive, backend::Backend, ops::FloatTensor},
};

/// The `f32` elements of a contiguous tensor, without copying.
pub(crate) fn floats(t: &FlexTensor) -> &[f32] {
    t.as_slice().expect("a contiguous f32 tensor")
}

/// The tensor with its elements in row-major order; copies only a strided view.
pub(crate) fn row_major(t: FlexTensor) -> FlexTensor {
    if t.is_contiguous() { t } else { t.to_contiguous() }
}

/// A new tensor from its elements in row-major order.
pub(crate) fn tensor<const D: usize>(elements: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    debug_assert_eq!(elements.len(), shape.iter().product::<usize>());
    FlexTensor::new(Bytes::from_elems(elements), Layout::contiguous(shape.into()), DType::F32)
}

/// The sizes of a tensor whose rank is known.
pub(crate) fn dims<const D: usize>(t: &FlexTensor) -> [usize; D] {
    t.shape().dims()
}

/// The primitive inside a float tensor.
pub(crate) fn unwrap<B: Backend, const D: usize>(t: Tensor<B, D>) -> FloatTensor<B> {
    t.into_primitive().tensor()
}

/// A float tensor around its primitive.
pub(crate) fn wrap<B: Backend, const D: usize>(p: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(p))
}
