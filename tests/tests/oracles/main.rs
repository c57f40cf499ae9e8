//! Every numeric part against another library's output; the scripts are in `oracles/`.

mod adamw;
mod auxiliary_losses;
mod gae;
mod gat;
mod gatv2;
mod ppo_loss;
mod reward_scaling;
mod simplex;
