//! Graph attention over CSR edges (Velickovic et al. 2018).

// B batch, S source rows, T target rows, E edges, M largest in-degree, H heads, C width of a head, R relations

use burn::tensor::{Tensor, activation::leaky_relu, backend::Backend};

use crate::{GatEdges, OpsBackend, gat_table::GatTable};

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
    if edges.num_edges() == 0 {
        let device = h.device();
        let out = Tensor::zeros([batch, edges.num_targets(), width], &device);
        return (out, Tensor::zeros([batch, 0, heads], &device));
    }
    let table = GatTable::new(edges);
    let split = h.reshape([batch, num_rows, heads, channels]);
    let source_score = (split.clone() * a_src.unsqueeze()).sum_dim(3).squeeze_dim::<3>(3); // [B, S, H]
    let target_score = (split.clone() * a_dst.unsqueeze()).sum_dim(3).squeeze_dim::<3>(3);
    let score =
        table.of_sources(source_score) + table.of_targets(target_score) + table.of_relations(relation_bias); // [B, T * M, H]
    table.attend(leaky_relu(score, f64::from(slope)), split)
}
