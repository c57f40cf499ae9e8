//! Tensor operations with a plain composition and a fused CPU kernel each.
