//! A batch of observations as tensors.

use burn::tensor::{Bool, Tensor, TensorData, backend::Backend};
use gatefold_env::{EnvSpec, ObservationBatch};

/// A batch of observations on a device.
#[derive(Debug, Clone)]
pub struct Observation<B: Backend> {
    /// Observation vectors `[B, F]`, scaled if the policy asks for it.
    pub features: Tensor<B, 2>,
    /// Node activations `[B, V]`, if the environment has a graph.
    pub activations: Option<Tensor<B, 2>>,
    /// Features of the graph's nodes `[B, V, G]`, if they have any.
    pub node_features: Option<Tensor<B, 3>>,
    /// Allowed actions `[B, A]`, if the environment masks actions.
    pub mask: Option<Tensor<B, 2, Bool>>,
}

impl<B: Backend> Observation<B> {
    /// Moves observations of `spec` from the host to `device`.
    ///
    /// The mask is read only if the spec is masked.
    pub fn new(spec: &EnvSpec, batch: ObservationBatch, device: &B::Device) -> Self {
        let (rows, nodes) = (batch.rows(), spec.num_nodes());
        let matrix = |values, width| Tensor::from_data(TensorData::new(values, [rows, width]), device);
        Self {
            features: matrix(batch.features, spec.num_features),
            activations: spec.graph.is_some().then(|| matrix(batch.activations, nodes)),
            node_features: (spec.node_features > 0).then(|| {
                let shape = [rows, nodes, spec.node_features];
                Tensor::from_data(TensorData::new(batch.node_features, shape), device)
            }),
            mask: spec.masked.then(|| {
                let mask = TensorData::new(batch.mask, [rows, spec.num_actions()]);
                Tensor::from_data(mask, device)
            }),
        }
    }
}
