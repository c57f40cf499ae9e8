//! Graph attention over CSR edges (Velickovic et al. 2018).

// B batch, S source rows, T target rows, E edges, M largest in-degree, H heads, C width of a head, R relations

use burn::tensor::{Bool, Int, Tensor, TensorData, activation::leaky_relu, backend::Backend};

use crate::{GatEdges, OpsBackend};

/// One graph attention layer after its projection; returns the new rows and the attention.
///
/// `e_ij = LeakyReLU(a_src . h_j + a_dst . h_i + r_rel) + log_multiplicity`, softmax over the
/// in-edges of `i`, `out_i = sum_j alpha_ij h_j`, for each head on its own. The multiplicity is
/// added after the LeakyReLU, which equals keeping that many parallel edges. A target row without
/// in-edges is 0.
///
/// Shapes: `h` `[B, S, H * C]`, `a_src` and `a_dst` `[H, C]`, `relation_bias` `[R, H]`; result
/// `[B, T, H * C]`, and the attention `[B, E, H]`, untracked, for statistics.
/// Panics if shapes differ.
pub fn gat_attention<B: OpsBackend>(
    h: Tensor<B, 3>,
    a_src: Tensor<B, 2>,
    a_dst: Tensor<B, 2>,
    relation_bias: Tensor<B, 2>,
    edges: &GatEdges,
    slope: f32,
) -> (Tensor<B, 3>, Tensor<B, 3>) {
    let [_, num_rows, width] = h.dims();
    let [heads, channels] = a_src.dims();
    assert_eq!(num_rows, edges.num_sources(), "gat_attention: rows of h and sources of the edges");
    assert_eq!(width, heads * channels, "gat_attention: width of h and heads * channels");
    assert_eq!(a_dst.dims(), [heads, channels], "gat_attention: shapes of a_src and a_dst");
    let expected = [edges.num_relations(), heads];
    assert_eq!(relation_bias.dims(), expected, "gat_attention: shape of relation_bias");
    B::gat_attention(h, a_src, a_dst, relation_bias, edges, slope)
}

/// [`gat_attention`] by plain tensor operations: every row's edges padded to the largest degree.
pub fn composed<B: Backend>(
    h: Tensor<B, 3>,
    a_src: Tensor<B, 2>,
    a_dst: Tensor<B, 2>,
    relation_bias: Tensor<B, 2>,
    edges: &GatEdges,
    slope: f32,
) -> (Tensor<B, 3>, Tensor<B, 3>) {
    let [batch, num_rows, width] = h.dims();
    let [heads, channels] = a_src.dims();
    let (device, targets, num_edges) = (h.device(), edges.num_targets(), edges.num_edges());
    if num_edges == 0 {
        let out = Tensor::zeros([batch, targets, width], &device);
        return (out, Tensor::zeros([batch, 0, heads], &device));
    }
    let padded = Padded::new(edges);
    let degree = padded.degree;
    let ints = |v: Vec<i32>| {
        let len = v.len();
        Tensor::<B, 1, Int>::from_data(TensorData::new(v, [len]), &device)
    };

    let split = h.reshape([batch, num_rows, heads, channels]);
    let source_score = (split.clone() * a_src.unsqueeze()).sum_dim(3).squeeze_dim::<3>(3);
    let target_score = (split.clone() * a_dst.unsqueeze()).sum_dim(3).squeeze_dim::<3>(3);
    let sources = ints(padded.sources); // [T * M]
    let relation = relation_bias.select(0, ints(padded.relations)); // [T * M, H]
    let score = source_score.select(1, sources.clone())
        + target_score.select(1, ints(padded.targets))
        + relation.unsqueeze(); // [B, T * M, H]
    let multiplicity = Tensor::<B, 3>::from_data(
        TensorData::new(padded.log_multiplicity, [1, targets * degree, 1]),
        &device,
    )
    .cast(score.dtype());
    let score = (leaky_relu(score, slope as f64) + multiplicity).reshape([batch, targets, degree, heads]);

    let padding =
        Tensor::<B, 4, Bool>::from_data(TensorData::new(padded.padding, [1, targets, degree, 1]), &device)
            .expand([batch, targets, degree, heads]);
    let isolated = padding.clone().all_dim(2); // [B, T, 1, H]
    let max = score.clone().detach().mask_fill(padding.clone(), f32::NEG_INFINITY).max_dim(2);
    let max = max.mask_fill(isolated.clone(), 0.0);
    let weight = (score - max).mask_fill(padding.clone(), 0.0).exp().mask_fill(padding, 0.0);
    let sum = weight.clone().sum_dim(2).mask_fill(isolated, 1.0);
    let alpha = weight / sum; // [B, T, M, H]

    let messages = split.select(1, sources).reshape([batch, targets, degree, heads, channels]);
    let out = (messages * alpha.clone().unsqueeze_dim(4)).sum_dim(2).reshape([batch, targets, width]);
    let attention = alpha.detach().reshape([batch, targets * degree, heads]).select(1, ints(padded.position));
    (out, attention)
}

/// Edges as a dense `[T, M]` table; padding repeats row 0 and is masked.
struct Padded {
    degree: usize,
    sources: Vec<i32>,
    targets: Vec<i32>,
    relations: Vec<i32>,
    log_multiplicity: Vec<f32>,
    padding: Vec<bool>,
    /// Where each edge stands in the table, `[E]`.
    position: Vec<i32>,
}

impl Padded {
    fn new(edges: &GatEdges) -> Self {
        let (offsets, targets) = (edges.offsets(), edges.num_targets());
        let degree = offsets.windows(2).map(|o| o[1] - o[0]).max().unwrap_or(0) as usize;
        let cells = targets * degree;
        let mut table = Self {
            degree,
            sources: vec![0; cells],
            targets: vec![0; cells],
            relations: vec![0; cells],
            log_multiplicity: vec![0.0; cells],
            padding: vec![true; cells],
            position: Vec::with_capacity(edges.num_edges()),
        };
        for t in 0..targets {
            let first = offsets[t] as usize;
            for e in first..offsets[t + 1] as usize {
                let cell = t * degree + (e - first);
                table.sources[cell] = edges.sources()[e] as i32;
                table.targets[cell] = edges.targets()[t] as i32;
                table.relations[cell] = edges.relations()[e] as i32;
                table.log_multiplicity[cell] = edges.log_multiplicity()[e];
                table.padding[cell] = false;
                table.position.push(cell as i32);
            }
        }
        table
    }
}
