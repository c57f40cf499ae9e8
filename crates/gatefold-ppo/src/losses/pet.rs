//! PET: how much a trajectory of encodings or gates bends.

use burn::tensor::{Tensor, backend::Backend};

use super::segments::pick;
use crate::collect::to_host;

// B minibatch, D width of what is compared

/// `mean (h_{t+2} - 2 h_{t+1} + h_t)^2` over `h` `[B, D]` (`h_obs` or gates) and triples of rows of
/// one episode ([`adjacent_triples`](super::adjacent_triples)).
///
/// With `huber` = delta > 0 a second difference beyond delta costs `delta (2 |e| - delta)` in place
/// of `e^2`: twice Huber's loss, so that delta changes large ones alone. A straight line costs
/// nothing. Exactly 0, without gradient, where there is no triple.
pub fn pet<B: Backend>(h: Tensor<B, 2>, triples: &[Vec<usize>; 3], huber: Option<f32>) -> Tensor<B, 1> {
    if triples[0].is_empty() {
        return Tensor::zeros([1], &h.device());
    }
    let bend = second_differences(&h, triples);
    match huber {
        None => bend.square().mean(),
        Some(delta) => {
            assert!(delta > 0.0, "Huber's delta {delta} must be above 0");
            let near = bend.clone().detach().clamp(-delta, delta);
            (near.clone() * (bend * 2.0 - near)).mean()
        }
    }
}

/// The largest `|h_{t+2} - 2 h_{t+1} + h_t|` of any element; `None` where there is no triple. Reads
/// from the device.
pub fn largest_second_difference<B: Backend>(h: &Tensor<B, 2>, triples: &[Vec<usize>; 3]) -> Option<f64> {
    let far = |h| to_host(h).iter().map(|&x| f64::from(x).abs()).fold(0.0, f64::max);
    (!triples[0].is_empty()).then(|| far(second_differences(&h.clone().detach(), triples)))
}

fn second_differences<B: Backend>(h: &Tensor<B, 2>, triples: &[Vec<usize>; 3]) -> Tensor<B, 2> {
    let [first, second, third] = triples.each_ref().map(|rows| pick(h, rows));
    third - second * 2.0 + first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::adjacent_triples;
    use crate::losses::probe::{assert_close, probe, tensor};
    use crate::losses::segments::segment_rows;
    use burn::backend::Flex;

    #[test]
    fn a_straight_line_costs_nothing_and_a_bend_its_square() {
        let one = [vec![0], vec![1], vec![2]];
        let of = |h: &[f32], huber| probe(h, [3, 1], |h| pet(h, &one, huber));
        assert_eq!(of(&[1.0, 3.0, 5.0], None), (0.0, vec![0.0; 3]));
        assert_eq!(of(&[0.0, 0.0, 3.0], None), (9.0, vec![6.0, -12.0, 6.0]));
        // Within delta the square; beyond it delta (2 |e| - delta) with gradient 2 delta.
        assert_eq!(of(&[0.0, 0.0, 3.0], Some(4.0)), (9.0, vec![6.0, -12.0, 6.0]));
        assert_eq!(of(&[0.0, 0.0, -3.0], Some(0.5)), (2.75, vec![-1.0, 2.0, -1.0]));
        let h = tensor::<Flex, 2>(&[0.0, 0.0, -3.0], [3, 1]);
        assert_eq!(largest_second_difference(&h, &one), Some(3.0));
    }

    #[test]
    fn no_triple_crosses_an_episode_end_and_without_one_the_loss_is_exactly_zero() {
        let h = [0.0, 1.0, 0.0, 100.0, -7.0];
        let rows = segment_rows(&[(0, false), (0, false), (0, true), (0, false), (1, false)]);
        let (value, grad) = probe(&h, [5, 1], |h| pet(h, &adjacent_triples(&rows), None));
        assert_close(&[value], &[4.0]);
        assert_close(&grad, &[-4.0, 8.0, -4.0, 0.0, 0.0]);
        let none = adjacent_triples(&rows[2..]);
        assert_eq!(probe(&h, [5, 1], |h| pet(h, &none, None)), (0.0, vec![0.0; 5]));
        assert_eq!(largest_second_difference(&tensor::<Flex, 2>(&h, [5, 1]), &none), None);
    }
}
