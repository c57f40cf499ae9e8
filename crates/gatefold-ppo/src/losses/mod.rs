//! Auxiliary losses, on the same forward pass as the PPO loss.
//!
//! Every loss is a pure function of tensors to a scalar `[1]`, without coefficient and sign. Beside
//! it stands what a report wants to know about it, in host numbers: those functions read back from
//! the device, so call them as often as you report, not per minibatch.
//!
//! | loss | acts on | reads |
//! |---|---|---|
//! | [`load_balance_mse`], [`load_balance_switch`], [`importance`] | the use of experts | `softmax(z / tau)` |
//! | [`router_z`] | the size of router logits | z |
//! | [`gate_entropy`] | how many experts share a row | gates |
//! | [`diversity`], and [`ExpertCosines`] for it, semantic orthogonality and overlap | how alike experts are | expert logits, gates |
//! | [`alignment`] | whether routing follows the graph's operators | z, operator scores |
//! | [`temporal`], [`pet`] | how fast gates or encodings move in time | gates, `h_obs` |
//! | [`next_operator`] | what `h_graph` knows of the next step | its head's logits, activations |
//! | [`attention_gini_loss`] | how sharp graph attention is | attention weights |
//!
//! Losses over time need minibatches of whole segments: [`adjacent_pairs`] and [`adjacent_triples`]
//! say which rows follow each other. Balance without a loss is [`update_selection_bias`].

mod alignment;
mod attention_gini;
mod balance;
mod expert_cosines;
mod gate_entropy;
mod next_operator;
mod pet;
mod router_z;
mod segments;
mod selection_bias;
mod temporal;

pub use alignment::{AlignmentStatistics, ExpertOperators, alignment, alignment_statistics};
pub use attention_gini::{attention_gini, attention_gini_loss};
pub use balance::{BalanceStatistics, balance_statistics, importance, load_balance_mse, load_balance_switch};
pub use expert_cosines::{CosineStatistics, ExpertCosines, diversity};
pub use gate_entropy::{gate_entropy, mean_support};
pub use next_operator::{NextOperatorStatistics, next_operator, next_operator_statistics};
pub use pet::{largest_second_difference, pet};
pub use router_z::{largest_logsumexp, router_z};
pub use segments::{SegmentRow, adjacent_pairs, adjacent_triples};
pub use selection_bias::{SELECTION_BIAS_STEP, update_selection_bias};
pub use temporal::{expert_switches, temporal};

#[cfg(test)]
mod probe;
