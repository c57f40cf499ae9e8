//! What attention and node vectors look like: read back from the device, for reports.

use burn::tensor::{Tensor, backend::Backend};

/// One layer's attention and node vectors in three numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerStatistics {
    /// Mean entropy of attention divided by ln(degree), over rows of degree > 1: 1 is spread evenly,
    /// 0 looks at one neighbour. `None` if every row has one in-edge.
    pub attention_entropy: Option<f64>,
    /// Population variance of all attention weights.
    pub attention_variance: f64,
    /// Mean average distance: `1 - cos(x_i, x_j)` over pairs of nodes of one sample; near 0 the
    /// layers have smoothed all nodes into one. `None` for a single node.
    /// Source: Chen et al. 2020, arXiv 1909.03211.
    pub smoothness: Option<f64>,
}

impl LayerStatistics {
    /// Of attention `[B, E, H]` over CSR rows `offsets`, and node vectors `[B, T, D]`.
    pub(crate) fn new<B: Backend>(offsets: &[u32], attention: &Tensor<B, 3>, nodes: &Tensor<B, 3>) -> Self {
        let ([_, edges, heads], [_, rows, width]) = (attention.dims(), nodes.dims());
        let weights = to_host(attention);
        Self {
            attention_entropy: normalised_entropy(offsets, &weights, edges, heads),
            attention_variance: variance(&weights),
            smoothness: mean_average_distance(&to_host(nodes), rows, width),
        }
    }
}

fn to_host<B: Backend>(tensor: &Tensor<B, 3>) -> Vec<f64> {
    tensor.to_data().convert::<f64>().into_vec().expect("converted to f64")
}

fn normalised_entropy(offsets: &[u32], weights: &[f64], edges: usize, heads: usize) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0u64);
    for sample in weights.chunks_exact((edges * heads).max(1)) {
        for row in offsets.windows(2).filter(|row| row[1] - row[0] > 1) {
            let most = f64::from(row[1] - row[0]).ln();
            for head in 0..heads {
                let weights = (row[0]..row[1]).map(|e| sample[e as usize * heads + head]);
                sum += weights.filter(|&p| p > 0.0).map(|p| -p * p.ln()).sum::<f64>() / most;
                count += 1;
            }
        }
    }
    (count > 0).then(|| sum / count as f64)
}

fn variance(values: &[f64]) -> f64 {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count
}

/// Of unit vectors `u`, the sum of `u_i . u_j` over pairs is `(|sum u|^2 - sum |u|^2) / 2`: one pass over
/// the nodes, where there may be thousands.
fn mean_average_distance(nodes: &[f64], rows: usize, width: usize) -> Option<f64> {
    let pairs = (rows * rows.saturating_sub(1) / 2) as f64;
    let (mut distance, mut count) = (0.0, 0.0);
    for sample in nodes.chunks_exact((rows * width).max(1)).filter(|_| pairs > 0.0) {
        let (mut sum, mut squares) = (vec![0.0; width], 0.0);
        for row in sample.chunks_exact(width) {
            let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
            for (sum, v) in sum.iter_mut().zip(row) {
                *sum += v / norm;
                squares += (v / norm).powi(2);
            }
        }
        let cosines = (sum.iter().map(|v| v * v).sum::<f64>() - squares) / 2.0;
        distance += pairs - cosines;
        count += pairs;
    }
    (count > 0.0).then(|| distance / count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;
    use burn::tensor::TensorData;

    fn tensor(values: Vec<f32>, shape: [usize; 3]) -> Tensor<Flex, 3> {
        Tensor::from_data(TensorData::new(values, shape), &Default::default())
    }

    #[test]
    fn even_and_sharp_attention_have_entropy_one_and_zero() {
        let nodes = tensor(vec![1.0, 0.0, 0.0, 1.0], [1, 2, 2]);
        let of = |weights| LayerStatistics::new(&[0, 2, 3], &tensor(weights, [1, 3, 1]), &nodes);
        let even = of(vec![0.5, 0.5, 1.0]);
        assert!((even.attention_entropy.unwrap() - 1.0).abs() < 1e-12);
        assert!((even.attention_variance - 1.0 / 18.0).abs() < 1e-9, "{even:?}");
        assert_eq!(of(vec![1.0, 0.0, 1.0]).attention_entropy, Some(0.0));
        let single =
            LayerStatistics::new(&[0, 1], &tensor(vec![1.0], [1, 1, 1]), &tensor(vec![1.0], [1, 1, 1]));
        assert_eq!((single.attention_entropy, single.smoothness), (None, None));
    }

    #[test]
    fn equal_orthogonal_and_opposite_nodes_are_0_1_and_2_apart() {
        let of = |nodes| {
            let weights = tensor(vec![1.0, 1.0], [1, 2, 1]);
            LayerStatistics::new(&[0, 1, 2], &weights, &tensor(nodes, [1, 2, 2])).smoothness.unwrap()
        };
        for (nodes, expected) in [
            (vec![1.0, 2.0, 2.0, 4.0], 0.0),
            (vec![1.0, 0.0, 0.0, 3.0], 1.0),
            (vec![1.0, 0.0, -2.0, 0.0], 2.0),
        ] {
            assert!((of(nodes.clone()) - expected).abs() < 1e-12, "{nodes:?}");
        }
    }

    #[test]
    fn distances_of_many_nodes_are_those_of_their_pairs() {
        let (samples, rows, width) = (3, 9, 5);
        let mut nodes: Vec<f64> = (0..samples * rows * width).map(|i| (i as f64 * 1.7).sin() + 0.3).collect();
        nodes[width..2 * width].fill(0.0); // a node of nothing is 1 from every other
        let (mut sum, mut count) = (0.0, 0);
        for sample in nodes.chunks_exact(rows * width) {
            let rows: Vec<&[f64]> = sample.chunks_exact(width).collect();
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
            for (i, a) in rows.iter().enumerate() {
                for b in &rows[i + 1..] {
                    let norms = (dot(a, a) * dot(b, b)).sqrt();
                    sum += if norms > 0.0 { 1.0 - dot(a, b) / norms } else { 1.0 };
                    count += 1;
                }
            }
        }
        let found = mean_average_distance(&nodes, rows, width).unwrap();
        assert!((found - sum / f64::from(count)).abs() < 1e-12, "{found}");
    }
}
