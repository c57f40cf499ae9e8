//! AdamW over a whole module, with global-norm clipping.

use burn::module::{AutodiffModule, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData, backend::Backend};
use gatefold_ops::{AdamwStep, OpsAutodiffBackend, OpsBackend, adamw_step, squared_norm};

use crate::OptimizerConfig;
use crate::parameters::{NamedTensor, ParameterError, Path};

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
struct Moments<B: Backend> {
    path: String,
    shape: Vec<usize>,
    first: Tensor<B, 1>,
    second: Tensor<B, 1>,
    /// Steps this parameter has taken; one without a gradient takes none.
    steps: u64,
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
    moments: Vec<Moments<B>>,
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
                let zeros = || Tensor::zeros([tensor.shape().num_elements()], &tensor.device());
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
    pub fn step<A, M>(&mut self, module: M, mut grads: GradientsParams, lr: f64, max_norm: f32) -> (M, Step)
    where
        A: OpsAutodiffBackend<InnerBackend = B>,
        M: AutodiffModule<A>,
    {
        let count = self.moments.len();
        let mut norms = Norms {
            grads: &grads,
            sums: Vec::with_capacity(count),
            owners: Vec::with_capacity(count),
            next: 0,
        };
        module.visit(&mut norms);
        let owners = norms.owners;
        let squares = read(norms.sums);
        let grad_norm = squares.iter().sum::<f64>().sqrt();
        let largest = self.largest(&squares, &owners);
        if !grad_norm.is_finite() {
            return (module, Step { grad_norm, clipped: false, largest });
        }
        let scale = if max_norm > 0.0 { (f64::from(max_norm) / (grad_norm + 1e-6)).min(1.0) } else { 1.0 };
        let mut walk = Walk { optimizer: self, grads: &mut grads, next: 0, lr, scale: scale as f32 };
        let module = module.map(&mut walk);
        (module, Step { grad_norm, clipped: scale < 1.0, largest })
    }

    /// The first squared norm that is not finite, or the largest, as path and norm.
    fn largest(&self, squares: &[f64], owners: &[usize]) -> (String, f64) {
        let largest = || (0..squares.len()).max_by(|&i, &j| squares[i].total_cmp(&squares[j]));
        match squares.iter().position(|x| !x.is_finite()).or_else(largest) {
            Some(at) => (self.moments[owners[at]].path.clone(), squares[at].sqrt()),
            None => (String::new(), 0.0),
        }
    }

    /// Path and norm of the first moment that is not finite.
    pub fn first_non_finite(&self) -> Option<(String, f64)> {
        let sums = self.moments.iter().flat_map(|m| [&m.first, &m.second]);
        let squares = read(sums.map(|moment| squared_norm(moment.clone())).collect());
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
                    *moment = gatefold_ops::probe::tensor(&site, moment.clone());
                }
            }
        }
    }

    /// The moments as named data: `PATH/first`, `PATH/second`, and `PATH/steps` as two 24-bit halves.
    pub fn export(&self) -> Vec<NamedTensor> {
        let read = |t: &Tensor<B, 1>| t.to_data().convert::<f32>().to_vec().expect("moments are f32");
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
            let device = m.first.device();
            let flat =
                |data: &Vec<f32>| Tensor::from_data(TensorData::new(data.clone(), [data.len()]), &device);
            m.first = flat(find(format!("{}/first", m.path), &m.shape)?);
            m.second = flat(find(format!("{}/second", m.path), &m.shape)?);
            let halves = find(format!("{}/steps", m.path), &[2])?;
            m.steps = ((halves[0] as u64) << 24) | halves[1] as u64;
        }
        self.moments = moments;
        Ok(())
    }
}

/// Squared norms of the gradients, and the parameter that each belongs to.
struct Norms<'a, B: Backend> {
    grads: &'a GradientsParams,
    sums: Vec<Tensor<B, 1>>,
    owners: Vec<usize>,
    next: usize,
}

impl<A: OpsAutodiffBackend> ModuleVisitor<A> for Norms<'_, A::InnerBackend> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<A, D>>) {
        if let Some(grad) = self.grads.get::<A::InnerBackend, D>(param.id) {
            self.sums.push(squared_norm(grad));
            self.owners.push(self.next);
        }
        self.next += 1;
    }
}

/// One-element tensors, read back at once.
pub(crate) fn read<B: Backend>(sums: Vec<Tensor<B, 1>>) -> Vec<f64> {
    if sums.is_empty() {
        return Vec::new();
    }
    let all = Tensor::cat(sums, 0).into_data().convert::<f32>();
    all.as_slice::<f32>().expect("norms are f32").iter().map(|&x| f64::from(x)).collect()
}

struct Walk<'a, B: Backend> {
    optimizer: &'a mut AdamW<B>,
    grads: &'a mut GradientsParams,
    next: usize,
    lr: f64,
    scale: f32,
}

impl<A: OpsAutodiffBackend> ModuleMapper<A> for Walk<'_, A::InnerBackend> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<A, D>>) -> Param<Tensor<A, D>> {
        let index = self.next;
        self.next += 1;
        let Some(grad) = self.grads.remove::<A::InnerBackend, D>(param.id) else {
            return param;
        };
        let config = &self.optimizer.config;
        let moments = &mut self.optimizer.moments[index];
        moments.steps += 1;
        let bias_correction = |beta: f32| (1.0 - f64::from(beta).powf(moments.steps as f64)) as f32;
        let step = AdamwStep {
            lr: self.lr as f32,
            beta1: config.beta1,
            beta2: config.beta2,
            eps: config.eps,
            weight_decay: config.weight_decay,
            grad_scale: self.scale,
            bias_correction1: bias_correction(config.beta1),
            bias_correction2: bias_correction(config.beta2),
        };
        let (id, tensor, mapper) = param.consume();
        let (shape, tracked) = (tensor.shape(), tensor.is_require_grad());
        let elements = shape.num_elements();
        let device = tensor.device();
        let take = |t: &mut Tensor<A::InnerBackend, 1>| std::mem::replace(t, Tensor::empty([0], &device));
        let (first, second) = (take(&mut moments.first), take(&mut moments.second));
        let (value, first, second) =
            adamw_step(tensor.inner().reshape([elements]), grad.reshape([elements]), first, second, &step);
        (moments.first, moments.second) = (first, second);
        let tensor = Tensor::from_inner(value.reshape(shape));
        Param::from_mapped_value(id, if tracked { tensor.require_grad() } else { tensor }, mapper)
    }
}
