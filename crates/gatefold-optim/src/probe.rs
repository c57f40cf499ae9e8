//! Sites of gradients and parameters for an installed probe: `gradient/<path>`, `parameter/<path>`.

use burn::module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorPrimitive, backend::Backend, ops::FloatTensor};
use gatefold_ops::{OpsAutodiffBackend, OpsBackend, probe};

use crate::Gradients;
use crate::parameters::Path;

/// The gradients after the probe.
pub fn gradients<B, M>(module: &M, grads: Gradients<B::InnerBackend>) -> Gradients<B::InnerBackend>
where
    B: OpsAutodiffBackend,
    M: AutodiffModule<B>,
{
    struct Sites<B: Backend> {
        path: Path,
        before: std::vec::IntoIter<Option<FloatTensor<B>>>,
        each: Vec<Option<FloatTensor<B>>>,
    }
    impl<B: OpsAutodiffBackend> ModuleVisitor<B> for Sites<B::InnerBackend> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.enter(name);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.exit();
        }
        fn visit_float<const D: usize>(&mut self, _: &Param<Tensor<B, D>>) {
            let site = format!("gradient/{}", self.path.name());
            let grad = self.before.next().flatten();
            self.each.push(grad.map(|grad| {
                let grad = Tensor::<B::InnerBackend, D>::from_primitive(TensorPrimitive::Float(grad));
                probe::tensor(&site, grad).into_primitive().tensor()
            }));
        }
    }
    let mut sites = Sites { path: Path::default(), before: grads.each.into_iter(), each: Vec::new() };
    module.visit(&mut sites);
    Gradients { each: sites.each }
}

/// The parameters after the probe.
pub fn parameters<B: OpsBackend, M: Module<B>>(module: M) -> M {
    struct Parameters {
        path: Path,
    }
    impl<B: OpsBackend> ModuleMapper<B> for Parameters {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.enter(name);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            let site = format!("parameter/{}", self.path.name());
            if !probe::wants(&site) {
                return param;
            }
            param.map(|old| {
                let new = probe::tensor(&site, old.clone()).detach();
                if old.is_require_grad() { new.require_grad() } else { new }
            })
        }
    }
    module.map(&mut Parameters { path: Path::default() })
}
