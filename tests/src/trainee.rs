//! One training iteration step by step, as the runner's loop does it, for tests that look between
//! the steps.

use std::ops::Range;

use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use gatefold_curriculum::{Coefficients, LearningRate, Phase, Plan, Routing};
use gatefold_env::{EnvEntry, EnvSpec, ObservationBatch, Params, Purpose, stream};
use gatefold_gat::GatConfig;
use gatefold_monitor::Metrics;
use gatefold_optim::{AdamW, OptimizerConfig};
use gatefold_policy::{ActorCritic, Architecture, Observation, ObservationScaling, PolicyConfig};
use gatefold_ppo::{
    Batch, Collector, Learner, LossConfig, PpoConfig, RewardConfig, RewardScaler, RewardScaling, Rollout,
    RolloutError, UpdateError,
};

/// The backend that trains on the CPU.
pub type Train = Autodiff<Flex>;

/// A small policy whose experts differ from the first step on.
///
/// With the default gain of .01 all actions are nearly equally likely at first, and a test that
/// compares policies would compare rounding errors.
pub fn small_policy(architecture: Architecture, num_experts: usize) -> PolicyConfig {
    PolicyConfig {
        architecture,
        trunk: vec![16, 16],
        experts: (0..num_experts).map(|k| format!("expert{k}")).collect(),
        expert_hidden: vec![16],
        router_hidden: vec![16, 8],
        action_gain: 1.0,
        gat: GatConfig { hidden: 8, heads: 2, ..GatConfig::default() },
        ..PolicyConfig::default()
    }
}

/// A plan with a constant learning rate and no coefficients.
pub fn plan(routing: Routing, temperature: f32, rate: f64) -> Plan {
    Plan {
        phase: Phase::Warmup,
        routing,
        temperature,
        coefficients: Coefficients::default(),
        learning_rate: LearningRate::constant(rate),
    }
}

/// Rows `rows` of host observations as tensors.
pub fn observation<B: Backend>(spec: &EnvSpec, all: &ObservationBatch, rows: Range<usize>) -> Observation<B> {
    Observation::new(spec, all.pick(rows), &Default::default())
}

/// A policy in training, with everything that an iteration needs.
pub struct Trainee {
    /// The policy.
    pub policy: ActorCritic<Train>,
    /// Its environments.
    pub collector: Collector,
    /// The settings of the update.
    pub learner: Learner,
    /// The scale of rewards.
    pub rewards: RewardScaler,
    /// Its optimizer.
    pub optimizer: AdamW<Flex>,
    optimizer_steps: u64,
    iteration: u64,
    seed: u64,
}

impl Trainee {
    /// A new policy in new environments: 16 steps a rollout, 2 epochs of minibatches of at most 40.
    pub fn new(entry: &EnvEntry, params: &Params, config: &PolicyConfig) -> Self {
        let seed = params.seed;
        let envs = (entry.build)(params).expect("the environment builds");
        let spec = envs.spec().clone();
        let mut rng = stream(seed, Purpose::Initialisation, 0);
        let policy = ActorCritic::new(config, &spec, &mut rng, &Default::default()).expect("a valid policy");
        let ppo = PpoConfig { num_steps: 16, epochs: 2, minibatch: 40, ..PpoConfig::default() };
        let scaling = config.normalize_observations.then(|| ObservationScaling::new(spec.num_features));
        let rewards = RewardConfig { scaling: RewardScaling::Returns, clip: 10.0 };
        Self {
            optimizer: AdamW::new::<Train, _>(OptimizerConfig::default(), &policy),
            policy,
            collector: Collector::new(envs, ppo.num_steps, scaling),
            learner: Learner {
                ppo,
                losses: LossConfig::default(),
                spec,
                experts: config.experts.clone(),
                thorough: false,
            },
            rewards: RewardScaler::new(rewards, params.num_envs),
            optimizer_steps: 0,
            iteration: 0,
            seed,
        }
    }

    /// Rolls the policy out.
    pub fn collect(&mut self, plan: &Plan) -> Result<Rollout, RolloutError> {
        let mut rng = stream(self.seed, Purpose::Actions, self.iteration);
        self.collector.collect(&self.policy.valid(), plan, &[], &mut rng, &Default::default())
    }

    /// Scales rewards and adds advantages.
    pub fn batch(&mut self, rollout: Rollout) -> Batch {
        let PpoConfig { gamma, gae_lambda, .. } = self.learner.ppo;
        let scaled = self.rewards.scale(rollout.rewards.view(), rollout.ends.view(), gamma);
        rollout.into_batch(&scaled, gamma, gae_lambda)
    }

    /// Improves the policy; on an error it stays as it was.
    pub fn update(&mut self, batch: &Batch, plan: &Plan) -> Result<Metrics, UpdateError> {
        let mut rng = stream(self.seed, Purpose::Shuffle, self.iteration);
        let updated = self.learner.update(
            self.policy.clone(),
            &mut self.optimizer,
            batch,
            plan,
            &mut self.optimizer_steps,
            &mut rng,
            &Default::default(),
        )?;
        self.policy = updated.policy;
        self.iteration += 1;
        Ok(updated.metrics)
    }

    /// A whole iteration that nothing disturbs.
    pub fn iterate(&mut self, plan: &Plan) -> Metrics {
        let rollout = self.collect(plan).expect("a rollout");
        let batch = self.batch(rollout);
        self.update(&batch, plan).expect("an update")
    }
}
