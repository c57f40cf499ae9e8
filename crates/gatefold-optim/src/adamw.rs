//! AdamW over a whole module, with global-norm clipping.

use std::iter::{Enumerate, Peekable};
use std::slice::IterMut;

use burn::module::{AutodiffModule, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData, TensorPrimitive, backend::Backend, ops::FloatTensor};
use gatefold_ops::{AdamwStep, OpsAutodiffBackend, OpsBackend, adamw_leaf, squared_norms};

use crate::parameters::{NamedTensor, ParameterError, Path};
use crate::{Gradients, OptimizerConfig};

/// What one optimizer step saw and did.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Whether the gradients were scaled down.
    pub clipped: bool,
    /// Path and gradient norm of the tensor with the largest one; of the first that is not finite, if
    /// the global norm is not.
    pub largest: (String, f64),
}

/// First and second moments of one parameter, flat.
#[derive(Debug, Clone)]
pub(crate) struct Moments<B: Backend> {
    path: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) first: FloatTensor<B>,
    pub(crate) second: FloatTensor<B>,
    /// Steps this parameter has taken; one without a gradient takes none.
    pub(crate) steps: u64,
}

/// AdamW (Loshchilov & Hutter 2019) with PyTorch's semantics.
///
/// `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2`,
/// `p = p (1 - lr wd) - lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)`.
/// A parameter without a gradient keeps its value and its moments. State is keyed by the
/// parameter's path, so it survives saving and loading.
#[derive(Debug, Clone)]
pub struct AdamW<B: Backend> {
    config: OptimizerConfig,
    pub(crate) moments: Vec<Moments<B>>,
}

impl<B: OpsBackend> AdamW<B> {
    /// Zero moments for every float parameter of `module`.
    pub fn new<A, M>(config: OptimizerConfig, module: &M) -> Self
    where
        A: OpsAutodiffBackend<InnerBackend = B>,
        M: AutodiffModule<A>,
    {
        struct Shapes<B: Backend> {
            path: Path,
            moments: Vec<Moments<B>>,
        }
        impl<A: OpsAutodiffBackend> ModuleVisitor<A> for Shapes<A::InnerBackend> {
            fn enter_module(&mut self, name: &str, _: &str) {
                self.path.enter(name);
            }
            fn exit_module(&mut self, _: &str, _: &str) {
                self.path.exit();
            }
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<A, D>>) {
                let tensor = param.val();
                let elements = tensor.shape().num_elements();
                let zeros = || primitive(Tensor::<A::InnerBackend, 1>::zeros([elements], &tensor.device()));
                self.moments.push(Moments {
                    path: self.path.name(),
                    shape: tensor.dims().to_vec(),
                    first: zeros(),
                    second: zeros(),
                    steps: 0,
                });
            }
        }
        let mut shapes = Shapes { path: Path::default(), moments: Vec::new() };
        module.visit(&mut shapes);
        Self { config, moments: shapes.moments }
    }

    /// One step down the gradients at learning rate `lr`, their global norm limited to
    /// `max_norm` (0: no limit).
    ///
    /// The scale is `min(1, max_norm / (norm + 1e-6))` as in PyTorch. If the norm is not finite
    /// nothing is changed: the module comes back as it was, and the caller sees the norm.
    pub fn step<A, M>(&mut self, module: M, grads: Gradients<B>, lr: f64, max_norm: f32) -> (M, Step)
    where
        A: OpsAutodiffBackend<InnerBackend = B>,
        M: AutodiffModule<A>,
    {
        assert_eq!(grads.each.len(), self.moments.len(), "one gradient or none per parameter");
        let (owners, present): (Vec<usize>, Vec<FloatTensor<B>>) =
            grads.each.into_iter().enumerate().filter_map(|(at, grad)| Some((at, grad?))).unzip();
        let squares = squared_norms::<B>(&present);
        let (done, step) = self.begin(&squares, |at| owners[at], lr, max_norm);
        let Some(step) = step else { return (module, done) };
        let grads = owners.into_iter().zip(present).peekable();
        let mut walk = Walk { moments: self.moments.iter_mut().enumerate(), grads, step, steps: 0 };
        (module.map(&mut walk), done)
    }

    /// What a step down gradients of these squared norms will have done, and its numbers but for the bias
    /// corrections; none of them if the global norm is not finite. `owner` is the parameter of a gradient.
    pub(crate) fn begin(
        &self,
        squares: &[f64],
        owner: impl Fn(usize) -> usize,
        lr: f64,
        max_norm: f32,
    ) -> (Step, Option<AdamwStep>) {
        let grad_norm = squares.iter().sum::<f64>().sqrt();
        let largest = self.largest(squares, owner);
        if !grad_norm.is_finite() {
            return (Step { grad_norm, clipped: false, largest }, None);
        }
        let scale = if max_norm > 0.0 { (f64::from(max_norm) / (grad_norm + 1e-6)).min(1.0) } else { 1.0 };
        let OptimizerConfig { beta1, beta2, eps, weight_decay } = self.config;
        let step = AdamwStep {
            lr: lr as f32,
            beta1,
            beta2,
            eps,
            weight_decay,
            grad_scale: scale as f32,
            bias_correction1: 1.0,
            bias_correction2: 1.0,
        };
        (Step { grad_norm, clipped: scale < 1.0, largest }, Some(step))
    }

    /// The first squared norm that is not finite, or the largest, as path and norm.
    fn largest(&self, squares: &[f64], owner: impl Fn(usize) -> usize) -> (String, f64) {
        let largest = || (0..squares.len()).max_by(|&i, &j| squares[i].total_cmp(&squares[j]));
        match squares.iter().position(|x| !x.is_finite()).or_else(largest) {
            Some(at) => (self.moments[owner(at)].path.clone(), squares[at].sqrt()),
            None => (String::new(), 0.0),
        }
    }

    /// Path and norm of the first moment that is not finite.
    pub fn first_non_finite(&self) -> Option<(String, f64)> {
        let all = self.moments.iter().flat_map(|m| [m.first.clone(), m.second.clone()]);
        let squares = squared_norms::<B>(&all.collect::<Vec<_>>());
        let at = squares.iter().position(|x| !x.is_finite())?;
        let part = ["first", "second"][at % 2];
        Some((format!("{}/{part}", self.moments[at / 2].path), squares[at].sqrt()))
    }

    /// Lets an installed probe change the moments, at sites `moment/<path>/first` and `/second`.
    #[cfg(feature = "chaos")]
    pub fn probe_moments(&mut self) {
        for m in &mut self.moments {
            for (part, moment) in [("first", &mut m.first), ("second", &mut m.second)] {
                let site = format!("moment/{}/{part}", m.path);
                if gatefold_ops::probe::wants(&site) {
                    *moment = primitive(gatefold_ops::probe::tensor(&site, tensor::<B>(moment.clone())));
                }
            }
        }
    }

    /// The moments as named data: `PATH/first`, `PATH/second`, and `PATH/steps` as two 24-bit halves.
    pub fn export(&self) -> Vec<NamedTensor> {
        let read = |t: &FloatTensor<B>| {
            tensor::<B>(t.clone()).into_data().convert::<f32>().to_vec().expect("moments are f32")
        };
        self.moments
            .iter()
            .flat_map(|m| {
                let named = |part: &str, shape: Vec<usize>, data| NamedTensor {
                    path: format!("{}/{part}", m.path),
                    shape,
                    data,
                };
                let halves = vec![(m.steps >> 24) as f32, (m.steps & 0xff_ffff) as f32];
                [
                    named("first", m.shape.clone(), read(&m.first)),
                    named("second", m.shape.clone(), read(&m.second)),
                    named("steps", vec![2], halves),
                ]
            })
            .collect()
    }

    /// Takes over saved moments; fails without a change if names or shapes differ.
    pub fn import(&mut self, tensors: &[NamedTensor]) -> Result<(), ParameterError> {
        let find = |path: String, shape: &[usize]| {
            let saved = tensors.iter().find(|t| t.path == path);
            let saved = saved.ok_or_else(|| ParameterError::Missing { path: path.clone() })?;
            if saved.shape != shape {
                let (saved, expected) = (saved.shape.clone(), shape.to_vec());
                return Err(ParameterError::Shape { path, saved, expected });
            }
            Ok(&saved.data)
        };
        let mut moments = self.moments.clone();
        for m in &mut moments {
            let device = tensor::<B>(m.first.clone()).device();
            let flat = |data: &Vec<f32>| {
                let data = TensorData::new(data.clone(), [data.len()]);
                primitive(Tensor::<B, 1>::from_data(data, &device))
            };
            m.first = flat(find(format!("{}/first", m.path), &m.shape)?);
            m.second = flat(find(format!("{}/second", m.path), &m.shape)?);
            let halves = find(format!("{}/steps", m.path), &[2])?;
            m.steps = ((halves[0] as u64) << 24) | halves[1] as u64;
        }
        self.moments = moments;
        Ok(())
    }
}

/// Moments are kept as primitives, which a step changes in place; these are their names as tensors.
pub(crate) fn tensor<B: Backend>(moment: FloatTensor<B>) -> Tensor<B, 1> {
    Tensor::from_primitive(TensorPrimitive::Float(moment))
}

pub(crate) fn primitive<B: Backend>(moment: Tensor<B, 1>) -> FloatTensor<B> {
    moment.into_primitive().tensor()
}

/// The bias corrections of parameters that take their step number `steps`.
pub(crate) fn bias_corrections(step: &mut AdamwStep, steps: u64) {
    let correction = |beta: f32| (1.0 - f64::from(beta).powf(steps as f64)) as f32;
    step.bias_correction1 = correction(step.beta1);
    step.bias_correction2 = correction(step.beta2);
}

/// Steps each parameter that has a gradient.
struct Walk<'a, B: Backend, G: Iterator<Item = (usize, FloatTensor<B>)>> {
    moments: Enumerate<IterMut<'a, Moments<B>>>,
    /// Gradients with the index of their parameter, ascending.
    grads: Peekable<G>,
    /// The step, its bias corrections for parameters that took `steps` steps.
    step: AdamwStep,
    steps: u64,
}

impl<A, G> ModuleMapper<A> for Walk<'_, A::InnerBackend, G>
where
    A: OpsAutodiffBackend,
    G: Iterator<Item = (usize, FloatTensor<A::InnerBackend>)>,
{
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<A, D>>) -> Param<Tensor<A, D>> {
        let (index, moments) = self.moments.next().expect("moments for every parameter");
        let Some((_, grad)) = self.grads.next_if(|&(owner, _)| owner == index) else {
            return param;
        };
        moments.steps += 1;
        if moments.steps != self.steps {
            self.steps = moments.steps;
            bias_corrections(&mut self.step, moments.steps);
        }
        let (id, value, mapper) = param.consume();
        let value = adamw_leaf(value, grad, [&mut moments.first, &mut moments.second], &self.step);
        Param::from_mapped_value(id, value, mapper)
    }
}
