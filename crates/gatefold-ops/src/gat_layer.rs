//! A whole graph attention layer: projection, attention, norm and residual.

// B batch, S source rows, T target rows, E edges, H heads, C width of a head, D width of a node, R relations

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use crate::{GatEdges, GatRows, GatScoring, OpsBackend, composed};

/// How the heads of a layer are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatHeads {
    /// Side by side: `D = H * C`.
    Concatenate,
    /// Averaged: `D = C`.
    Average,
}

/// `x_i + ReLU(LayerNorm(attention(x)_i) * gain + bias)` of every target row `i`; returns the new rows
/// and the attention.
///
/// Shapes: `gain` and `bias` `[D]`; result `[B, T, D]`, and the attention `[B, E, H]`,
/// untracked, for statistics. The attention is [`GatScoring::attend`], the norm [`norm_relu`](crate::norm_relu).
/// Panics if shapes differ.
pub fn gat_layer<B: OpsBackend>(
    rows: GatRows<B>,
    scoring: GatScoring<B>,
    heads: GatHeads,
    norm: [Tensor<B, 1>; 2],
    edges: &GatEdges,
    slope: f32,
) -> (Tensor<B, 3>, Tensor<B, 3>) {
    check(&rows, &scoring, heads, &norm, std::slice::from_ref(edges));
    let (out, attention) = B::gat_layer(rows, scoring, heads, norm, edges, slope, true);
    (out, attention.expect("the attention was asked for"))
}

/// [`gat_layer`] without its attention.
pub fn gat_layer_rows<B: OpsBackend>(
    rows: GatRows<B>,
    scoring: GatScoring<B>,
    heads: GatHeads,
    norm: [Tensor<B, 1>; 2],
    edges: &GatEdges,
    slope: f32,
) -> Tensor<B, 3> {
    check(&rows, &scoring, heads, &norm, std::slice::from_ref(edges));
    B::gat_layer(rows, scoring, heads, norm, edges, slope, false).0
}

/// Panics if shapes differ; `graphs` are those of one element of the batch.
fn check<B: Backend>(
    rows: &GatRows<B>,
    scoring: &GatScoring<B>,
    heads: GatHeads,
    [gain, bias]: &[Tensor<B, 1>; 2],
    graphs: &[GatEdges],
) {
    let [_, num_rows, width] = rows.dims();
    let [num_heads, channels] = scoring.dims();
    let sources: usize = graphs.iter().map(GatEdges::num_sources).sum();
    assert_eq!(num_rows, sources, "gat_layer: rows of x and sources of the edges");
    let combined = match heads {
        GatHeads::Concatenate => num_heads * channels,
        GatHeads::Average => channels,
    };
    assert_eq!(width, combined, "gat_layer: width of x and of the heads put together");
    rows.check(scoring);
    let (GatScoring::Gat { relation_bias, .. } | GatScoring::Gatv2 { relation_bias, .. }) = scoring;
    for edges in graphs {
        let expected = [edges.num_relations(), num_heads];
        assert_eq!(relation_bias.dims(), expected, "gat_layer: shape of relation_bias");
    }
    if let GatScoring::Gat { source, target, .. } = scoring {
        assert_eq!(source.dims(), target.dims(), "gat_layer: shapes of a_src and a_dst");
    }
    assert_eq!((gain.dims(), bias.dims()), ([width], [width]), "gat_layer: gain and bias");
}

/// [`gat_layer`] over graphs that are not the same, all rows one after the other.
///
/// Shapes: `x` `[1, S, D]`, S the sum of all graphs' source rows; result
/// `[1, T, D]`, T the sum of their target rows. A row has the bits that it has in its graph alone.
/// Panics if shapes differ or there is no graph.
pub fn gat_layer_each<B: OpsBackend>(
    rows: GatRows<B>,
    scoring: GatScoring<B>,
    heads: GatHeads,
    norm: [Tensor<B, 1>; 2],
    graphs: &[GatEdges],
    slope: f32,
) -> Tensor<B, 3> {
    check(&rows, &scoring, heads, &norm, graphs);
    assert_eq!(rows.dims()[0], 1, "gat_layer_each: graphs lie one after the other, not in a batch");
    B::gat_layer_each(rows.in_memory(), scoring, heads, norm, graphs, slope)
}

/// [`gat_layer_each`] by plain tensor operations: graph by graph.
pub fn composed_each<B: Backend>(
    rows: GatRows<B>,
    scoring: GatScoring<B>,
    heads: GatHeads,
    norm: [Tensor<B, 1>; 2],
    graphs: &[GatEdges],
    slope: f32,
) -> Tensor<B, 3> {
    let [x, h] = rows.composed();
    let mut first = 0;
    let of_graph = graphs.iter().map(|edges| {
        let [x, h] = [&x, &h].map(|rows| rows.clone().narrow(1, first, edges.num_sources()));
        first += edges.num_sources();
        let rows = GatRows::Projected { x, h };
        composed(rows, scoring.clone(), heads, norm.clone(), edges, slope).0
    });
    Tensor::cat(of_graph.collect(), 1)
}

/// [`gat_layer`] by plain tensor operations.
pub fn composed<B: Backend>(
    rows: GatRows<B>,
    scoring: GatScoring<B>,
    heads: GatHeads,
    [gain, bias]: [Tensor<B, 1>; 2],
    edges: &GatEdges,
    slope: f32,
) -> (Tensor<B, 3>, Tensor<B, 3>) {
    let [x, h] = rows.composed();
    let ([batch, num_rows, width], device) = (x.dims(), x.device());
    let (targets, [num_heads, channels]) = (edges.num_targets(), scoring.dims());
    let (out, attention) = match scoring {
        GatScoring::Gat { source, target, relation_bias } => {
            composed::gat_attention(h, source, target, relation_bias, edges, slope)
        }
        GatScoring::Gatv2 { weight, relation_bias } => {
            composed::gatv2_attention(h, weight, relation_bias, edges, slope)
        }
    };
    let out = match heads {
        GatHeads::Concatenate => out.reshape([batch * targets, width]),
        GatHeads::Average => {
            out.reshape([batch * targets, num_heads, channels]).mean_dim(1).reshape([batch * targets, width])
        }
    };
    let in_place = targets == num_rows && edges.targets().iter().enumerate().all(|(t, &row)| t as u32 == row);
    let residual = if in_place {
        x
    } else {
        let kept: Vec<i32> = edges.targets().iter().map(|&row| row as i32).collect();
        x.select(1, Tensor::<B, 1, Int>::from_data(TensorData::new(kept, [targets]), &device))
    };
    let out = composed::norm_relu(out, gain, bias, Some(residual.reshape([batch * targets, width])));
    (out.reshape([batch, targets, width]), attention)
}
