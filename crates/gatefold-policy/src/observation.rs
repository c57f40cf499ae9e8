//! A batch of observations as tensors.

use burn::tensor::{Bool, Tensor, TensorData, backend::Backend};
use gatefold_env::EnvSpec;

/// A batch of observations on a device.
#[derive(Debug, Clone)]
pub struct Observation<B: Backend> {
    /// Observation vectors `[B, F]`, scaled if the policy asks for it.
    pub features: Tensor<B, 2>,
    /// Node activations `[B, V]`, if the environment has a graph.
    pub activations: Option<Tensor<B, 2>>,
    /// Allowed actions `[B, A]`, if the environment masks actions.
    pub mask: Option<Tensor<B, 2, Bool>>,
}

impl<B: Backend> Observation<B> {
    /// Takes over row-major host buffers of `rows` observations of `spec`.
    ///
    /// `mask` is read only if the spec is masked, `activations` only if it has a graph.
    pub fn from_rows(
        spec: &EnvSpec,
        rows: usize,
        features: Vec<f32>,
        activations: Vec<f32>,
        mask: &[bool],
        device: &B::Device,
    ) -> Self {
        let matrix = |values, width| Tensor::from_data(TensorData::new(values, [rows, width]), device);
        Self {
            features: matrix(features, spec.num_features),
            activations: spec.graph.as_ref().map(|graph| matrix(activations, graph.num_nodes())),
            mask: spec.masked.then(|| {
                let mask = TensorData::new(mask.to_vec(), [rows, spec.num_actions()]);
                Tensor::from_data(mask, device)
            }),
        }
    }
}
