//! The backend trait that carries our operations: composed by default, fused on Flex.

use std::sync::Arc;

use burn::tensor::{
    Tensor,
    backend::{AutodiffBackend, Backend},
    ops::FloatTensor,
};

use crate::adamw::{composed_in_place, norms_of_parts, norms_one_by_one};
use crate::{
    Activation, ActivePairs, AdamwStep, Evaluated, FlatMlp, GatEdges, GatHeads, GatRows, GatScoring,
    MlpLayer, Network, PpoBatch, PpoData, PpoLossConfig, PpoRows, composed,
};

/// A Burn backend with this crate's operations.
///
/// Every method has the composition as its default, so a new backend needs only an empty `impl`.
/// Call the functions at the crate root; they are documented there.
pub trait OpsBackend: Backend {
    /// Whether tensors are in the host's memory, so that several threads may compute with tensors of their own
    /// beside each other.
    const ON_HOST: bool = false;

    /// See [`crate::linear`].
    fn linear_act(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        bias: Tensor<Self, 1>,
        act: Activation,
    ) -> Tensor<Self, 2> {
        composed::linear(x, weight, bias, act)
    }

    /// See [`crate::mlp`].
    fn mlp(x: Tensor<Self, 2>, layers: Vec<MlpLayer<Self>>) -> Tensor<Self, 2> {
        composed::mlp(x, layers)
    }

    /// See [`crate::flat_mlp`].
    fn flat_mlp(x: Tensor<Self, 2>, parameters: Tensor<Self, 1>, mlp: &FlatMlp) -> Tensor<Self, 2> {
        composed::flat_mlp(x, parameters, mlp)
    }

    /// See [`crate::flat_mlp_column`].
    fn flat_mlp_column(x: Tensor<Self, 2>, parameters: Tensor<Self, 1>, mlp: &FlatMlp) -> Tensor<Self, 1> {
        composed::flat_mlp_column(x, parameters, mlp)
    }

    /// See [`crate::adamw_in_place`].
    fn adamw_in_place(
        param: &mut FloatTensor<Self>,
        grad: FloatTensor<Self>,
        moments: [&mut FloatTensor<Self>; 2],
        step: &AdamwStep,
    ) {
        composed_in_place::<Self>(param, grad, moments, step);
    }

    /// See [`crate::squared_norm`].
    fn squared_norm<const D: usize>(g: Tensor<Self, D>) -> Tensor<Self, 1> {
        composed::squared_norm(g)
    }

    /// See [`crate::squared_norms`].
    fn squared_norms(tensors: &[FloatTensor<Self>]) -> Vec<f64> {
        norms_one_by_one::<Self>(tensors)
    }

    /// See [`crate::squared_norms_of_parts`].
    fn squared_norms_of_parts(tensor: &FloatTensor<Self>, sizes: &[usize]) -> Vec<f64> {
        norms_of_parts::<Self>(tensor, sizes)
    }

    /// See [`crate::ppo_loss`].
    fn ppo_loss(
        logits: Tensor<Self, 2>,
        values: Tensor<Self, 1>,
        batch: PpoBatch<Self>,
        config: &PpoLossConfig,
    ) -> (Tensor<Self, 1>, Tensor<Self, 1>) {
        composed::ppo_loss(logits, values, batch, config)
    }

    /// See [`crate::gat_attention`].
    fn gat_attention(
        h: Tensor<Self, 3>,
        a_src: Tensor<Self, 2>,
        a_dst: Tensor<Self, 2>,
        relation_bias: Tensor<Self, 2>,
        edges: &GatEdges,
        slope: f32,
    ) -> (Tensor<Self, 3>, Tensor<Self, 3>) {
        composed::gat_attention(h, a_src, a_dst, relation_bias, edges, slope)
    }

    /// See [`crate::gatv2_attention`].
    fn gatv2_attention(
        h: Tensor<Self, 3>,
        a: Tensor<Self, 2>,
        relation_bias: Tensor<Self, 2>,
        edges: &GatEdges,
        slope: f32,
    ) -> (Tensor<Self, 3>, Tensor<Self, 3>) {
        composed::gatv2_attention(h, a, relation_bias, edges, slope)
    }

    /// See [`crate::gat_layer`]; the attention may be left out unless `traced`.
    fn gat_layer(
        rows: GatRows<Self>,
        scoring: GatScoring<Self>,
        heads: GatHeads,
        norm: [Tensor<Self, 1>; 2],
        edges: &GatEdges,
        slope: f32,
        _traced: bool,
    ) -> (Tensor<Self, 3>, Option<Tensor<Self, 3>>) {
        let (out, attention) = composed::gat_layer(rows, scoring, heads, norm, edges, slope);
        (out, Some(attention))
    }

    /// See [`crate::gat_layer_each`].
    fn gat_layer_each(
        rows: GatRows<Self>,
        scoring: GatScoring<Self>,
        heads: GatHeads,
        norm: [Tensor<Self, 1>; 2],
        graphs: &[GatEdges],
        slope: f32,
    ) -> Tensor<Self, 3> {
        composed::gat_layer_each(rows, scoring, heads, norm, graphs, slope)
    }

    /// See [`crate::gather_rows`].
    fn gather_rows(x: Tensor<Self, 2>, rows: &Arc<[u32]>) -> Tensor<Self, 2> {
        composed::gather_rows(x, rows)
    }

    /// Hands `read` the row-major numbers of a tensor that are `f32` on the host anyway; `None` on a
    /// backend where they would have to be fetched.
    fn on_host<const D: usize, R>(_: &Tensor<Self, D>, _read: impl FnOnce(&[f32]) -> R) -> Option<R> {
        None
    }

    /// See [`crate::norm_relu`].
    fn norm_relu(
        x: Tensor<Self, 2>,
        gamma: Tensor<Self, 1>,
        beta: Tensor<Self, 1>,
        residual: Option<Tensor<Self, 2>>,
    ) -> Tensor<Self, 2> {
        composed::norm_relu(x, gamma, beta, residual)
    }

    /// See [`crate::embed_nodes`].
    fn embed_nodes(
        base: Tensor<Self, 2>,
        inputs: Tensor<Self, 3>,
        directions: Tensor<Self, 2>,
    ) -> Tensor<Self, 3> {
        composed::embed_nodes(base, inputs, directions)
    }

    /// See [`crate::embed_rows`].
    fn embed_rows(
        base: Tensor<Self, 2>,
        rows: &Arc<[u32]>,
        inputs: Tensor<Self, 2>,
        directions: Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        composed::embed_rows(base, rows, inputs, directions)
    }

    /// See [`crate::mix_rows`].
    fn mix_rows(weights: Tensor<Self, 2>, items: Tensor<Self, 2>, rows: &Arc<[u32]>) -> Tensor<Self, 2> {
        composed::mix_rows(weights, items, rows)
    }

    /// See [`crate::mix`].
    fn mix(weights: Tensor<Self, 2>, items: Tensor<Self, 3>) -> Tensor<Self, 2> {
        composed::mix(weights, items)
    }

    /// See [`crate::pack`].
    fn pack(x: Tensor<Self, 2>, pairs: &ActivePairs) -> Tensor<Self, 2> {
        composed::pack(x, pairs)
    }

    /// See [`crate::packed_expert_linear`].
    fn packed_expert_linear(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 3>,
        bias: Tensor<Self, 2>,
        act: Activation,
        pairs: &ActivePairs,
    ) -> Tensor<Self, 2> {
        composed::packed_expert_linear(x, weight, bias, act, pairs)
    }

    /// See [`crate::packed_mix`].
    fn packed_mix(weights: Tensor<Self, 2>, items: Tensor<Self, 2>, pairs: &ActivePairs) -> Tensor<Self, 2> {
        composed::packed_mix(weights, items, pairs)
    }

    /// See [`crate::expert_linear`].
    fn expert_linear(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 3>,
        bias: Tensor<Self, 2>,
        act: Activation,
    ) -> Tensor<Self, 3> {
        composed::expert_linear(x, weight, bias, act)
    }

    /// See [`crate::first_non_finite`].
    fn first_non_finite<const D: usize>(t: &Tensor<Self, D>) -> Option<f32> {
        composed::first_non_finite(t)
    }

    /// The first row of `z` `[rows, K]` with nothing but `-inf`.
    fn all_masked_row(z: &Tensor<Self, 2>) -> Option<usize> {
        composed::all_masked_row(z)
    }

    /// See [`crate::entmax15`]; a row of only `-inf` is NaN.
    fn entmax15(z: Tensor<Self, 2>, temperature: f32) -> Tensor<Self, 2> {
        composed::entmax15(z, temperature)
    }

    /// See [`crate::sparsemax`]; a row of only `-inf` is NaN.
    fn sparsemax(z: Tensor<Self, 2>, temperature: f32) -> Tensor<Self, 2> {
        composed::sparsemax(z, temperature)
    }
}

/// An autodiff backend whose inner backend has the operations too: what training needs.
///
/// A new backend needs only an empty `impl`.
pub trait OpsAutodiffBackend: AutodiffBackend<InnerBackend: OpsBackend> + OpsBackend {
    /// See [`crate::in_one_graph`].
    fn in_one_graph(_tensors: &[FloatTensor<Self>]) {}

    /// See [`crate::flat_ppo_loss`].
    fn flat_ppo_loss(
        data: &PpoData<Self::InnerBackend>,
        minibatch: &PpoRows<'_>,
        networks: [Network<'_, Self::InnerBackend>; 2],
        config: &PpoLossConfig,
    ) -> Evaluated<Self::InnerBackend> {
        composed::flat_ppo_loss::<Self>(data, minibatch, networks, config)
    }
}
