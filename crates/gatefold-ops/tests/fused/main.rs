//! Every fused kernel against its composition, values and gradients, and what must hold besides.

mod linear;
mod support;
