//! The gradient of every parameter of a policy, by path.

use burn::backend::Flex;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use gatefold_policy::ActorCritic;

use crate::tolerance::values;
use crate::trainee::Train;

/// The gradient of one parameter; zeros where the loss does not depend on it.
#[derive(Debug, Clone)]
pub struct Gradient {
    /// The parameter's path, as in a checkpoint.
    pub path: String,
    /// The parameter's shape.
    pub shape: Vec<usize>,
    /// Row-major.
    pub values: Vec<f32>,
}

impl Gradient {
    /// Whether it is exactly 0 everywhere.
    pub fn is_silent(&self) -> bool {
        self.values.iter().all(|&g| g == 0.0)
    }
}

/// The gradients of a loss, parameter by parameter in the order of the policy's.
pub fn gradients(policy: &ActorCritic<Train>, loss: Tensor<Train, 1>) -> Vec<Gradient> {
    let grads = GradientsParams::from_grads(loss.backward(), policy);
    let mut visitor = Visitor { grads: &grads, path: Vec::new(), all: Vec::new() };
    policy.visit(&mut visitor);
    visitor.all
}

struct Visitor<'a> {
    grads: &'a GradientsParams,
    path: Vec<String>,
    all: Vec<Gradient>,
}

impl ModuleVisitor<Train> for Visitor<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Train, D>>) {
        let shape = param.dims().to_vec();
        let gradient = self.grads.get::<Flex, D>(param.id).map(values);
        let values = gradient.unwrap_or_else(|| vec![0.0; shape.iter().product()]);
        self.all.push(Gradient { path: self.path.join("."), shape, values });
    }
}
