//! Sites of gradients and parameters for an installed probe: `gradient/<path>`, `parameter/<path>`.

use burn::module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use gatefold_ops::{OpsAutodiffBackend, OpsBackend, probe};

use crate::parameters::Path;

/// The gradients after the probe.
pub fn gradients<B, M>(module: &M, grads: GradientsParams) -> GradientsParams
where
    B: OpsAutodiffBackend,
    M: AutodiffModule<B>,
{
    struct Gradients {
        path: Path,
        grads: GradientsParams,
    }
    impl<B: OpsAutodiffBackend> ModuleVisitor<B> for Gradients {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.enter(name);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            let site = format!("gradient/{}", self.path.name());
            if probe::wants(&site)
                && let Some(grad) = self.grads.remove::<B::InnerBackend, D>(param.id)
            {
                self.grads.register(param.id, probe::tensor(&site, grad));
            }
        }
    }
    let mut visitor = Gradients { path: Path::default(), grads };
    module.visit(&mut visitor);
    visitor.grads
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
