//! What dropout drops, drawn on the host before a forward pass.

use burn::tensor::{Tensor, TensorData, backend::Backend};
use gatefold_ops::GatEdges;
use rand::{Rng, RngExt as _};

use crate::GatConfig;

// B rows of a minibatch, S source rows, E edges, H heads, D hidden

/// Which numbers, edges and attention weights one forward pass of a
/// [`GraphEncoder`](crate::GraphEncoder) does without.
///
/// Drawn by [`GraphEncoder::draw`](crate::GraphEncoder::draw); the same draws repeat the same pass.
#[derive(Debug, Clone)]
pub struct GraphDraws<B: Backend> {
    pub(crate) rows: usize,
    pub(crate) layers: Vec<LayerDraws<B>>,
}

/// The draws of one layer. Dropout of features and attention is Srivastava et al. 2014, with the
/// inverse of the kept share in the update, so that nothing is scaled elsewhere; dropout of edges is
/// the layer-wise DropEdge of Rong et al. 2020 (arXiv 1907.10903).
///
/// Differs: DropEdge draws one graph per step; here every row of the minibatch has its own. Self
/// loops stay, and a target that would lose all its edges keeps them all.
#[derive(Debug, Clone)]
pub(crate) struct LayerDraws<B: Backend> {
    /// 0 or `1 / (1 - p)` for every number that the projection reads `[B, S, D]`.
    pub(crate) features: Option<Tensor<B, 3>>,
    /// Which edges are left out, `[B, E]` row-major.
    pub(crate) dropped_edges: Option<Vec<bool>>,
    /// 0 or `1 / (1 - p)` for every attention weight `[B, E, H]`.
    pub(crate) attention: Option<Tensor<B, 3>>,
}

impl<B: Backend> LayerDraws<B> {
    pub(crate) fn new(
        config: &GatConfig,
        edges: &GatEdges,
        rows: usize,
        rng: &mut impl Rng,
        device: &B::Device,
    ) -> Self {
        let num_edges = edges.num_edges();
        let scales = |p: f32, shape: [usize; 3], rng: &mut _| {
            let scales = TensorData::new(scales(p, shape.iter().product(), rng), shape);
            Tensor::from_data(scales, device)
        };
        let features = (config.feature_dropout > 0.0)
            .then(|| scales(config.feature_dropout, [rows, edges.num_sources(), config.hidden], rng));
        let dropped_edges = (config.edge_dropout > 0.0 && num_edges > 0)
            .then(|| dropped_edges(edges, config.edge_dropout, rows, rng));
        let attention = (config.attention_dropout > 0.0 && num_edges > 0)
            .then(|| scales(config.attention_dropout, [rows, num_edges, config.heads], rng));
        Self { features, dropped_edges, attention }
    }

    /// Whether attention cannot be left to the fused kernel.
    pub(crate) fn changes_attention(&self) -> bool {
        self.dropped_edges.is_some() || self.attention.is_some()
    }
}

/// 0 with probability `p`, else `1 / (1 - p)`.
fn scales(p: f32, count: usize, rng: &mut impl Rng) -> Vec<f32> {
    let kept = 1.0 / (1.0 - p);
    (0..count).map(|_| if rng.random::<f32>() < p { 0.0 } else { kept }).collect()
}

/// Which edges each row leaves out, `[rows, E]` row-major.
fn dropped_edges(edges: &GatEdges, p: f32, rows: usize, rng: &mut impl Rng) -> Vec<bool> {
    let mut dropped = Vec::with_capacity(rows * edges.num_edges());
    for _ in 0..rows {
        for (range, &target) in edges.offsets().windows(2).zip(edges.targets()) {
            let first = dropped.len();
            for &source in &edges.sources()[range[0] as usize..range[1] as usize] {
                let drawn = rng.random::<f32>() < p;
                dropped.push(drawn && source != target);
            }
            if dropped[first..].iter().all(|&dropped| dropped) {
                dropped[first..].fill(false);
            }
        }
    }
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

    fn rng(seed: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(seed)
    }

    #[test]
    fn scales_are_0_or_the_inverse_of_the_kept_share_and_average_1() {
        for p in [0.1f32, 0.5, 0.9] {
            let drawn = scales(p, 40_000, &mut rng(1));
            let kept = 1.0 / (1.0 - p);
            assert!(drawn.iter().all(|&scale| scale == 0.0 || scale == kept));
            let mean = drawn.iter().map(|&scale| f64::from(scale)).sum::<f64>() / 40_000.0;
            // The standard error is sqrt(p / (1 - p) / 40000): 0.015 at most.
            assert!((mean - 1.0).abs() < 0.05, "{p}: {mean}");
        }
    }

    /// Row 0 of three is read from by 0 and 1, row 1 by 1, 0 and 2, row 2 by 0 and 1 without itself.
    fn edges() -> GatEdges {
        let sources = vec![0, 1, 1, 0, 2, 0, 1];
        GatEdges::new(vec![0, 2, 5, 7], sources, vec![0; 7], vec![0.0; 7], vec![0, 1, 2], 3, 1).unwrap()
    }

    #[test]
    fn self_loops_stay_and_no_target_loses_every_edge() {
        let dropped = dropped_edges(&edges(), 0.9, 2_000, &mut rng(2));
        let share =
            |edge: usize| dropped.iter().skip(edge).step_by(7).filter(|&&d| d).count() as f64 / 2_000.0;
        assert_eq!((share(0), share(2)), (0.0, 0.0), "self loops");
        for row in dropped.chunks_exact(7) {
            assert!(!(row[5] && row[6]), "the last target keeps an edge");
        }
        // 0.9 where a self loop stays; 0.9 - 0.81 where both edges would go and are kept. Error 0.007.
        for (edge, expected) in [(1, 0.9), (3, 0.9), (4, 0.9), (5, 0.09), (6, 0.09)] {
            assert!((share(edge) - expected).abs() < 0.035, "edge {edge}: {}", share(edge));
        }
    }

    #[test]
    fn every_row_has_its_own_graph_and_a_seed_draws_the_same_again() {
        let drawn = dropped_edges(&edges(), 0.5, 50, &mut rng(3));
        assert!(drawn.chunks_exact(7).any(|row| *row != drawn[..7]));
        assert_eq!(drawn, dropped_edges(&edges(), 0.5, 50, &mut rng(3)));
        assert_ne!(drawn, dropped_edges(&edges(), 0.5, 50, &mut rng(4)));
    }
}
