//! Every fused kernel against its composition, values and gradients, and what must hold besides.

mod adamw;
mod embed;
mod entmax15;
mod experts;
mod gat;
mod gat_layer;
mod gather_rows;
mod gatv2;
mod linear;
mod mlp;
mod norm_relu;
mod one_graph;
mod packed;
mod ppo_loss;
mod sparsemax;
mod support;
