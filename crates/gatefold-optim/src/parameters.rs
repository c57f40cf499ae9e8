//! A module's parameters as named data: what checkpoints hold and hashes cover.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData, backend::Backend, ops::FloatTensor};
use gatefold_ops::{OpsAutodiffBackend, squared_norms};
use thiserror::Error;

/// One tensor by its path in the module, e.g. `actor_trunk.layers.0.weight`.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Field names from the module's root, joined by dots.
    pub path: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub data: Vec<f32>,
}

/// Saved tensors that do not fit a module.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParameterError {
    /// The module has a parameter that was not saved.
    #[error("the saved state lacks `{path}`")]
    Missing {
        /// The parameter.
        path: String,
    },
    /// A saved tensor belongs to no parameter.
    #[error("the saved state holds `{path}`, which the policy does not have")]
    Unknown {
        /// The tensor.
        path: String,
    },
    /// The sizes differ.
    #[error("`{path}` was saved with shape {saved:?}, the policy has {expected:?}")]
    Shape {
        /// The parameter.
        path: String,
        /// Shape of the saved tensor.
        saved: Vec<usize>,
        /// Shape of the parameter.
        expected: Vec<usize>,
    },
}

/// Field names on the way from the root to the parameter being visited.
#[derive(Debug, Default)]
pub(crate) struct Path(Vec<String>);

impl Path {
    pub(crate) fn enter(&mut self, name: &str) {
        self.0.push(name.to_string());
    }

    pub(crate) fn exit(&mut self) {
        self.0.pop();
    }

    pub(crate) fn name(&self) -> String {
        self.0.join(".")
    }
}

/// All float parameters in the order of the module's fields.
pub fn export<B: Backend, M: Module<B>>(module: &M) -> Vec<NamedTensor> {
    struct Export {
        path: Path,
        tensors: Vec<NamedTensor>,
    }
    impl<B: Backend> ModuleVisitor<B> for Export {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.enter(name);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            let tensor = param.val();
            let data = tensor.to_data().convert::<f32>().to_vec().expect("parameters are f32");
            self.tensors.push(NamedTensor { path: self.path.name(), shape: tensor.dims().to_vec(), data });
        }
    }
    let mut visitor = Export { path: Path::default(), tensors: Vec::new() };
    module.visit(&mut visitor);
    visitor.tensors
}

/// The module with all its parameters replaced; fails without a change if names or shapes differ.
pub fn import<B: Backend, M: Module<B>>(module: M, tensors: &[NamedTensor]) -> Result<M, ParameterError> {
    struct Import<'a> {
        path: Path,
        tensors: &'a [NamedTensor],
    }
    impl<B: Backend> ModuleMapper<B> for Import<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.enter(name);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            let name = self.path.name();
            let saved = self.tensors.iter().find(|t| t.path == name).expect("names were checked");
            param.map(|old| {
                let data = TensorData::new(saved.data.clone(), old.dims());
                let new = Tensor::from_data(data, &old.device());
                if old.is_require_grad() { new.require_grad() } else { new }
            })
        }
    }
    let current = export::<B, M>(&module);
    for parameter in &current {
        match tensors.iter().find(|t| t.path == parameter.path) {
            None => return Err(ParameterError::Missing { path: parameter.path.clone() }),
            Some(saved) if saved.shape != parameter.shape => {
                return Err(ParameterError::Shape {
                    path: parameter.path.clone(),
                    saved: saved.shape.clone(),
                    expected: parameter.shape.clone(),
                });
            }
            Some(_) => {}
        }
    }
    if let Some(extra) = tensors.iter().find(|t| current.iter().all(|p| p.path != t.path)) {
        return Err(ParameterError::Unknown { path: extra.path.clone() });
    }
    Ok(module.map(&mut Import { path: Path::default(), tensors }))
}

/// Number of trainable values.
pub fn count<B: Backend, M: Module<B>>(module: &M) -> usize {
    module.num_params()
}

/// Path and norm of the first parameter that is not finite, in the order of [`export`].
pub fn first_non_finite<B: OpsAutodiffBackend, M: Module<B>>(module: &M) -> Option<(String, f64)> {
    struct Norms<B: OpsAutodiffBackend> {
        path: Path,
        names: Option<Vec<String>>,
        values: Vec<FloatTensor<B::InnerBackend>>,
    }
    impl<B: OpsAutodiffBackend> ModuleVisitor<B> for Norms<B> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.enter(name);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            match &mut self.names {
                Some(names) => names.push(self.path.name()),
                None => self.values.push(param.val().inner().into_primitive().tensor()),
            }
        }
    }
    let visit = |names| {
        let mut visitor = Norms::<B> { path: Path::default(), names, values: Vec::new() };
        module.visit(&mut visitor);
        visitor
    };
    let squares = squared_norms::<B::InnerBackend>(&visit(None).values);
    let at = squares.iter().position(|x| !x.is_finite())?;
    let names = visit(Some(Vec::new())).names.expect("given above");
    Some((names[at].clone(), squares[at].sqrt()))
}
