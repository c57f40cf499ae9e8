//! The gradients of a module's parameters, in the module's order.

use burn::module::{AutodiffModule, ModuleVisitor, Param};
use burn::tensor::{Tensor, backend::AutodiffBackend, backend::Backend, ops::FloatTensor};

/// One gradient per float parameter of a module, in the order of its fields; `None` where the loss does not
/// depend on the parameter.
#[derive(Debug)]
pub struct Gradients<B: Backend> {
    pub(crate) each: Vec<Option<FloatTensor<B>>>,
}

impl<B: Backend> Gradients<B> {
    /// Takes the gradients of `module` from what a backward pass found.
    pub fn of<A, M>(module: &M, found: A::Gradients) -> Self
    where
        A: AutodiffBackend<InnerBackend = B>,
        M: AutodiffModule<A>,
    {
        struct Take<A: AutodiffBackend> {
            found: A::Gradients,
            each: Vec<Option<FloatTensor<A::InnerBackend>>>,
        }
        impl<A: AutodiffBackend> ModuleVisitor<A> for Take<A> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<A, D>>) {
                let grad = param.grad_remove(&mut self.found);
                self.each.push(grad.map(|grad| grad.into_primitive().tensor()));
            }
        }
        let mut take = Take::<A> { found, each: Vec::new() };
        module.visit(&mut take);
        Self { each: take.each }
    }
}
