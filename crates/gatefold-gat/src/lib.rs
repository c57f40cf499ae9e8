//! Graph attention layers, encoder and readout.
