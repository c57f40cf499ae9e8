use burn::backend::Flex;
use burn::tensor::Tensor;
use gatefold_ops::{composed, embed_nodes};
use proptest::prelude::*;

use crate::support::*;

type Embed = fn(Tensor<Train, 2>, Tensor<Train, 3>, Tensor<Train, 2>) -> Tensor<Train, 3>;
type Outcome = (Tensor<Flex, 3>, Tensor<Flex, 2>, Tensor<Flex, 2>);

/// With `[batch, nodes, numbers of a node, width]`.
fn run(embed: Embed, [batch, nodes, numbers, width]: [usize; 4], seed: u64) -> Outcome {
    let mut n = Numbers::new(seed);
    let (base, directions) = (leaf(&n.tensor([nodes, width])), leaf(&n.tensor([numbers, width])));
    let (inputs, g) = (data(&n.tensor([batch, nodes, numbers])), data(&n.tensor([batch, nodes, width])));
    let out = embed(base.clone(), inputs, directions.clone());
    let grads = (out.clone() * g).sum().backward();
    (out.inner(), base.grad(&grads).expect("base"), directions.grad(&grads).expect("directions"))
}

proptest! {
    #![proptest_config(cases(32))]
    #[test]
    fn the_kernel_equals_the_composition(
        batch in 1usize..20, nodes in 1usize..20, numbers in 1usize..20, width in 1usize..40, seed: u64,
    ) {
        let shape = [batch, nodes, numbers, width];
        let fused = run(embed_nodes, shape, seed);
        let plain = run(composed::embed_nodes, shape, seed);
        assert_close("value", &fused.0, &plain.0);
        assert_close("gradient of the base", &fused.1, &plain.1);
        assert_close("gradient of the directions", &fused.2, &plain.2);
    }
}

#[test]
fn gradients_do_not_depend_on_the_number_of_threads() {
    let at = |threads| {
        with_threads(threads, || {
            let (y, base, directions) = run(embed_nodes, [200, 60, 3, 64], 1);
            (bits(&y), bits(&base), bits(&directions))
        })
    };
    assert!(at(1) == at(2));
}
