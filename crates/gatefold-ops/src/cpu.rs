//! The fused CPU kernels, and the backends that use them.

mod adamw;
mod chunks;
mod embed;
mod embed_rows;
mod entmax15;
mod expert_linear;
mod flat;
mod flat_ppo;
mod gat;
mod gat_embedded;
mod gat_four;
mod gat_four_scores;
mod gat_kernel;
mod gat_layer;
mod gat_layer_kernel;
mod gat_parts;
mod gat_scores;
mod gather_rows;
mod gatv2_four_scores;
mod gatv2_scores;
mod kept;
mod lanes;
mod level;
mod linear;
mod math;
mod microkernel;
mod mix;
mod mix_rows;
mod mlp;
mod mlp_kernel;
mod norm_relu;
mod norm_relu_kernel;
mod norm_relu_lanes;
mod one_graph;
mod packed;
mod packed_linear;
mod panels;
mod ppo_loss;
mod prefetch;
mod scratch;
mod sgemm;
mod simplex;
mod sparsemax;
mod sparsemax_few;
mod unset;
mod zeros;

pub use chunks::{beside, map_tasks};
pub use level::simd_level;
pub(crate) use ppo_loss::log_softmax_rows;

use std::sync::Arc;

use burn::{
    backend::{Autodiff, Flex, autodiff::checkpoint::strategy::CheckpointStrategy, flex::FlexTensor},
    tensor::{DType, Tensor, ops::FloatTensor},
};

use crate::adamw::{composed_in_place, norms_of_parts, norms_one_by_one};
use crate::{
    Activation, ActivePairs, AdamwStep, Evaluated, FlatMlp, GatEdges, GatHeads, GatRows, GatScoring,
    MlpLayer, Network, OpsAutodiffBackend, OpsBackend, PpoBatch, PpoData, PpoLossConfig, PpoRows, composed,
};
use flat::{unwrap, wrap};

/// Whether all tensors hold `f32`: the fused kernels know nothing else.
macro_rules! all_f32 {
    ($($t:expr),+) => { $($t.dtype() == DType::F32)&&+ };
}

/// A graph attention layer over graphs of any kind, whatever its rows and scores: new rows and attention.
macro_rules! layer_of_graphs {
    ($entry:ident $(, $checkpoints:ident)?; $rows:ident, $scoring:ident, $heads:ident, $norm:ident, $graphs:ident,
        $slope:ident, $traced:expr) => {{
        let given = gat_layer::Given { heads: $heads, graphs: $graphs, slope: $slope, traced: $traced };
        let norm = $norm.map(unwrap);
        let (out, attention) = match $rows {
            GatRows::Project { x, weight } => {
                let (x, weight) = (unwrap(x), unwrap(weight));
                layer_of_rows!(gat_layer, $entry $(, $checkpoints)?; x, weight; $scoring, norm; true, given)
            }
            GatRows::Projected { x, h } => {
                let (x, h) = (unwrap(x), unwrap(h));
                layer_of_rows!(gat_layer, $entry $(, $checkpoints)?; x, h; $scoring, norm; false, given)
            }
            GatRows::Embedded { inputs, x, h } => {
                let (numbers, [base, directions], [base_h, directions_h]) =
                    (unwrap(inputs), x.map(unwrap), h.map(unwrap));
                layer_of_rows!(
                    gat_embedded, $entry $(, $checkpoints)?; base, directions, base_h, directions_h;
                    $scoring, norm; numbers, given
                )
            }
        };
        (wrap(out), attention.map(wrap))
    }};
}

/// A graph attention layer over rows of one kind, by the tensors that its rows, its scores and its norm take.
macro_rules! layer_of_rows {
    ($module:ident, $entry:ident $(, $checkpoints:ident)?; $($rows:ident),+; $scoring:ident, $norm:ident;
        $($more:expr),+) => {{
        let [gain, bias] = $norm;
        match $scoring {
            GatScoring::Gat { source, target, relation_bias } => {
                let [source, target, relation_bias] = [source, target, relation_bias].map(unwrap);
                let inputs = [$($rows),+, source, target, relation_bias, gain, bias];
                $module::$entry$(::<$checkpoints, _>)?(inputs, $($more),+)
            }
            GatScoring::Gatv2 { weight, relation_bias } => {
                let inputs = [$($rows),+, unwrap(weight), unwrap(relation_bias), gain, bias];
                $module::$entry$(::<$checkpoints, _>)?(inputs, $($more),+)
            }
        }
    }};
}

/// The methods that differ only in which entry of the kernel's module they call.
macro_rules! fused_operations {
    ($entry:ident, $flat:ident, $pack:ident, $packed_mix:ident $(, $checkpoints:ident)?) => {
        fn linear_act(
            x: Tensor<Self, 2>,
            weight: Tensor<Self, 2>,
            bias: Tensor<Self, 1>,
            act: Activation,
        ) -> Tensor<Self, 2> {
            if !all_f32!(x, weight, bias) {
                return composed::linear(x, weight, bias, act);
            }
            wrap(linear::$entry$(::<$checkpoints>)?(unwrap(x), unwrap(weight), unwrap(bias), act))
        }

        fn mlp(x: Tensor<Self, 2>, layers: Vec<MlpLayer<Self>>) -> Tensor<Self, 2> {
            if !(all_f32!(x) && layers.iter().all(|layer| all_f32!(layer.weight, layer.bias))) {
                return composed::mlp(x, layers);
            }
            wrap(mlp::$entry$(::<$checkpoints>)?(unwrap(x), layers))
        }

        fn flat_mlp(x: Tensor<Self, 2>, parameters: Tensor<Self, 1>, mlp: &FlatMlp) -> Tensor<Self, 2> {
            if !all_f32!(x, parameters) {
                return composed::flat_mlp(x, parameters, mlp);
            }
            wrap(mlp::$flat$(::<$checkpoints>)?(unwrap(x), unwrap(parameters), mlp, false))
        }

        fn flat_mlp_column(
            x: Tensor<Self, 2>,
            parameters: Tensor<Self, 1>,
            mlp: &FlatMlp,
        ) -> Tensor<Self, 1> {
            if !all_f32!(x, parameters) {
                return composed::flat_mlp_column(x, parameters, mlp);
            }
            wrap(mlp::$flat$(::<$checkpoints>)?(unwrap(x), unwrap(parameters), mlp, true))
        }

        fn embed_nodes(
            base: Tensor<Self, 2>,
            inputs: Tensor<Self, 3>,
            directions: Tensor<Self, 2>,
        ) -> Tensor<Self, 3> {
            if !all_f32!(base, inputs, directions) {
                return composed::embed_nodes(base, inputs, directions);
            }
            wrap(embed::$entry$(::<$checkpoints>)?(unwrap(base), unwrap(inputs), unwrap(directions)))
        }

        fn embed_rows(
            base: Tensor<Self, 2>,
            rows: &Arc<[u32]>,
            inputs: Tensor<Self, 2>,
            directions: Tensor<Self, 2>,
        ) -> Tensor<Self, 2> {
            if !all_f32!(base, inputs, directions) {
                return composed::embed_rows(base, rows, inputs, directions);
            }
            let (base, inputs) = (unwrap(base), unwrap(inputs));
            wrap(embed_rows::$entry$(::<$checkpoints>)?(base, rows, inputs, unwrap(directions)))
        }

        fn mix_rows(weights: Tensor<Self, 2>, items: Tensor<Self, 2>, rows: &Arc<[u32]>) -> Tensor<Self, 2> {
            if !all_f32!(weights, items) {
                return composed::mix_rows(weights, items, rows);
            }
            wrap(mix_rows::$entry$(::<$checkpoints>)?(unwrap(weights), unwrap(items), rows))
        }

        fn mix(weights: Tensor<Self, 2>, items: Tensor<Self, 3>) -> Tensor<Self, 2> {
            if !all_f32!(weights, items) {
                return composed::mix(weights, items);
            }
            wrap(mix::$entry$(::<$checkpoints>)?(unwrap(weights), unwrap(items)))
        }

        fn expert_linear(
            x: Tensor<Self, 3>,
            weight: Tensor<Self, 3>,
            bias: Tensor<Self, 2>,
            act: Activation,
        ) -> Tensor<Self, 3> {
            if !all_f32!(x, weight, bias) {
                return composed::expert_linear(x, weight, bias, act);
            }
            let inputs = [unwrap(x), unwrap(weight), unwrap(bias)];
            wrap(expert_linear::$entry$(::<$checkpoints>)?(inputs, act))
        }

        fn pack(x: Tensor<Self, 2>, pairs: &ActivePairs) -> Tensor<Self, 2> {
            if !all_f32!(x) {
                return composed::pack(x, pairs);
            }
            wrap(packed::$pack$(::<$checkpoints>)?(unwrap(x), pairs))
        }

        fn packed_expert_linear(
            x: Tensor<Self, 2>,
            weight: Tensor<Self, 3>,
            bias: Tensor<Self, 2>,
            act: Activation,
            pairs: &ActivePairs,
        ) -> Tensor<Self, 2> {
            if !all_f32!(x, weight, bias) {
                return composed::packed_expert_linear(x, weight, bias, act, pairs);
            }
            let inputs = [unwrap(x), unwrap(weight), unwrap(bias)];
            wrap(packed_linear::$entry$(::<$checkpoints>)?(inputs, act, pairs))
        }

        fn packed_mix(weights: Tensor<Self, 2>, items: Tensor<Self, 2>, pairs: &ActivePairs) -> Tensor<Self, 2> {
            if !all_f32!(weights, items) {
                return composed::packed_mix(weights, items, pairs);
            }
            wrap(packed::$packed_mix$(::<$checkpoints>)?(unwrap(weights), unwrap(items), pairs))
        }

        fn gat_layer(
            rows: GatRows<Self>,
            scoring: GatScoring<Self>,
            heads: GatHeads,
            norm: [Tensor<Self, 1>; 2],
            edges: &GatEdges,
            slope: f32,
            traced: bool,
        ) -> (Tensor<Self, 3>, Option<Tensor<Self, 3>>) {
            if !(all_f32!(norm[0], norm[1], rows, scoring)) {
                let (out, attention) = composed::gat_layer(rows, scoring, heads, norm, edges, slope);
                return (out, Some(attention));
            }
            let graphs = gat_layer::Graphs::Same(edges.clone());
            layer_of_graphs!($entry $(, $checkpoints)?; rows, scoring, heads, norm, graphs, slope, traced)
        }

        fn gat_layer_each(
            rows: GatRows<Self>,
            scoring: GatScoring<Self>,
            heads: GatHeads,
            norm: [Tensor<Self, 1>; 2],
            graphs: &[GatEdges],
            slope: f32,
        ) -> Tensor<Self, 3> {
            if !(all_f32!(norm[0], norm[1], rows, scoring)) {
                return composed::gat_layer_each(rows, scoring, heads, norm, graphs, slope);
            }
            let graphs = gat_layer::Graphs::Each(graphs.into());
            let (out, _unseen): (_, Option<Tensor<Self, 3>>) =
                layer_of_graphs!($entry $(, $checkpoints)?; rows, scoring, heads, norm, graphs, slope, false);
            out
        }

        fn gather_rows(x: Tensor<Self, 2>, rows: &Arc<[u32]>) -> Tensor<Self, 2> {
            if !all_f32!(x) {
                return composed::gather_rows(x, rows);
            }
            wrap(gather_rows::$entry$(::<$checkpoints>)?(unwrap(x), rows))
        }

        fn entmax15(z: Tensor<Self, 2>, temperature: f32) -> Tensor<Self, 2> {
            if !all_f32!(z) {
                return composed::entmax15(z, temperature);
            }
            wrap(entmax15::$entry$(::<$checkpoints>)?(unwrap(z), temperature))
        }

        fn sparsemax(z: Tensor<Self, 2>, temperature: f32) -> Tensor<Self, 2> {
            if !all_f32!(z) {
                return composed::sparsemax(z, temperature);
            }
            wrap(sparsemax::$entry$(::<$checkpoints>)?(unwrap(z), temperature))
        }

        fn ppo_loss(
            logits: Tensor<Self, 2>,
            values: Tensor<Self, 1>,
            batch: PpoBatch<Self>,
            config: &PpoLossConfig,
        ) -> (Tensor<Self, 1>, Tensor<Self, 1>) {
            if !(all_f32!(logits, values) && batch_is_f32!(batch)) {
                return composed::ppo_loss(logits, values, batch, config);
            }
            let (loss, stats) = ppo_loss::$entry$(::<$checkpoints>)?(unwrap(logits), unwrap(values), batch, config);
            (wrap(loss), wrap(stats))
        }

        fn gat_attention(
            h: Tensor<Self, 3>,
            a_src: Tensor<Self, 2>,
            a_dst: Tensor<Self, 2>,
            relation_bias: Tensor<Self, 2>,
            edges: &GatEdges,
            slope: f32,
        ) -> (Tensor<Self, 3>, Tensor<Self, 3>) {
            if !all_f32!(h, a_src, a_dst, relation_bias) {
                return composed::gat_attention(h, a_src, a_dst, relation_bias, edges, slope);
            }
            let inputs = [unwrap(h), unwrap(a_src), unwrap(a_dst), unwrap(relation_bias)];
            let (out, attention) = gat::$entry$(::<$checkpoints, _>)?(inputs, edges, slope);
            (wrap(out), wrap(attention))
        }

        fn gatv2_attention(
            h: Tensor<Self, 3>,
            a: Tensor<Self, 2>,
            relation_bias: Tensor<Self, 2>,
            edges: &GatEdges,
            slope: f32,
        ) -> (Tensor<Self, 3>, Tensor<Self, 3>) {
            if !all_f32!(h, a, relation_bias) {
                return composed::gatv2_attention(h, a, relation_bias, edges, slope);
            }
            let inputs = [unwrap(h), unwrap(a), unwrap(relation_bias)];
            let (out, attention) = gat::$entry$(::<$checkpoints, _>)?(inputs, edges, slope);
            (wrap(out), wrap(attention))
        }
    };
}

/// Whether the floating-point data of a minibatch is `f32`.
macro_rules! batch_is_f32 {
    ($batch:expr) => {
        all_f32!($batch.old_log_probs, $batch.advantages, $batch.returns, $batch.old_values)
    };
}

impl OpsBackend for Flex {
    const ON_HOST: bool = true;

    fused_operations!(flex, flex_flat, flex_pack, flex_mix);

    fn on_host<const D: usize, R>(t: &Tensor<Self, D>, read: impl FnOnce(&[f32]) -> R) -> Option<R> {
        all_f32!(t).then(|| read(flat::floats(&flat::row_major(unwrap(t.clone())))))
    }

    fn first_non_finite<const D: usize>(t: &Tensor<Self, D>) -> Option<f32> {
        if !all_f32!(t) {
            return composed::first_non_finite(t);
        }
        let t = flat::row_major(unwrap(t.clone()));
        flat::floats(&t).iter().copied().find(|x| !x.is_finite())
    }

    fn all_masked_row(z: &Tensor<Self, 2>) -> Option<usize> {
        if !all_f32!(z) {
            return composed::all_masked_row(z);
        }
        simplex::all_masked_row(&unwrap(z.clone()))
    }

    fn adamw_in_place(
        param: &mut FlexTensor,
        grad: FlexTensor,
        [m, v]: [&mut FlexTensor; 2],
        step: &AdamwStep,
    ) {
        if [&*param, &grad, &*m, &*v].iter().any(|t| t.dtype() != DType::F32) {
            return composed_in_place::<Self>(param, grad, [m, v], step);
        }
        adamw::step_in_place(param, grad, m, v, step);
    }

    fn squared_norms(tensors: &[FlexTensor]) -> Vec<f64> {
        if tensors.iter().any(|t| t.dtype() != DType::F32 || !t.is_contiguous()) {
            return norms_one_by_one::<Self>(tensors);
        }
        tensors.iter().map(|t| adamw::sum_of_squares(flat::floats(t))).collect()
    }

    fn squared_norms_of_parts(tensor: &FlexTensor, sizes: &[usize]) -> Vec<f64> {
        if tensor.dtype() != DType::F32 || !tensor.is_contiguous() {
            return norms_of_parts::<Self>(tensor, sizes);
        }
        let mut rest = flat::floats(tensor);
        let of = |&size: &usize| {
            let part;
            (part, rest) = rest.split_at(size);
            adamw::sum_of_squares(part)
        };
        sizes.iter().map(of).collect()
    }

    fn squared_norm<const D: usize>(g: Tensor<Self, D>) -> Tensor<Self, 1> {
        if !all_f32!(g) {
            return composed::squared_norm(g);
        }
        wrap(flat::tensor(vec![adamw::sum_of_squares(flat::floats(&flat::row_major(unwrap(g)))) as f32], [1]))
    }

    fn norm_relu(
        x: Tensor<Self, 2>,
        gamma: Tensor<Self, 1>,
        beta: Tensor<Self, 1>,
        residual: Option<Tensor<Self, 2>>,
    ) -> Tensor<Self, 2> {
        if !(all_f32!(x, gamma, beta) && residual.as_ref().is_none_or(|r| all_f32!(r))) {
            return composed::norm_relu(x, gamma, beta, residual);
        }
        wrap(norm_relu::flex(unwrap(x), unwrap(gamma), unwrap(beta), residual.map(unwrap)))
    }
}

// An optimizer step has no gradient, so `adamw_in_place` and the norms stay composed here.
impl<C: CheckpointStrategy> OpsBackend for Autodiff<Flex, C> {
    const ON_HOST: bool = true;

    fused_operations!(autodiff, autodiff_flat, autodiff_pack, autodiff_mix, C);

    fn on_host<const D: usize, R>(t: &Tensor<Self, D>, read: impl FnOnce(&[f32]) -> R) -> Option<R> {
        Flex::on_host(&t.clone().inner(), read)
    }

    fn first_non_finite<const D: usize>(t: &Tensor<Self, D>) -> Option<f32> {
        Flex::first_non_finite(&t.clone().inner())
    }

    fn all_masked_row(z: &Tensor<Self, 2>) -> Option<usize> {
        Flex::all_masked_row(&z.clone().inner())
    }

    fn norm_relu(
        x: Tensor<Self, 2>,
        gamma: Tensor<Self, 1>,
        beta: Tensor<Self, 1>,
        residual: Option<Tensor<Self, 2>>,
    ) -> Tensor<Self, 2> {
        if !(all_f32!(x, gamma, beta) && residual.as_ref().is_none_or(|r| all_f32!(r))) {
            return composed::norm_relu(x, gamma, beta, residual);
        }
        // Without a residual, zeros that want no gradient.
        let residual = residual.unwrap_or_else(|| x.zeros_like().detach());
        let (gamma, beta) = (unwrap(gamma), unwrap(beta));
        wrap(norm_relu::autodiff::<C>(unwrap(x), gamma, beta, unwrap(residual)))
    }
}

impl<C: CheckpointStrategy> OpsAutodiffBackend for Autodiff<Flex, C> {
    fn in_one_graph(tensors: &[FloatTensor<Self>]) {
        one_graph::autodiff::<C>(tensors);
    }

    fn flat_ppo_loss(
        data: &PpoData<Flex>,
        minibatch: &PpoRows<'_>,
        networks: [Network<'_, Flex>; 2],
        config: &PpoLossConfig,
    ) -> Evaluated<Flex> {
        let [actor, critic] = networks.each_ref().map(|network| &*network.parameters);
        if !(all_f32!(data.x, actor, critic) && batch_is_f32!(data.recorded)) {
            return composed::flat_ppo_loss::<Self>(data, minibatch, networks, config);
        }
        flat_ppo::flex(data, minibatch, networks, config)
    }
}
