//! From a configuration to the parts of a run.

use gatefold_curriculum::{Applicable, Curriculum, Ladder};
use gatefold_env::{BatchEnv, EnvEntry, Params, Purpose, stream};
use gatefold_monitor::Monitors;
use gatefold_ops::OpsAutodiffBackend;
use gatefold_optim::AdamW;
use gatefold_policy::{ActorCritic, ObservationScaling, Shape};
use gatefold_ppo::{Collector, Learner, LoadBalance, RewardScaler};

use crate::learned::Parked;
use crate::{ExperimentConfig, RunError, RunOptions, layers};

/// The parts of a run, new.
pub(crate) struct Parts<B: OpsAutodiffBackend> {
    /// Taken out during an update, which changes its tensors in place.
    pub(crate) policy: Option<ActorCritic<B>>,
    pub(crate) optimizer: AdamW<B::InnerBackend>,
    pub(crate) collector: Collector,
    pub(crate) rewards: RewardScaler,
    pub(crate) curriculum: Curriculum,
    pub(crate) learner: Learner,
    /// Added where top-k selects, one for each configured expert; empty without balance by bias. Rungs that
    /// take experts away do not route by top-k, so it is never used with fewer.
    pub(crate) selection_bias: Vec<f32>,
    /// What the ladder left of the policy, and what it took.
    pub(crate) shape: Shape,
    pub(crate) parked: Vec<Parked>,
    pub(crate) ladder: Ladder,
    pub(crate) monitors: Monitors,
    pub(crate) config: ExperimentConfig,
}

impl<B: OpsAutodiffBackend> Parts<B> {
    /// Builds every part, drawing the initial weights from the run's seed.
    pub(crate) fn new(
        config: &ExperimentConfig,
        entries: &[EnvEntry],
        device: &B::Device,
    ) -> Result<Self, RunError> {
        let num_envs = config.run.num_envs;
        let envs = build_envs(config, entries, num_envs, config.run.seed)?;
        let spec = envs.spec().clone();
        let mut rng = stream(config.run.seed, Purpose::Initialisation, 0);
        let policy = ActorCritic::<B>::new(&config.policy, &spec, &mut rng, device)
            .map_err(|e| RunError::Stopped(e.to_string()))?;
        let optimizer = AdamW::new::<B, _>(config.optimizer.clone(), &policy);
        let scaling =
            config.policy.normalize_observations.then(|| ObservationScaling::new(spec.num_features));
        let curriculum = Curriculum::new(config.curriculum.clone(), config.ppo.minibatch, config.ppo.epochs)
            .map_err(|e| RunError::Stopped(e.to_string()))?;
        let applicable = Applicable {
            graph: policy.graph_encoder().is_some(),
            router: policy.has_router() && config.learns_routing(),
            num_experts: policy.num_experts(),
        };
        let ladder = Ladder::new(config.ladder.clone(), applicable);
        let ladder = ladder.map_err(|e| RunError::Stopped(e.to_string()))?;
        let balances = config.losses.load_balance == LoadBalance::Bias && policy.has_router();
        let selection_bias = if balances { vec![0.0; policy.num_experts()] } else { Vec::new() };
        let policy = Some(policy);
        Ok(Self {
            policy,
            optimizer,
            collector: Collector::new(envs, config.ppo.num_steps, scaling)
                .with_value_clamp(config.ppo.value_clamp),
            rewards: RewardScaler::new(config.reward.clone(), num_envs),
            curriculum,
            learner: Learner {
                ppo: config.ppo.clone(),
                losses: config.losses.clone(),
                spec,
                experts: if config.policy.has_experts() { config.policy.experts.clone() } else { Vec::new() },
                thorough: false,
            },
            selection_bias,
            shape: Shape::default(),
            parked: Vec::new(),
            ladder,
            monitors: Monitors::new(config.monitors.clone()),
            config: config.clone(),
        })
    }

    /// The policy, between updates.
    pub(crate) fn policy(&self) -> &ActorCritic<B> {
        self.policy.as_ref().expect("the policy is back after every update")
    }
}

/// A batch of the configured environment.
pub(crate) fn build_envs(
    config: &ExperimentConfig,
    entries: &[EnvEntry],
    num_envs: usize,
    seed: u64,
) -> Result<Box<dyn BatchEnv>, RunError> {
    let entry = layers::find_environment(&config.env.name, entries)?;
    let params = Params { num_envs, seed, options: config.env.options.clone() };
    Ok((entry.build)(&params)?)
}

/// Calls `$run::<Backend>(device, ...)` for the chosen device. The only place that names a backend.
macro_rules! on_device {
    ($device:expr, |$place:ident : $backend:ident| $body:expr) => {{
        match $device {
            $crate::Device::Cpu => {
                type $backend = burn::backend::Autodiff<burn::backend::Flex>;
                let $place = Default::default();
                $body
            }
            #[cfg(feature = "cuda")]
            $crate::Device::Cuda => {
                type $backend = burn::backend::Autodiff<burn::backend::Cuda>;
                let unusable = |reason| $crate::RunError::Device { device: "cuda", reason };
                $crate::assembly::cuda_available().map_err(unusable)?;
                let $place = Default::default();
                $body
            }
            #[cfg(not(feature = "cuda"))]
            $crate::Device::Cuda => Err($crate::RunError::Device {
                device: "cuda",
                reason: format!("{}, or use --device cpu", $crate::assembly::NO_CUDA),
            }),
        }
    }};
}
pub(crate) use on_device;

/// Why a build without the feature has no GPU.
#[cfg(not(feature = "cuda"))]
pub(crate) const NO_CUDA: &str = "this build has no CUDA; build with `--features cuda`";

/// Whether this build and this machine can use an NVIDIA GPU; the error says in one sentence what is missing.
pub(crate) fn cuda_available() -> Result<(), String> {
    #[cfg(feature = "cuda")]
    return gatefold_ops::cuda::available();
    #[cfg(not(feature = "cuda"))]
    Err(NO_CUDA.to_string())
}

/// Runs `body` on a pool of `options.threads` threads; results do not depend on their number.
pub(crate) fn on_threads<T: Send>(
    options: &RunOptions,
    body: impl FnOnce() -> Result<T, RunError> + Send,
) -> Result<T, RunError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads.max(1)).build();
    let pool = pool.map_err(|e| RunError::Stopped(format!("--threads {}: {e}", options.threads)))?;
    pool.install(body)
}
