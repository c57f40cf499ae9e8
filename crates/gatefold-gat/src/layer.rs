//! One graph attention layer with its norm and residual.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use gatefold_ops::{
    Activation, GatEdges, GatHeads, GatRows, GatScoring, OpsBackend, gat_layer, gat_layer_each,
    gat_layer_rows, init, linear, norm_relu,
};
use rand::Rng;

use crate::draws::LayerDraws;
use crate::dropped_attention::{attention_weights, dropped_attention};
use crate::norm_clip::clip_norms;
use crate::topology::LayerTopology;
use crate::{Attention, AttentionTemperature, GatConfig, Heads};

// B batch, S source rows, T target rows, E edges, H heads, C width of a head, D hidden, R relations

/// Slope of the LeakyReLU of the attention scores (Velickovic et al. 2018).
pub(crate) const LEAKY_SLOPE: f32 = 0.2;

/// The attention of one layer, with its gradient.
#[derive(Debug, Clone)]
pub struct Attended<B: Backend> {
    /// Attention `[B, E, H]` over all edges, whatever the layer's dropouts drop.
    pub weights: Tensor<B, 3>,
    /// The layer's edges, by target.
    pub edges: Arc<GatEdges>,
}

/// `x + ReLU(LayerNorm(GAT(x)))`.
///
/// `e_ij = LeakyReLU_0.2(a_s . W h_j + a_d . W h_i + r_rel)` over the in-neighbours j of i, softmax
/// over j; or `e_ij = a . LeakyReLU_0.2(W_s h_j + W_d h_i) + r_rel` with [`Attention::Gatv2`], whose
/// messages are `W_s h_j`. `r_rel` is a learned scalar per relation and head. With a learned
/// temperature tau per head, the softmax is over `e_ij / tau`; `ln(multiplicity)` of merged edges is
/// added undivided, as if each copy had its own `e_ij / tau`.
#[derive(Module, Debug)]
pub struct GatLayer<B: Backend> {
    weight: Param<Tensor<B, 2>>,         // W [D, H * C], or [W_s ; W_d] [D, 2 * H * C]
    source: Param<Tensor<B, 2>>,         // a_s, or a [H, C]
    target: Option<Param<Tensor<B, 2>>>, // a_d [H, C]
    relation_bias: Param<Tensor<B, 2>>,  // [R, H]
    log_temperature: Option<Param<Tensor<B, 1>>>, // [H]
    norm_gain: Param<Tensor<B, 1>>,      // [D]
    norm_bias: Param<Tensor<B, 1>>,      // [D]
    #[module(skip)]
    topology: LayerTopology,
    #[module(skip)]
    combine: Heads,
    #[module(skip)]
    norm_clip: f32,
}

impl<B: OpsBackend> GatLayer<B> {
    pub(crate) fn new(
        config: &GatConfig,
        topology: LayerTopology,
        rng: &mut impl Rng,
        device: &B::Device,
    ) -> Self {
        let (hidden, heads, width) = (config.hidden, config.heads, config.head_width());
        Self {
            // Each projection of GATv2 as if it stood alone.
            weight: init::glorot([hidden, config.projected_width()], [hidden, heads * width], rng, device),
            source: init::glorot([heads, width], [heads * width, 1], rng, device),
            target: (config.attention == Attention::Gat)
                .then(|| init::glorot([heads, width], [heads * width, 1], rng, device)),
            relation_bias: init::constant(0.0, [topology.edges.num_relations(), heads], device),
            log_temperature: (config.attention_temperature == AttentionTemperature::Learned)
                .then(|| init::constant(0.0, [heads], device)),
            norm_gain: init::constant(1.0, [hidden], device),
            norm_bias: init::constant(0.0, [hidden], device),
            topology,
            combine: config.combine,
            norm_clip: config.node_norm_clip,
        }
    }

    /// The attention of projected rows `h`, over all edges and with its gradient; `None` for a layer
    /// without edges.
    pub(crate) fn attended(&self, h: Tensor<B, 3>) -> Option<Attended<B>> {
        let edges = self.topology.edges.clone();
        (edges.num_edges() > 0).then(|| {
            let weights = attention_weights(h, &self.scoring(), &edges);
            Attended { weights, edges }
        })
    }

    /// The projection `x W`: `[rows, D]` to `[rows, H * C]`, or twice that width.
    pub(crate) fn project(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let [_, width] = self.weight.dims();
        let zero = Tensor::zeros([width], &x.device());
        linear(x, self.weight.val(), zero, Activation::Identity)
    }

    /// Rows `x` `[B, S, D]` that the layer projects.
    pub(crate) fn rows(&self, x: Tensor<B, 3>) -> GatRows<B> {
        GatRows::Project { x, weight: self.weight.val() }
    }

    /// Attention over `rows`, then norm and residual.
    ///
    /// Returns the new rows `[B, T, D]` and, if `traced`, the attention `[B, E, H]`. Without some edges or
    /// weights attention is over rows that were projected before.
    pub(crate) fn attend(
        &self,
        rows: GatRows<B>,
        drawn: Option<&LayerDraws<B>>,
        traced: bool,
    ) -> (Tensor<B, 3>, Option<Tensor<B, 3>>) {
        let edges = &self.topology.edges;
        let (out, attention) = match (drawn.filter(|drawn| drawn.changes_attention()), rows) {
            (Some(drawn), GatRows::Projected { x, h }) => {
                let (out, attention) = dropped_attention(h, &self.scoring(), edges, drawn);
                (self.put_together(x, out), Some(attention))
            }
            (_, rows) => {
                let norm = [self.norm_gain.val(), self.norm_bias.val()];
                let (scoring, heads) = (self.scoring(), self.heads());
                if traced {
                    let (out, attention) = gat_layer(rows, scoring, heads, norm, edges, LEAKY_SLOPE);
                    (out, Some(attention))
                } else {
                    (gat_layer_rows(rows, scoring, heads, norm, edges, LEAKY_SLOPE), None)
                }
            }
        };
        (self.clipped(out), attention)
    }

    /// [`attend`](Self::attend) over graphs of their own, all rows `[1, S, D]` one after the other.
    pub(crate) fn attend_each(&self, rows: GatRows<B>, graphs: &[GatEdges]) -> Tensor<B, 3> {
        let norm = [self.norm_gain.val(), self.norm_bias.val()];
        self.clipped(gat_layer_each(rows, self.scoring(), self.heads(), norm, graphs, LEAKY_SLOPE))
    }

    fn heads(&self) -> GatHeads {
        match self.combine {
            Heads::Concatenate => GatHeads::Concatenate,
            Heads::Average => GatHeads::Average,
        }
    }

    fn clipped(&self, out: Tensor<B, 3>) -> Tensor<B, 3> {
        if self.norm_clip > 0.0 { clip_norms(out, self.norm_clip) } else { out }
    }

    /// `x + ReLU(LayerNorm(out))`, the heads of `out` `[B, T, H * C]` side by side or averaged.
    fn put_together(&self, x: Tensor<B, 3>, out: Tensor<B, 3>) -> Tensor<B, 3> {
        let ([batch, _, hidden], [_, targets, _]) = (x.dims(), out.dims());
        let out = match self.combine {
            Heads::Concatenate => out.reshape([batch * targets, hidden]),
            Heads::Average => {
                let [heads, width] = self.source.dims();
                out.reshape([batch * targets, heads, width]).mean_dim(1).reshape([batch * targets, hidden])
            }
        };
        let residual = match &self.topology.kept {
            None => x,
            Some(rows) => {
                let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
                let rows = Tensor::<B, 1, Int>::from_data(TensorData::new(rows, [targets]), &x.device());
                x.select(1, rows)
            }
        };
        let residual = residual.reshape([batch * targets, hidden]);
        let out = norm_relu(out, self.norm_gain.val(), self.norm_bias.val(), Some(residual));
        out.reshape([batch, targets, hidden])
    }

    /// The projection of rows `[B, S, D]`, less what was drawn to be dropped, to `[B, S, ..]`.
    pub(crate) fn project_rows(&self, x: Tensor<B, 3>, drawn: Option<&LayerDraws<B>>) -> Tensor<B, 3> {
        let [batch, rows, hidden] = x.dims();
        let input = match drawn.and_then(|drawn| drawn.features.clone()) {
            None => x,
            Some(scale) => x * scale,
        };
        let h = self.project(input.reshape([batch * rows, hidden]));
        let [_, width] = h.dims();
        h.reshape([batch, rows, width])
    }

    /// What edges are scored with, each weight and `r_rel` divided by the head's temperature. LeakyReLU
    /// is positively homogeneous and comes before `a` in GATv2, so in both that divides `e_ij`.
    fn scoring(&self) -> GatScoring<B> {
        let temperature = self.log_temperature.as_ref().map(|logarithm| logarithm.val().exp());
        let tempered = |weights: Tensor<B, 2>, shape: [usize; 2]| match &temperature {
            None => weights,
            Some(temperature) => weights / temperature.clone().reshape(shape),
        };
        let [_, heads] = self.relation_bias.dims();
        let relation_bias = tempered(self.relation_bias.val(), [1, heads]);
        let weight = tempered(self.source.val(), [heads, 1]);
        match &self.target {
            None => GatScoring::Gatv2 { weight, relation_bias },
            Some(target) => {
                let target = tempered(target.val(), [heads, 1]);
                GatScoring::Gat { source: weight, target, relation_bias }
            }
        }
    }

    pub(crate) fn topology(&self) -> &LayerTopology {
        &self.topology
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Topology;
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::ElementConversion;
    use gatefold_graph::TypedGraph;
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

    type Train = Autodiff<Flex>;

    /// Two nodes; three parallel edges lead from the first to the second.
    fn layer(attention: Attention, attention_temperature: AttentionTemperature) -> GatLayer<Train> {
        let mut graph = TypedGraph::new("pair", &["node"], &["node"]);
        graph.add_node("a", "node", None).unwrap();
        graph.add_node("b", "node", None).unwrap();
        for _ in 0..3 {
            graph.add_edge("a", "b", "next").unwrap();
        }
        let topology = Topology::new(&graph.with_self_loops(), 1);
        let config =
            GatConfig { hidden: 4, heads: 2, attention, attention_temperature, ..GatConfig::default() };
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut layer = GatLayer::new(&config, topology.layers[0].clone(), &mut rng, &Default::default());
        layer.relation_bias = init::parameter(vec![0.3, -0.8, 1.1, 0.2], [2, 2], &Default::default());
        layer
    }

    fn nodes() -> Tensor<Train, 3> {
        Tensor::from_floats([[[0.4, -1.0, 0.7, 0.1], [1.5, 0.2, -0.6, 0.9]]], &Default::default())
    }

    const BOTH: [Attention; 2] = [Attention::Gat, Attention::Gatv2];

    fn with_temperature(attention: Attention, temperatures: [f32; 2]) -> GatLayer<Train> {
        let mut layer = layer(attention, AttentionTemperature::Learned);
        let logarithms = temperatures.map(f32::ln).to_vec();
        layer.log_temperature = Some(init::parameter(logarithms, [2], &Default::default()));
        layer
    }

    /// `e_ba - e_bb` of each head, from the attention of b: its logarithms' difference less ln 3.
    fn score_difference(layer: &GatLayer<Train>) -> [f64; 2] {
        let (_, attention) = layer.attend(layer.rows(nodes()), None, true);
        let attention = attention.expect("traced").into_data().into_vec::<f32>().unwrap();
        [0, 1].map(|head| {
            let [from_a, from_b] = [1, 2].map(|edge| f64::from(attention[edge * 2 + head]).ln());
            from_a - from_b - 3f64.ln()
        })
    }

    #[test]
    fn a_temperature_divides_the_scores_of_its_head_and_not_the_count_of_merged_edges() {
        for attention in BOTH {
            let plain = score_difference(&layer(attention, AttentionTemperature::Fixed));
            assert!(plain.iter().all(|difference| difference.abs() > 0.05), "{attention:?}: {plain:?}");
            let tempered = score_difference(&with_temperature(attention, [0.5, 4.0]));
            for (head, temperature) in [0.5, 4.0].into_iter().enumerate() {
                let expected = plain[head] / temperature;
                let near = (tempered[head] - expected).abs() < 1e-5;
                assert!(near, "{attention:?}, head {head}: {tempered:?}, {plain:?}");
            }
        }
    }

    #[test]
    fn the_gradient_of_a_log_temperature_is_its_finite_difference() {
        let weights =
            Tensor::from_floats([[[0.9, -0.4, 0.2, 1.3], [-1.1, 0.8, 0.5, -0.7]]], &Default::default());
        let out = |layer: &GatLayer<Train>| layer.attend(layer.rows(nodes()), None, false).0;
        let loss = |layer: &GatLayer<Train>| (out(layer) * weights.clone()).sum();
        for attention in BOTH {
            let layer = with_temperature(attention, [0.5, 2.0]);
            let grads = loss(&layer).backward();
            let gradient = layer.log_temperature.as_ref().unwrap().val().grad(&grads).unwrap();
            let gradient = gradient.into_data().into_vec::<f32>().unwrap();
            for head in 0..2 {
                let at = |step: f32| {
                    let mut temperatures = [0.5f32, 2.0];
                    temperatures[head] *= step.exp();
                    loss(&with_temperature(attention, temperatures)).into_scalar().elem::<f32>()
                };
                let expected = (at(0.01) - at(-0.01)) / 0.02;
                assert!(expected.abs() > 1e-3, "{attention:?}, head {head}: the case must move");
                assert!(
                    (gradient[head] - expected).abs() < 1e-2 * expected.abs() + 1e-4,
                    "{attention:?}: {gradient:?}, {expected}"
                );
            }
        }
    }
}
