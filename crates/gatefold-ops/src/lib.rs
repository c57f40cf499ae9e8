//! Tensor operations with a plain composition and a fused CPU kernel each.
//!
//! Every operation exists twice: in [`composed`] as a few Burn tensor operations, generic over the
//! backend (the oracle of the tests, and the path on a GPU), and as one fused `f32` kernel with its
//! own backward pass for `Flex` and `Autodiff<Flex>`. The functions at the root of this crate pick
//! by backend and element type: `f64` tensors on Flex take the composition.
//!
//! The fused kernels are deterministic: every output element has the same bits wherever its row
//! stands in the batch, however many rows there are and however many threads run. They may differ
//! between SIMD levels; [`simd_level`] says which one this process uses.

mod active_pairs;
mod adamw;
mod all_masked;
mod backend;
mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod edges;
mod embed;
mod entmax15;
mod expert_linear;
mod finite;
mod flat_mlp;
mod flat_ppo;
mod gat;
mod gat_layer;
mod gat_rows;
mod gat_scoring;
mod gat_table;
mod gather_rows;
mod gatv2;
pub mod init;
mod linear;
mod masked_softmax;
mod mix;
mod mlp;
mod norm_relu;
mod one_graph;
mod packed;
mod ppo_loss;
pub mod probe;
mod softmax;
mod sparsemax;

pub use active_pairs::ActivePairs;
pub use adamw::{
    AdamwStep, PendingStep, adamw_in_place, adamw_leaf, adamw_step, squared_norm, squared_norms,
    squared_norms_of_parts,
};
pub use all_masked::AllMasked;
pub use backend::{OpsAutodiffBackend, OpsBackend};
pub use cpu::{beside, map_tasks, simd_level};
pub use edges::{GatEdges, GatEdgesError};
pub use embed::{embed_nodes, embed_rows};
pub use entmax15::entmax15;
pub use expert_linear::expert_linear;
pub use finite::first_non_finite;
pub use flat_mlp::{FlatGradient, FlatMlp, flat_mlp, flat_mlp_column};
pub use flat_ppo::{Evaluated, Network, PpoData, PpoRows, flat_ppo_loss};
pub use gat::gat_attention;
pub use gat_layer::{GatHeads, gat_layer, gat_layer_each, gat_layer_rows};
pub use gat_rows::GatRows;
pub use gat_scoring::GatScoring;
pub use gather_rows::gather_rows;
pub use gatv2::gatv2_attention;
pub use linear::{Activation, linear};
pub use masked_softmax::{log_softmax_rows, masked_log_softmax};
pub use mix::{mix, mix_rows};
pub use mlp::{MlpLayer, mlp};
pub use norm_relu::norm_relu;
pub use one_graph::in_one_graph;
pub use packed::{pack, packed_expert_linear, packed_mix};
pub use ppo_loss::{PpoBatch, PpoLossConfig, ppo_loss, ppo_stats};
pub use softmax::softmax;
pub use sparsemax::sparsemax;

/// The plain compositions, by the name of the operation they define.
pub mod composed {
    pub use crate::adamw::{composed_norm as squared_norm, composed_step as adamw_step};
    pub use crate::all_masked::composed as all_masked_row;
    pub use crate::embed::{composed as embed_nodes, composed_rows as embed_rows};
    pub use crate::entmax15::composed as entmax15;
    pub use crate::expert_linear::composed as expert_linear;
    pub use crate::finite::composed as first_non_finite;
    pub use crate::flat_mlp::{composed as flat_mlp, composed_column as flat_mlp_column};
    pub use crate::flat_ppo::composed as flat_ppo_loss;
    pub use crate::gat::composed as gat_attention;
    pub use crate::gat_layer::{composed as gat_layer, composed_each as gat_layer_each};
    pub use crate::gather_rows::composed as gather_rows;
    pub use crate::gatv2::composed as gatv2_attention;
    pub use crate::linear::composed as linear;
    pub use crate::mix::{composed as mix, composed_rows as mix_rows};
    pub use crate::mlp::composed as mlp;
    pub use crate::norm_relu::composed as norm_relu;
    pub use crate::packed::{
        composed_linear as packed_expert_linear, composed_mix as packed_mix, composed_pack as pack,
    };
    pub use crate::ppo_loss::composed as ppo_loss;
    pub use crate::sparsemax::composed as sparsemax;
}
