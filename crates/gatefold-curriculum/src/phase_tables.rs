//! The numbers of the phases in which nothing moves, one table per phase so that each has its own
//! defaults.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plan::{Coefficients, Routing};
use crate::routing_choice::FixedRouting;
use crate::validation::{COEFFICIENT, CurriculumError, RATE, TEMPERATURE, in_range};

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
    pub(crate) fn apply(self, coefficient: f64) -> f64 {
        match self {
            Self::Maximise => coefficient,
            Self::Minimise => -coefficient,
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
    ($(#[$about:meta])* $name:ident in $table:literal {
        lr: $lr:literal,
        entropy: $entropy:literal,
        gate_entropy: $gate_entropy:literal,
        gate_entropy_sign: $sign_name:literal = $sign:expr,
        load_balance: $load_balance:literal,
        diversity: $diversity:literal,
        alignment: $alignment:literal,
        semantic: $semantic:literal,
        overlap: $overlap:literal,
        temporal: $temporal:literal,
        temperature: $temperature:literal,
        routing: $routing_name:literal = $routing:expr,
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            /// Learning rate of the phase, per optimizer step, before lr_scale, warmup and decay.
            #[doc = concat!("Range 0 to 1. Default ", $lr, ".")]
            #[schemars(range(min = 0.0, max = 1.0))]
            pub lr: f64,
            /// Coefficient of the action entropy bonus, dimensionless; 0 is off.
            #[doc = concat!("Range 0 to 10. Default ", $entropy, ".")]
            #[schemars(range(min = 0.0, max = 10.0))]
            pub entropy: f64,
            /// Coefficient of the entropy of the gates, dimensionless; its direction is
            /// gate_entropy_sign; 0 is off.
            #[doc = concat!("Range 0 to 10. Default ", $gate_entropy, ".")]
            #[schemars(range(min = 0.0, max = 10.0))]
            pub gate_entropy: f64,
            /// Whether the loss maximises or minimises the entropy of the gates, a name.
            #[doc = concat!("Default \"", $sign_name, "\".")]
            pub gate_entropy_sign: EntropySign,
            /// Coefficient of the load-balance loss, dimensionless; 0 is off.
            #[doc = concat!("Range 0 to 10. Default ", $load_balance, ".")]
            #[schemars(range(min = 0.0, max = 10.0))]
            pub load_balance: f64,
            /// Coefficient of the diversity loss, dimensionless; 0 is off.
            #[doc = concat!("Range 0 to 10. Default ", $diversity, ".")]
            #[schemars(range(min = 0.0, max = 10.0))]
            pub diversity: f64,
            /// Coefficient of the alignment of the router with the operators' scores, dimensionless;
            /// 0 is off, and so is a policy without a knowledge graph.
            #[doc = concat!("Range 0 to 10. Default ", $alignment, ".")]
            #[schemars(range(min = 0.0, max = 10.0))]
            pub alignment: f64,
            /// Coefficient of the semantic orthogonality of the experts, dimensionless; 0 is off.
            #[doc = concat!("Range 0 to 10. Default ", $semantic, ".")]
            #[schemars(range(min = 0.0, max = 10.0))]
            pub semantic: f64,
            /// Coefficient of the overlap of experts that act together, dimensionless; 0 is off.
            #[doc = concat!("Range 0 to 10. Default ", $overlap, ".")]
            #[schemars(range(min = 0.0, max = 10.0))]
            pub overlap: f64,
            /// Coefficient of the change of the gates from step to step, dimensionless; 0 is off, above
            /// it minibatches are made of segments of 16 consecutive steps.
            #[doc = concat!("Range 0 to 10. Default ", $temporal, ".")]
            #[schemars(range(min = 0.0, max = 10.0))]
            pub temporal: f64,
            /// Divisor of the router's logits, dimensionless.
            #[doc = concat!("Range 0.01 to 100. Default ", $temperature, ".")]
            #[schemars(range(min = 0.01, max = 100.0))]
            pub temperature: f64,
            /// Routing of the phase, a name; unused where `curriculum.routing` holds one for the whole
            /// run.
            #[doc = concat!("Default \"", $routing_name, "\".")]
            pub routing: FixedRouting,
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    lr: $lr,
                    entropy: $entropy,
                    gate_entropy: $gate_entropy,
                    gate_entropy_sign: $sign,
                    load_balance: $load_balance,
                    diversity: $diversity,
                    alignment: $alignment,
                    semantic: $semantic,
                    overlap: $overlap,
                    temporal: $temporal,
                    temperature: $temperature,
                    routing: $routing,
                }
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
                        alignment: self.alignment as f32,
                        semantic: self.semantic as f32,
                        overlap: self.overlap as f32,
                        temporal: self.temporal as f32,
                        ..Coefficients::default()
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
                in_range($table, "alignment", self.alignment, COEFFICIENT)?;
                in_range($table, "semantic", self.semantic, COEFFICIENT)?;
                in_range($table, "overlap", self.overlap, COEFFICIENT)?;
                in_range($table, "temporal", self.temporal, COEFFICIENT)?;
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
        gate_entropy_sign: "maximise" = EntropySign::Maximise,
        load_balance: 0.02,
        diversity: 0.01,
        alignment: 0.1,
        semantic: 0.05,
        overlap: 0.0,
        temporal: 0.0,
        temperature: 1.0,
        routing: "softmax" = FixedRouting::Softmax,
    }
}

phase_table! {
    /// The last phase: sparse routing, small steps.
    FineTuneConfig in "curriculum.fine_tune" {
        lr: 1e-5,
        entropy: 0.01,
        gate_entropy: 0.05,
        gate_entropy_sign: "minimise" = EntropySign::Minimise,
        load_balance: 0.005,
        diversity: 0.005,
        alignment: 0.1,
        semantic: 0.05,
        overlap: 0.05,
        temporal: 0.02,
        temperature: 0.5,
        routing: "sparsemax" = FixedRouting::Sparsemax,
    }
}

phase_table! {
    /// The whole run of a constant schedule. The defaults suit a dense baseline: no loss of the experts.
    ConstantConfig in "curriculum.constant" {
        lr: 2.5e-4,
        entropy: 0.01,
        gate_entropy: 0.0,
        gate_entropy_sign: "maximise" = EntropySign::Maximise,
        load_balance: 0.0,
        diversity: 0.0,
        alignment: 0.0,
        semantic: 0.0,
        overlap: 0.0,
        temporal: 0.0,
        temperature: 1.0,
        routing: "softmax" = FixedRouting::Softmax,
    }
}
