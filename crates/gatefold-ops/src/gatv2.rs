//! Graph attention whose ranking of neighbours depends on who asks (GATv2, Brody et al. 2022).

// B batch, S source rows, T target rows, E edges, M largest in-degree, H heads, C width of a head, R relations

use burn::tensor::{Tensor, activation::leaky_relu, backend::Backend};

use crate::{GatEdges, OpsBackend, gat_table::GatTable};

/// One GATv2 layer after its projections; returns the new rows and the attention.
///
/// `h` holds both projections side by side: what a row sends, `s`, in its first `H * C` columns, and
/// what it asks with, `d`, in the others. `e_ij = a . LeakyReLU(s_j + d_i) + r_rel + log_multiplicity`,
/// softmax over the in-edges of `i`, `out_i = sum_j alpha_ij s_j`, for each head on its own. A target
/// row without in-edges is 0.
///
/// Shapes: `h` `[B, S, 2 * H * C]`, `a` `[H, C]`, `relation_bias` `[R, H]`; result `[B, T, H * C]`, and
/// the attention `[B, E, H]`, untracked, for statistics. Source: arXiv 2105.14491, eq. 7.
/// Panics if shapes differ.
pub fn gatv2_attention<B: OpsBackend>(
    h: Tensor<B, 3>,
    a: Tensor<B, 2>,
    relation_bias: Tensor<B, 2>,
    edges: &GatEdges,
    slope: f32,
) -> (Tensor<B, 3>, Tensor<B, 3>) {
    let [_, num_rows, width] = h.dims();
    let [heads, channels] = a.dims();
    assert_eq!(num_rows, edges.num_sources(), "gatv2_attention: rows of h and sources of the edges");
    assert_eq!(width, 2 * heads * channels, "gatv2_attention: width of h and 2 * heads * channels");
    let expected = [edges.num_relations(), heads];
    assert_eq!(relation_bias.dims(), expected, "gatv2_attention: shape of relation_bias");
    B::gatv2_attention(h, a, relation_bias, edges, slope)
}

/// [`gatv2_attention`] by plain tensor operations: every row's edges padded to the largest degree.
pub fn composed<B: Backend>(
    h: Tensor<B, 3>,
    a: Tensor<B, 2>,
    relation_bias: Tensor<B, 2>,
    edges: &GatEdges,
    slope: f32,
) -> (Tensor<B, 3>, Tensor<B, 3>) {
    let [batch, num_rows, width] = h.dims();
    let [heads, channels] = a.dims();
    if edges.num_edges() == 0 {
        let device = h.device();
        let out = Tensor::zeros([batch, edges.num_targets(), width / 2], &device);
        return (out, Tensor::zeros([batch, 0, heads], &device));
    }
    let table = GatTable::new(edges);
    let half =
        |first: usize| h.clone().narrow(2, first, width / 2).reshape([batch, num_rows, heads, channels]);
    let (sent, asked) = (half(0), half(width / 2));
    let met = table.of_sources(sent.clone()) + table.of_targets(asked); // [B, T * M, H, C]
    let met = leaky_relu(met, f64::from(slope)) * a.unsqueeze();
    let score = met.sum_dim(3).squeeze_dim::<3>(3) + table.of_relations(relation_bias); // [B, T * M, H]
    table.attend(score, sent)
}
