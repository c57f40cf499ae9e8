use burn::backend::Flex;
use burn::tensor::Tensor;
use gatefold_ops::{
    Activation, ActivePairs, OpsBackend, composed, expert_linear, mix, pack, packed_expert_linear, packed_mix,
};
use proptest::prelude::*;

use crate::support::*;

// K experts, B rows

/// Two layers of experts and the gates that mix them.
struct Case {
    x: Tensor<Flex, 2>,
    layers: Vec<(Tensor<Flex, 3>, Tensor<Flex, 2>)>,
    gates: Vec<f32>,
    g: Tensor<Flex, 2>,
    act: Activation,
}

/// The mix and the gradients of x, gates, weights and biases of the first layer, and of the second.
type Outcome = (Tensor<Flex, 2>, Vec<Tensor<Flex, 2>>, Vec<Tensor<Flex, 3>>);

impl Case {
    /// `share` of the gates are above 0.
    fn new([experts, rows, inputs, outputs]: [usize; 4], share: f32, act: Activation, seed: u64) -> Self {
        let mut n = Numbers::new(seed);
        let hidden = 7;
        Self {
            x: n.tensor([rows, inputs]),
            layers: [(inputs, hidden), (hidden, outputs)]
                .map(|(from, to)| (n.tensor([experts, from, to]), n.tensor([experts, to])))
                .into(),
            gates: (0..experts * rows)
                .map(|_| if n.next() < 2.0 * share - 1.0 { 1.1 + n.next() } else { 0.0 })
                .collect(),
            g: n.tensor([rows, outputs]),
            act,
        }
    }

    fn pairs(&self) -> ActivePairs {
        ActivePairs::from_gates(&self.gates, self.num_experts())
    }

    fn num_experts(&self) -> usize {
        self.layers[0].1.dims()[0]
    }

    fn gates<B: OpsBackend>(&self) -> Tensor<B, 2> {
        let shape = [self.gates.len() / self.num_experts(), self.num_experts()];
        let data = burn::tensor::TensorData::new(self.gates.clone(), shape);
        Tensor::from_data(data, &Default::default())
    }

    fn run(
        &self,
        experts: impl Fn(
            Tensor<Train, 2>,
            Tensor<Train, 2>,
            &[(Tensor<Train, 3>, Tensor<Train, 2>)],
        ) -> Tensor<Train, 2>,
    ) -> Outcome {
        let (x, gates) = (leaf(&self.x), self.gates::<Train>().require_grad());
        let layers: Vec<_> = self.layers.iter().map(|(w, b)| (leaf(w), leaf(b))).collect();
        let y = experts(x.clone(), gates.clone(), &layers);
        let grads = (y.clone() * data(&self.g)).sum().backward();
        let missing = "a gradient for every input";
        let mut flat = vec![x.grad(&grads).expect(missing), gates.grad(&grads).expect(missing)];
        flat.extend(layers.iter().map(|(_, b)| b.grad(&grads).expect(missing)));
        (y.inner(), flat, layers.iter().map(|(w, _)| w.grad(&grads).expect(missing)).collect())
    }

    fn packed(&self) -> Outcome {
        let pairs = self.pairs();
        self.run(|x, gates, layers| {
            let h = pack(x, &pairs);
            let [(w1, b1), (w2, b2)] = layers else { unreachable!("two layers") };
            let h = packed_expert_linear(h, w1.clone(), b1.clone(), self.act, &pairs);
            let y = packed_expert_linear(h, w2.clone(), b2.clone(), Activation::Identity, &pairs);
            packed_mix(gates, y, &pairs)
        })
    }

    fn composed(&self) -> Outcome {
        let pairs = self.pairs();
        self.run(|x, gates, layers| {
            let h = composed::pack(x, &pairs);
            let [(w1, b1), (w2, b2)] = layers else { unreachable!("two layers") };
            let h = composed::packed_expert_linear(h, w1.clone(), b1.clone(), self.act, &pairs);
            let y = composed::packed_expert_linear(h, w2.clone(), b2.clone(), Activation::Identity, &pairs);
            composed::packed_mix(gates, y, &pairs)
        })
    }

    /// Every expert on every row; what is not active is multiplied by a gate of 0.
    fn dense(&self) -> Outcome {
        self.run(|x, gates, layers| {
            let [(w1, b1), (w2, b2)] = layers else { unreachable!("two layers") };
            let h = expert_linear(x.unsqueeze_dim(0), w1.clone(), b1.clone(), self.act);
            let y = expert_linear(h, w2.clone(), b2.clone(), Activation::Identity);
            mix(gates, y.swap_dims(0, 1))
        })
    }

    /// Gradients of gates that are exactly 0 set to 0, as the routings that are 0 there do.
    fn without_skipped_gates(&self, mut outcome: Outcome) -> Outcome {
        let skipped = self.gates::<Flex>().equal_elem(0.0);
        outcome.1[1] = outcome.1[1].clone().mask_fill(skipped, 0.0);
        outcome
    }
}

fn check_close(got: &Outcome, expected: &Outcome, tolerance: f32) {
    assert_within("value", tolerance, 0.0, &got.0, &expected.0);
    for (what, (got, expected)) in
        ["x", "gates", "bias 1", "bias 2"].iter().zip(got.1.iter().zip(&expected.1))
    {
        assert_within(&format!("gradient of {what}"), tolerance, 1e-6, got, expected);
    }
    for (got, expected) in got.2.iter().zip(&expected.2) {
        assert_within("gradient of weights", tolerance, 1e-6, got, expected);
    }
}

proptest! {
    #![proptest_config(cases(32))]
    #[test]
    fn the_kernels_equal_their_compositions(
        experts in 1usize..6, rows in 1usize..30, inputs in 1usize..20, outputs in 1usize..20,
        share in 0.2f32..1.0, seed: u64,
    ) {
        for act in [Activation::Identity, Activation::Tanh, Activation::Relu] {
            let case = Case::new([experts, rows, inputs, outputs], share, act, seed);
            if !case.pairs().is_empty() {
                check_close(&case.packed(), &case.composed(), 1e-5);
            }
        }
    }

    #[test]
    fn values_have_the_bits_of_the_dense_computation_and_gradients_its_numbers(
        experts in 1usize..6, rows in 1usize..300, seed: u64,
    ) {
        let case = Case::new([experts, rows, 12, 9], 0.4, Activation::Tanh, seed);
        let (packed, dense) = (case.packed(), case.without_skipped_gates(case.dense()));
        prop_assert_eq!(bits(&packed.0), bits(&dense.0));
        check_close(&packed, &dense, 1e-6);
    }
}

#[test]
fn experts_with_more_weights_than_a_cache_holds_give_the_bits_of_each_alone() {
    // Some have many rows, some few, and some none.
    let mut case = Case::new([300, 240, 70, 65], 0.05, Activation::Relu, 6);
    for (at, gate) in case.gates.iter_mut().enumerate() {
        match at % 300 {
            expert if expert % 7 == 0 => *gate = 0.0,
            expert if expert % 11 == 0 => *gate = 0.5,
            _ => {}
        }
    }
    let (packed, dense) = (case.packed(), case.without_skipped_gates(case.dense()));
    assert!(bits(&packed.0) == bits(&dense.0));
    check_close(&packed, &dense, 1e-6);
}

#[test]
fn a_batch_without_pairs_is_zero_and_so_are_its_gradients() {
    let case = Case::new([3, 5, 4, 2], 0.0, Activation::Tanh, 1);
    assert!(case.pairs().is_empty());
    let (y, flat, weights) = case.packed();
    assert!(
        values(&y).iter().chain(flat.iter().flat_map(values).collect::<Vec<_>>().iter()).all(|&x| x == 0.0)
    );
    assert!(weights.iter().flat_map(values).all(|x| x == 0.0));
    let (pairs, (weight, bias)) = (case.pairs(), &case.layers[0]);
    let packed = composed::pack(case.x.clone(), &pairs);
    let y = composed::packed_expert_linear(packed, weight.clone(), bias.clone(), case.act, &pairs);
    assert_eq!(y.dims(), [0, 7]);
}

#[test]
fn an_expert_without_rows_gets_a_gradient_of_zero() {
    let mut case = Case::new([3, 40, 6, 5], 0.9, Activation::Relu, 3);
    case.gates.chunks_exact_mut(3).for_each(|row| row[1] = 0.0);
    let (_, _, weights) = case.packed();
    for gradient in weights {
        let [_, from, to] = gradient.dims();
        let gradient = values(&gradient);
        let (size, nonzero) = (from * to, |x: &&f32| **x != 0.0);
        assert_eq!(gradient[size..2 * size].iter().filter(nonzero).count(), 0);
        assert!(gradient[..size].iter().filter(nonzero).count() > size / 2);
    }
}

#[test]
fn gradients_do_not_depend_on_the_number_of_threads() {
    let at = |threads| {
        with_threads(threads, || {
            let (y, flat, weights) = Case::new([4, 900, 64, 48], 0.7, Activation::Tanh, 2).packed();
            (
                bits(&y),
                flat.iter().map(bits).collect::<Vec<_>>(),
                weights.iter().map(bits).collect::<Vec<_>>(),
            )
        })
    };
    assert!(at(1) == at(2));
}

#[test]
#[should_panic(expected = "pack: rows of x and of the pairs")]
fn pairs_of_another_batch_are_refused() {
    pack(from_vec(vec![0.0; 4], [2, 2]), &ActivePairs::from_gates(&[1.0; 3], 1));
}
