//! What an experiment file says.

use gatefold_curriculum::{CurriculumConfig, FixedRouting, LadderConfig, RoutingChoice, Schedule};
use gatefold_monitor::MonitorConfig;
use gatefold_optim::OptimizerConfig;
use gatefold_policy::PolicyConfig;
use gatefold_ppo::{LossConfig, PpoConfig, RewardConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::agreement;
use crate::presets::Preset;

/// One experiment, resolved: what `train` runs and what a run directory keeps as `config.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExperimentConfig {
    /// Why this experiment exists, a text: the question it answers, or what to compare it with.
    #[schemars(length(min = 1))]
    pub about: String,
    /// Named settings under the file's own; whatever the file says wins.
    pub preset: Option<Preset>,
    /// The environment and its own options.
    pub env: EnvConfig,
    /// Length, seed and bookkeeping of the run.
    #[serde(default)]
    pub run: RunConfig,
    /// Evaluation on held-out seeds.
    #[serde(default)]
    pub eval: EvalConfig,
    /// What the policy is made of.
    #[serde(default)]
    pub policy: PolicyConfig,
    /// The rollout and the PPO update.
    #[serde(default)]
    pub ppo: PpoConfig,
    /// The auxiliary losses; their coefficients are in the curriculum.
    #[serde(default)]
    pub losses: LossConfig,
    /// The reward scaling.
    #[serde(default)]
    pub reward: RewardConfig,
    /// The optimizer; its learning rate is in the curriculum.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// Phases, learning rate and coefficients over the run.
    #[serde(default)]
    pub curriculum: CurriculumConfig,
    /// When a run counts as unhealthy.
    #[serde(default)]
    pub monitors: MonitorConfig,
    /// How a run that stays unhealthy is simplified.
    #[serde(default)]
    pub ladder: LadderConfig,
}

/// The environment of an experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EnvConfig {
    /// Name of the environment; `gatefold env list` shows them. Its own options stand beside this key.
    #[schemars(length(min = 1))]
    pub name: String,
    /// The environment's own options.
    #[serde(flatten)]
    #[schemars(skip)]
    pub options: toml::Table,
}

/// Length, seed and bookkeeping of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// Name of the run's folder under `runs/`; not set: the name of the experiment file. Letters,
    /// digits, `-`, `_` and `.`.
    pub name: Option<String>,
    /// Length of the run, in environment steps over all environments; the last iteration is finished.
    #[schemars(range(min = 1))]
    pub total_steps: u64,
    /// Size of the batch that is stepped together, in environments.
    #[schemars(range(min = 1, max = 65536))]
    pub num_envs: usize,
    /// Seed of every draw of the run, dimensionless.
    pub seed: u64,
    /// Mean return of the last 100 episodes, in units of raw reward, whose first reaching is recorded
    /// in the summary.
    pub target_return: Option<f64>,
    /// End the run once target_return is reached.
    pub stop_at_target: bool,
    /// Distance between checkpoints, in iterations; the first and the last state are always saved.
    #[schemars(range(min = 1))]
    pub checkpoint_every: u64,
    /// How many of the newest are kept beside the best one, a number of checkpoints.
    #[schemars(range(min = 1, max = 1000))]
    pub keep_checkpoints: usize,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            name: None,
            total_steps: 1_000_000,
            num_envs: 64,
            seed: 1,
            target_return: None,
            stop_at_target: false,
            checkpoint_every: 10,
            keep_checkpoints: 3,
        }
    }
}

/// Evaluation on held-out seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EvalConfig {
    /// Distance between evaluations, in iterations; 0 evaluates at the end of the run only.
    pub every: u64,
    /// Length of one evaluation, in episodes.
    #[schemars(range(min = 1, max = 10_000))]
    pub episodes: usize,
    /// Seed of the evaluation's environments, dimensionless. Environment streams are keyed by seed, so with a seed
    /// other than run.seed no episode of the training is met again; equal seeds are refused.
    pub seed: u64,
    /// Take the most probable action instead of sampling.
    pub deterministic: bool,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self { every: 0, episodes: 20, seed: 7_777_777, deterministic: false }
    }
}

impl ExperimentConfig {
    /// All defaults for one environment.
    pub fn new(about: &str, env: &str) -> Self {
        Self {
            about: about.to_string(),
            preset: None,
            env: EnvConfig { name: env.to_string(), options: toml::Table::new() },
            run: RunConfig::default(),
            eval: EvalConfig::default(),
            policy: PolicyConfig::default(),
            ppo: PpoConfig::default(),
            losses: LossConfig::default(),
            reward: RewardConfig::default(),
            optimizer: OptimizerConfig::default(),
            curriculum: CurriculumConfig::default(),
            monitors: MonitorConfig::default(),
            ladder: LadderConfig::default(),
        }
    }

    /// What keys say about each other, as `[section] key = value: what would be accepted`.
    ///
    /// Types and ranges of single keys are the schema's; this is what it cannot say.
    pub fn validate(&self) -> Result<(), String> {
        if self.about.trim().is_empty() {
            return Err("about = \"\": say in a line why this experiment exists".to_string());
        }
        if let Some(name) = &self.run.name {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
                return Err(format!(
                    "[run] name = {name:?}: need letters, digits, `-`, `_` or `.`, not starting with `.`; it \
                     names a folder"
                ));
            }
        }
        if self.run.stop_at_target && self.run.target_return.is_none() {
            return Err("[run] stop_at_target = true: needs target_return = <mean return>".to_string());
        }
        if self.eval.seed == self.run.seed {
            return Err(format!(
                "[eval] seed = {seed}: must differ from run.seed = {seed} (--seed), or evaluation replays the \
                 training's episodes",
                seed = self.eval.seed
            ));
        }
        self.policy.validate().map_err(|e| e.to_string())?;
        self.ppo.validate(self.run.num_envs).map_err(|e| e.to_string())?;
        self.curriculum.validate().map_err(|e| e.to_string())?;
        self.monitors.validate().map_err(|e| e.to_string())?;
        self.ladder.validate().map_err(|e| e.to_string())?;
        agreement::check(self)
    }

    /// Whether the router's logits decide at some time of the run: not for the controls of studies.
    pub fn learns_routing(&self) -> bool {
        let curriculum = &self.curriculum;
        let learns =
            |routing| !matches!(routing, FixedRouting::Uniform | FixedRouting::Random | FixedRouting::Dense);
        match (curriculum.routing, curriculum.schedule) {
            (RoutingChoice::Uniform | RoutingChoice::Random | RoutingChoice::Dense, _) => false,
            (RoutingChoice::Curriculum, Schedule::Constant) => learns(curriculum.constant.routing),
            (RoutingChoice::Curriculum, Schedule::Phases) => {
                [curriculum.warmup.routing, curriculum.fine_tune.routing].into_iter().any(learns)
            }
            _ => true,
        }
    }

    /// Whether some phase asks for one expert.
    pub(crate) fn routes_densely(&self) -> bool {
        let curriculum = &self.curriculum;
        match (curriculum.routing, curriculum.schedule) {
            (RoutingChoice::Dense, _) => true,
            (RoutingChoice::Curriculum, Schedule::Constant) => {
                curriculum.constant.routing == FixedRouting::Dense
            }
            (RoutingChoice::Curriculum, Schedule::Phases) => {
                [curriculum.warmup.routing, curriculum.fine_tune.routing].contains(&FixedRouting::Dense)
            }
            _ => false,
        }
    }
}
