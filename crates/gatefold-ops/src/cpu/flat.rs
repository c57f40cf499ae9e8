//! Flex tensors as plain slices, and back.

use std::sync::Arc;

use burn::{
    backend::{
        Autodiff, Flex,
        flex::{FlexTensor, Layout},
    },
    tensor::{Bytes, DType, Tensor, TensorPrimitive, backend::Backend, ops::FloatTensor},
};

/// A float tensor of the backend that trains on the CPU, its graph with checkpoints `C`.
pub(crate) type Tracked<C> = FloatTensor<Autodiff<Flex, C>>;

/// The `f32` elements of a contiguous tensor, without copying.
pub(crate) fn floats(t: &FlexTensor) -> &[f32] {
    t.as_slice().expect("a contiguous f32 tensor")
}

/// The tensor with its elements in row-major order; copies only a strided view.
pub(crate) fn row_major(t: FlexTensor) -> FlexTensor {
    if t.is_contiguous() { t } else { by_rows(&t).unwrap_or_else(|| t.to_contiguous()) }
}

/// [`row_major`] for a view of floats whose rows lie in memory as they are: row by row rather than number by
/// number.
fn by_rows(t: &FlexTensor) -> Option<FlexTensor> {
    let layout = t.layout();
    let (shape, strides) = (layout.shape().as_slice(), layout.strides());
    let (&width, outer) = shape.split_last()?;
    if t.dtype() != DType::F32 || strides.last() != Some(&1) {
        return None;
    }
    let mut starts = vec![layout.start_offset() as isize];
    for (&size, &stride) in outer.iter().zip(strides) {
        let of = |start| (0..size as isize).map(move |i| start + i * stride);
        starts = starts.into_iter().flat_map(of).collect();
    }
    let buffer = t.storage::<f32>();
    let mut elements = Vec::with_capacity(starts.len() * width);
    for start in starts {
        elements.extend_from_slice(&buffer[start as usize..][..width]);
    }
    Some(FlexTensor::new(Bytes::from_elems(elements), Layout::contiguous(shape.into()), DType::F32))
}

/// A new tensor from its elements in row-major order.
pub(crate) fn tensor<const D: usize>(elements: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    debug_assert_eq!(elements.len(), shape.iter().product::<usize>());
    FlexTensor::new(Bytes::from_elems(elements), Layout::contiguous(shape.into()), DType::F32)
}

/// Tensors of these shapes, whose elements lie one after the other in one buffer.
pub(crate) fn tensors<'a>(
    elements: Vec<f32>,
    shapes: impl IntoIterator<Item = &'a [usize]>,
) -> impl Iterator<Item = FlexTensor> {
    let buffer = Arc::new(Bytes::from_elems(elements));
    let mut first = 0;
    shapes.into_iter().map(move |shape| {
        let mut stride = 1;
        let mut strides = vec![1; shape.len()];
        for (at, &size) in strides.iter_mut().zip(shape).rev() {
            *at = stride as isize;
            stride *= size;
        }
        let layout = Layout::new(shape.into(), strides, first);
        first += stride;
        FlexTensor::from_arc(Arc::clone(&buffer), layout, DType::F32)
    })
}

/// The sizes of a tensor whose rank is known.
pub(crate) fn dims<const D: usize>(t: &FlexTensor) -> [usize; D] {
    t.layout().shape().dims()
}

/// The primitive inside a float tensor.
pub(crate) fn unwrap<B: Backend, const D: usize>(t: Tensor<B, D>) -> FloatTensor<B> {
    t.into_primitive().tensor()
}

/// A float tensor around its primitive.
pub(crate) fn wrap<B: Backend, const D: usize>(p: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(p))
}

/// Makes the tensor the only view of its buffer, so that writing the buffer writes the tensor; copies a
/// view of part of a buffer.
pub(crate) fn make_whole(t: &mut FlexTensor) {
    let covers = t.layout().start_offset() == 0 && t.bytes().len() == 4 * t.layout().num_elements();
    if !(covers && t.is_contiguous()) {
        *t = t.to_contiguous();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_in_row_major_order_are_what_burn_makes_of_them() {
        let whole = Tensor::<Flex, 1, burn::tensor::Int>::arange(0..60, &Default::default()).float();
        let whole = whole.reshape([3, 4, 5]);
        let views = [
            whole.clone().swap_dims(0, 1),
            whole.clone().swap_dims(0, 1).narrow(0, 1, 2),
            whole.clone().narrow(1, 1, 2).narrow(2, 2, 3),
            whole.clone().swap_dims(1, 2),
            whole.narrow(0, 0, 1).expand([6, 4, 5]),
        ];
        for (case, view) in views.map(unwrap).into_iter().enumerate() {
            assert!(!view.is_contiguous(), "view {case}");
            let expected = view.to_contiguous();
            let got = row_major(view);
            assert_eq!(got.layout().shape(), expected.layout().shape(), "view {case}");
            assert_eq!(floats(&got), floats(&expected), "view {case}");
        }
    }
}
