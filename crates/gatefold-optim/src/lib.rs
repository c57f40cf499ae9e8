//! Optimizers and global-norm clipping.
