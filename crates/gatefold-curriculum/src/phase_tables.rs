//! The numbers of each phase, one table per phase so that each has its own defaults.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plan::{Coefficients, Routing};
use crate::validation::{COEFFICIENT, CurriculumError, RATE, TEMPERATURE, UNIT_INTERVAL, in_range};

/// Whether the loss raises or lowers the entropy of the gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EntropySign {
    /// Raise it: spread each decision over the experts.
    Maximise,
    /// Lower it: let each decision settle on few experts.
    Minimise,
}

impl EntropySign {
    fn apply(self, coefficient: f64) -> f64 {
        match self {
            Self::Maximise => coefficient,
            Self::Minimise => -coefficient,
        }
    }
}

/// A routing that does not move within its phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FixedRouting {
    /// Every expert has a positive gate.
    Softmax,
    /// Most gates are exactly 0.
    Sparsemax,
    /// Sparse like sparsemax, smoother at its edge.
    Entmax15,
    /// The `curriculum.top_k` experts with the largest scores.
    TopK,
    /// One expert by scores plus Gumbel noise, learned straight-through.
    Gumbel,
    /// Every gate 1/K, whatever the router says.
    Uniform,
    /// One expert drawn at random for each decision, whatever the router says.
    Random,
    /// One expert, no router.
    Dense,
}

impl FixedRouting {
    /// The routing of that name; `top_k` is the number of experts that `top-k` keeps.
    pub fn routing(self, top_k: usize) -> Routing {
        match self {
            Self::Softmax => Routing::Softmax,
            Self::Sparsemax => Routing::Sparsemax,
            Self::Entmax15 => Routing::Entmax15,
            Self::TopK => Routing::TopK { k: top_k },
            Self::Gumbel => Routing::Gumbel,
            Self::Uniform => Routing::Uniform,
            Self::Random => Routing::Random,
            Self::Dense => Routing::Dense,
        }
    }
}

/// One phase's numbers at one moment: what a table says before scaling, decay and held routing.
pub(crate) struct Settings {
    pub(crate) lr: f64,
    pub(crate) coefficients: Coefficients,
    pub(crate) temperature: f64,
    pub(crate) routing: Routing,
}

/// Declares the table of a phase in which nothing moves: same keys, own defaults.
macro_rules! phase_table {
    ($(#[$about:meta])* $name:ident in $table:literal { $($key:ident: $default:expr,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            /// Learning rate of the phase, per optimizer step, before lr_scale, warmup and decay.
            /// Range 0 to 1.
            #[schemars(range(min = 0.0, max = 1.0))]
            pub lr: f64,
            /// Coefficient of the action entropy bonus, dimensionless. Range 0 to 10.
            #[schemars(range(min = 0.0, max = 10.0))]
            pub entropy: f64,
            /// Coefficient of the entropy of the gates, dimensionless; its direction is
            /// gate_entropy_sign. Range 0 to 10.
            #[schemars(range(min = 0.0, max = 10.0))]
            pub gate_entropy: f64,
            /// Whether the loss maximises or minimises the entropy of the gates.
            pub gate_entropy_sign: EntropySign,
            /// Coefficient of the load-balance loss, dimensionless. Range 0 to 10.
            #[schemars(range(min = 0.0, max = 10.0))]
            pub load_balance: f64,
            /// Coefficient of the diversity loss, dimensionless. Range 0 to 10.
            #[schemars(range(min = 0.0, max = 10.0))]
            pub diversity: f64,
            /// Divisor of the router's logits, dimensionless. Range 0.01 to 100.
            #[schemars(range(min = 0.01, max = 100.0))]
            pub temperature: f64,
            /// Routing of the phase, unless `curriculum.routing` holds one for the whole run.
            pub routing: FixedRouting,
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default),* }
            }
        }

        impl $name {
            pub(crate) fn settings(&self, top_k: usize) -> Settings {
                Settings {
                    lr: self.lr,
                    coefficients: Coefficients {
                        entropy: self.entropy as f32,
                        load_balance: self.load_balance as f32,
                        diversity: self.diversity as f32,
                        gate_entropy: self.gate_entropy_sign.apply(self.gate_entropy) as f32,
                    },
                    temperature: self.temperature,
                    routing: self.routing.routing(top_k),
                }
            }

            pub(crate) fn validate(&self) -> Result<(), CurriculumError> {
                in_range($table, "lr", self.lr, RATE)?;
                in_range($table, "entropy", self.entropy, COEFFICIENT)?;
                in_range($table, "gate_entropy", self.gate_entropy, COEFFICIENT)?;
                in_range($table, "load_balance", self.load_balance, COEFFICIENT)?;
                in_range($table, "diversity", self.diversity, COEFFICIENT)?;
                in_range($table, "temperature", self.temperature, TEMPERATURE)
            }
        }
    };
}

phase_table! {
    /// The first phase: every expert acts and learns.
    WarmupConfig in "curriculum.warmup" {
        lr: 1e-4,
        entropy: 0.05,
        gate_entropy: 0.1,
        gate_entropy_sign: EntropySign::Maximise,
        load_balance: 0.02,
        diversity: 0.01,
        temperature: 1.0,
        routing: FixedRouting::Softmax,
    }
}

phase_table! {
    /// The last phase: sparse routing, small steps.
    FineTuneConfig in "curriculum.fine_tune" {
        lr: 1e-5,
        entropy: 0.01,
        gate_entropy: 0.05,
        gate_entropy_sign: EntropySign::Minimise,
        load_balance: 0.005,
        diversity: 0.005,
        temperature: 0.5,
        routing: FixedRouting::Sparsemax,
    }
}

phase_table! {
    /// The whole run of a constant schedule. The defaults suit a dense baseline: no loss of the experts.
    ConstantConfig in "curriculum.constant" {
        lr: 2.5e-4,
        entropy: 0.01,
        gate_entropy: 0.0,
        gate_entropy_sign: EntropySign::Maximise,
        load_balance: 0.0,
        diversity: 0.0,
        temperature: 1.0,
        routing: FixedRouting::Softmax,
    }
}

/// The middle phase: what differs between its ends moves linearly in the phase's own progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TransitionConfig {
    /// Learning rate of the phase, per optimizer step, before lr_scale, warmup and decay.
    /// Range 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub lr: f64,
    /// Coefficient of the action entropy bonus, dimensionless. Range 0 to 10.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub entropy: f64,
    /// Coefficient of the entropy of the gates at the phase's start, dimensionless. Range 0 to 10.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub gate_entropy_start: f64,
    /// Coefficient of the entropy of the gates at the phase's end, dimensionless. Range 0 to 10.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub gate_entropy_end: f64,
    /// Whether the loss maximises or minimises the entropy of the gates.
    pub gate_entropy_sign: EntropySign,
    /// Coefficient of the load-balance loss, dimensionless. Range 0 to 10.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub load_balance: f64,
    /// Coefficient of the diversity loss, dimensionless. Range 0 to 10.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub diversity: f64,
    /// Divisor of the router's logits at the phase's start, dimensionless. Range 0.01 to 100.
    #[schemars(range(min = 0.01, max = 100.0))]
    pub temperature_start: f64,
    /// Divisor of the router's logits at the phase's end, dimensionless. Range 0.01 to 100.
    #[schemars(range(min = 0.01, max = 100.0))]
    pub temperature_end: f64,
    /// Weight of sparsemax against softmax at the phase's start, dimensionless. Range 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub blend_start: f64,
    /// Weight of sparsemax against softmax at the phase's end, dimensionless. Range 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub blend_end: f64,
}

impl Default for TransitionConfig {
    fn default() -> Self {
        Self {
            lr: 5e-5,
            entropy: 0.02,
            gate_entropy_start: 0.1,
            gate_entropy_end: 0.0,
            gate_entropy_sign: EntropySign::Maximise,
            load_balance: 0.01,
            diversity: 0.01,
            temperature_start: 1.0,
            temperature_end: 0.5,
            blend_start: 0.0,
            blend_end: 1.0,
        }
    }
}

impl TransitionConfig {
    /// The numbers at `fraction` (0 to 1) of the phase.
    pub(crate) fn settings(&self, fraction: f64) -> Settings {
        let between = |start: f64, end: f64| (1.0 - fraction) * start + fraction * end;
        let gate_entropy = between(self.gate_entropy_start, self.gate_entropy_end);
        Settings {
            lr: self.lr,
            coefficients: Coefficients {
                entropy: self.entropy as f32,
                load_balance: self.load_balance as f32,
                diversity: self.diversity as f32,
                gate_entropy: self.gate_entropy_sign.apply(gate_entropy) as f32,
            },
            temperature: between(self.temperature_start, self.temperature_end),
            routing: Routing::Blend { weight: between(self.blend_start, self.blend_end) as f32 },
        }
    }

    pub(crate) fn validate(&self) -> Result<(), CurriculumError> {
        let table = "curriculum.transition";
        in_range(table, "lr", self.lr, RATE)?;
        in_range(table, "entropy", self.entropy, COEFFICIENT)?;
        in_range(table, "gate_entropy_start", self.gate_entropy_start, COEFFICIENT)?;
        in_range(table, "gate_entropy_end", self.gate_entropy_end, COEFFICIENT)?;
        in_range(table, "load_balance", self.load_balance, COEFFICIENT)?;
        in_range(table, "diversity", self.diversity, COEFFICIENT)?;
        in_range(table, "temperature_start", self.temperature_start, TEMPERATURE)?;
        in_range(table, "temperature_end", self.temperature_end, TEMPERATURE)?;
        in_range(table, "blend_start", self.blend_start, UNIT_INTERVAL)?;
        in_range(table, "blend_end", self.blend_end, UNIT_INTERVAL)
    }
}
