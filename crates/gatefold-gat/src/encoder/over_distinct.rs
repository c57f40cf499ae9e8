//! The encoder over the distinct rows of a batch, with the bits of the encoder over all rows.

// B batch, V graph nodes, R distinct rows of a layer, T readout rows, G features of a node, D hidden

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use gatefold_ops::{GatRows, OpsBackend, embed_rows, gather_rows, mix_rows, probe, softmax};

use super::{GraphEncoder, GraphEncoding, Readout};
use crate::distinct::{DistinctRows, NodeInputs};

impl<B: OpsBackend> GraphEncoder<B> {
    /// The distinct rows of activations `[B, V]` and features `[B, V, G]`; `None` where all rows are to be
    /// computed: where there are too many distinct ones, on backends that would have to fetch the
    /// activations, and where a probe has to see every row.
    pub(super) fn distinct_rows(
        &self,
        activations: &Tensor<B, 2>,
        features: Option<&Tensor<B, 3>>,
    ) -> Option<DistinctRows> {
        if probe::is_installed() {
            return None;
        }
        let [_, nodes] = activations.dims();
        let topology = &self.topology;
        let found = B::on_host(activations, |activations| {
            let of =
                |features: &[f32]| DistinctRows::of(topology, &NodeInputs { nodes, activations, features });
            match features {
                None => of(&[]),
                Some(features) => B::on_host(features, of).flatten(),
            }
        });
        found.flatten()
    }

    /// The encoding of `batch` states by their distinct rows.
    pub(super) fn forward_distinct(
        &self,
        batch: usize,
        rows: DistinctRows,
        device: &B::Device,
    ) -> GraphEncoding<B> {
        let DistinctRows { rows, inputs, layers, readout } = rows;
        let computed = layers.iter().flatten().map(|edges| edges.num_targets()).sum::<usize>() + rows.len();
        let (count, rows) = (rows.len(), Arc::<[u32]>::from(rows));
        let numbers = inputs.len() / count;
        let inputs = Tensor::<B, 2>::from_data(TensorData::new(inputs, [count, numbers]), device);
        let (base, directions) = (self.input_base(device), self.input_directions()); // [S, D], [1 + G, D]
        let embedded = |base: Tensor<B, 2>, directions: Tensor<B, 2>| {
            let [_, width] = directions.dims();
            embed_rows(base, &rows, inputs.clone(), directions).reshape([1, count, width])
        };
        let first = &self.layers[0];
        let mut x = embedded(base.clone(), directions.clone()); // [1, R, D]
        let mut projected = Some(embedded(first.project(base), first.project(directions)));
        for (layer, graphs) in self.layers.iter().zip(&layers) {
            let rows = match projected.take() {
                Some(h) => GatRows::Projected { x, h },
                None => layer.rows(x),
            };
            x = layer.attend_each(rows, graphs);
        }
        let [_, count, hidden] = x.dims();
        let x = x.reshape([count, hidden]); // [R, D]
        let (readout, targets) = (Arc::<[u32]>::from(readout), self.topology.readout_nodes.len());
        let scores = gather_rows(self.readout_scores(x.clone()), &readout).reshape([batch, targets]); // [B, T]
        let graph = mix_rows(softmax(scores.clone()), x.clone(), &readout); // [B, D]
        let readout = Readout { rows: x, picked: Some(readout), shape: [batch, targets] };
        let (attention, attended, nodes) = (Vec::new(), Vec::new(), Vec::new());
        GraphEncoding { graph, scores, readout, attention, attended, nodes, distinct: Some(computed) }
    }
}
