//! How unequally graph attention is spread, pulled to a middle.

use burn::tensor::{Tensor, TensorData, backend::Backend};

use crate::collect::to_host;

// B minibatch, E edges by target, H heads, n in-edges of one target

/// The Gini coefficient that [`attention_gini_loss`] pulls to.
const GINI_TARGET: f32 = 0.3;

/// Mean Gini coefficient of attention `[B, E, H]`, over samples, heads and the targets that have
/// more than one in-edge; `None` if there is no such target.
///
/// Of one target's weights: `sum_ij |w_i - w_j| / (2 n)`, as they sum to 1. 0 is even, `1 - 1/n`
/// looks at one neighbour. `offsets` are the CSR rows: edges `offsets[v]..offsets[v + 1]` lead to
/// target v. Reads the weights from the device, to sort them: given their order the coefficient
/// is linear in them, `sum_i w_i (#{w_j < w_i} - #{w_j > w_i}) / n`.
pub fn attention_gini<B: Backend>(attention: Tensor<B, 3>, offsets: &[u32]) -> Option<Tensor<B, 1>> {
    let [batch, edges, heads] = attention.dims();
    assert_eq!(offsets.last().map(|&end| end as usize), Some(edges), "attention has one weight per edge");
    let targets: Vec<&[u32]> = offsets.windows(2).filter(|row| row[1] - row[0] > 1).collect();
    if targets.is_empty() || batch == 0 {
        return None;
    }
    let count = (batch * targets.len() * heads) as f32;
    let weights = to_host(attention.clone().detach());
    let mut slopes = vec![0.0; weights.len()];
    let mut ascending: Vec<usize> = Vec::new();
    for sample in (0..batch).map(|b| b * edges) {
        for row in &targets {
            for head in 0..heads {
                ascending.clear();
                ascending.extend((row[0] as usize..row[1] as usize).map(|e| (sample + e) * heads + head));
                ascending.sort_unstable_by(|&i, &j| weights[i].total_cmp(&weights[j]));
                rank_slopes(&ascending, &weights, &mut slopes);
            }
        }
    }
    let slopes = TensorData::new(slopes, [batch, edges, heads]);
    Some((attention.clone() * Tensor::from_data(slopes, &attention.device())).sum() / count)
}

/// `(#{w_j < w_i} - #{w_j > w_i}) / n` for each i of `ascending`; equal weights share theirs.
fn rank_slopes(ascending: &[usize], weights: &[f32], slopes: &mut [f32]) {
    let mut below = 0;
    for equal in ascending.chunk_by(|&i, &j| weights[i] == weights[j]) {
        let above = ascending.len() - below - equal.len();
        for &i in equal {
            slopes[i] = (below as f32 - above as f32) / ascending.len() as f32;
        }
        below += equal.len();
    }
}

/// `(gini - .3)^2` of each layer's mean [`attention_gini`]: attention should neither look everywhere nor at one
/// node alone.
///
/// The square is of the mean, so single nodes are free to differ.
pub fn attention_gini_loss<B: Backend>(gini: Tensor<B, 1>) -> Tensor<B, 1> {
    (gini - GINI_TARGET).square()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::probe::{assert_close, probe, tensor};
    use burn::backend::Flex;

    fn gini(weights: &[f32], offsets: &[u32], heads: usize) -> Option<f32> {
        let edges = *offsets.last().unwrap() as usize;
        let attention = tensor::<Flex, 3>(weights, [weights.len() / edges / heads, edges, heads]);
        attention_gini(attention, offsets).map(Tensor::into_scalar)
    }

    #[test]
    fn even_weights_have_gini_zero_and_one_neighbour_the_most() {
        for (weights, expected) in [
            (vec![0.25; 4], 0.0),
            (vec![0.0, 1.0, 0.0, 0.0], 0.75),
            (vec![0.5, 0.5, 0.0, 0.0], 0.5),
            (vec![0.125, 0.25, 0.5, 0.125], 0.3125),
        ] {
            assert_close(&[gini(&weights, &[0, 4], 1).unwrap()], &[expected]);
        }
    }

    #[test]
    fn targets_heads_and_samples_are_averaged_and_single_edges_left_out() {
        // Targets: edges 0..2, edge 2, none, edges 3..5; two heads; two samples.
        let first = [1.0, 0.5, 0.0, 0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.5];
        let second = [0.5, 0.5, 0.5, 0.5, 1.0, 1.0, 0.5, 0.0, 0.5, 1.0];
        let mean = (0.5 + 0.25 + 0.5) / 8.0;
        assert_close(&[gini(&[first, second].concat(), &[0, 2, 3, 3, 5], 2).unwrap()], &[mean]);
        assert_eq!(gini(&[1.0, 1.0], &[0, 1, 2], 1), None);
    }

    #[test]
    fn the_loss_pulls_even_attention_apart_and_sharp_attention_together() {
        let of = |weights: [f32; 2]| {
            probe(&weights, [1, 2, 1], |attention| {
                attention_gini_loss(attention_gini(attention, &[0, 2]).unwrap())
            })
        };
        let (value, grad) = of([1.0, 0.0]); // gini .5
        assert_close(&[value], &[0.04]);
        assert_close(&grad, &[0.2, -0.2]);
        let (value, grad) = of([0.375, 0.625]); // gini .125
        assert_close(&[value], &[0.030625]);
        assert_close(&grad, &[0.175, -0.175]);
        let (value, grad) = of([0.5, 0.5]); // equal weights have no order: a saddle
        assert_close(&[value], &[0.09]);
        assert_eq!(grad, [0.0, 0.0]);
    }

    #[test]
    fn a_nan_in_attention_is_not_hidden() {
        assert!(gini(&[f32::NAN, 0.5, 0.5], &[0, 3], 1).unwrap().is_nan());
    }
}
