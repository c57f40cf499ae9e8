use burn::backend::Flex;
use burn::tensor::Tensor;
use gatefold_ops::{Activation, composed, expert_linear, linear, mix};
use proptest::prelude::*;

use crate::support::*;

// K experts, B rows

type Layer = fn(Tensor<Train, 3>, Tensor<Train, 3>, Tensor<Train, 2>, Activation) -> Tensor<Train, 3>;

struct Case {
    x: Tensor<Flex, 3>,
    weight: Tensor<Flex, 3>,
    bias: Tensor<Flex, 2>,
    g: Tensor<Flex, 3>,
}

impl Case {
    fn new([experts, rows, inputs, outputs]: [usize; 4], shared: bool, seed: u64) -> Self {
        let mut n = Numbers::new(seed);
        Self {
            x: n.tensor([if shared { 1 } else { experts }, rows, inputs]),
            weight: n.tensor([experts, inputs, outputs]),
            bias: n.tensor([experts, outputs]),
            g: n.tensor([experts, rows, outputs]),
        }
    }

    fn run(
        &self,
        layer: Layer,
        act: Activation,
    ) -> (Tensor<Flex, 3>, Tensor<Flex, 3>, Tensor<Flex, 3>, Tensor<Flex, 2>) {
        let (x, w, b) = (leaf(&self.x), leaf(&self.weight), leaf(&self.bias));
        let y = layer(x.clone(), w.clone(), b.clone(), act);
        let grads = (y.clone() * data(&self.g)).sum().backward();
        let missing = "a gradient for every input";
        (
            y.inner(),
            x.grad(&grads).expect(missing),
            w.grad(&grads).expect(missing),
            b.grad(&grads).expect(missing),
        )
    }
}

proptest! {
    #![proptest_config(cases(32))]
    #[test]
    fn the_kernel_equals_the_composition(
        experts in 1usize..5, rows in 1usize..20, inputs in 1usize..20, outputs in 1usize..20,
        shared: bool, seed: u64,
    ) {
        let case = Case::new([experts, rows, inputs, outputs], shared, seed);
        for act in [Activation::Identity, Activation::Tanh, Activation::Relu] {
            let fused = case.run(expert_linear, act);
            let plain = case.run(composed::expert_linear, act);
            assert_close("value", &fused.0, &plain.0);
            assert_close("gradient of x", &fused.1, &plain.1);
            assert_close("gradient of the weights", &fused.2, &plain.2);
            assert_close("gradient of the biases", &fused.3, &plain.3);
        }
    }

    #[test]
    fn mixing_equals_its_composition(
        rows in 1usize..20, experts in 1usize..6, width in 1usize..20, seed: u64,
    ) {
        let mut n = Numbers::new(seed);
        let (weights, items) = (n.tensor([rows, experts]), n.tensor([rows, experts, width]));
        let g = n.tensor([rows, width]);
        let run = |mix: fn(Tensor<Train, 2>, Tensor<Train, 3>) -> Tensor<Train, 2>| {
            let (weights, items) = (leaf(&weights), leaf(&items));
            let y = mix(weights.clone(), items.clone());
            let grads = (y.clone() * data(&g)).sum().backward();
            (y.inner(), weights.grad(&grads).expect("weights"), items.grad(&grads).expect("items"))
        };
        let (fused, plain) = (run(mix), run(composed::mix));
        assert_close("value", &fused.0, &plain.0);
        assert_close("gradient of the weights", &fused.1, &plain.1);
        assert_close("gradient of the items", &fused.2, &plain.2);
    }
}

#[test]
fn an_expert_is_a_linear_layer() {
    let case = Case::new([3, 20, 5, 17], true, 8);
    let all = expert_linear(case.x.clone(), case.weight.clone(), case.bias.clone(), Activation::Relu);
    for k in 0..3 {
        let w = case.weight.clone().narrow(0, k, 1).squeeze_dim::<2>(0);
        let b = case.bias.clone().narrow(0, k, 1).squeeze_dim::<1>(0);
        let one = linear(case.x.clone().squeeze_dim::<2>(0), w, b, Activation::Relu);
        assert_eq!(bits(&one), bits(&all.clone().narrow(0, k, 1)));
    }
}

#[test]
fn gradients_do_not_depend_on_the_number_of_threads() {
    let at = |threads| {
        with_threads(threads, || {
            let case = Case::new([4, 300, 48, 48], true, 2);
            let (y, x, w, b) = case.run(expert_linear, Activation::Tanh);
            (bits(&y), bits(&x), bits(&w), bits(&b))
        })
    };
    assert!(at(1) == at(2));
}

#[test]
fn an_item_of_weight_zero_leaves_the_bits_of_the_mix_alone() {
    let mut n = Numbers::new(4);
    let items = values(&n.tensor([6, 3, 5]));
    let weights: Vec<f32> = (0..18).map(|i| if i % 3 == 1 { 0.0 } else { n.next() }).collect();
    let skipped = items.iter().enumerate().map(|(i, &x)| if i / 5 % 3 == 1 { 0.0 } else { x }).collect();
    let weights = from_vec(weights, [6, 3]);
    let dense = mix(weights.clone(), from_vec(items, [6, 3, 5]));
    assert_eq!(bits(&dense), bits(&mix(weights, from_vec(skipped, [6, 3, 5]))));
}
