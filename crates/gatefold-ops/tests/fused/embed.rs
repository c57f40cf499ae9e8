use burn::backend::Flex;
use burn::tensor::Tensor;
use gatefold_ops::{composed, embed_activations};
use proptest::prelude::*;

use crate::support::*;

type Embed = fn(Tensor<Train, 2>, Tensor<Train, 2>, Tensor<Train, 1>) -> Tensor<Train, 3>;
type Outcome = (Tensor<Flex, 3>, Tensor<Flex, 2>, Tensor<Flex, 1>);

fn run(embed: Embed, batch: usize, nodes: usize, width: usize, seed: u64) -> Outcome {
    let mut n = Numbers::new(seed);
    let (base, direction) = (leaf(&n.tensor([nodes, width])), leaf(&n.tensor([width])));
    let (activations, g) = (data(&n.tensor([batch, nodes])), data(&n.tensor([batch, nodes, width])));
    let out = embed(base.clone(), activations, direction.clone());
    let grads = (out.clone() * g).sum().backward();
    (out.inner(), base.grad(&grads).expect("base"), direction.grad(&grads).expect("direction"))
}

proptest! {
    #![proptest_config(cases(32))]
    #[test]
    fn the_kernel_equals_the_composition(
        batch in 1usize..20, nodes in 1usize..20, width in 1usize..40, seed: u64,
    ) {
        let fused = run(embed_activations, batch, nodes, width, seed);
        let plain = run(composed::embed_activations, batch, nodes, width, seed);
        assert_close("value", &fused.0, &plain.0);
        assert_close("gradient of the base", &fused.1, &plain.1);
        assert_close("gradient of the direction", &fused.2, &plain.2);
    }
}

#[test]
fn gradients_do_not_depend_on_the_number_of_threads() {
    let at = |threads| {
        with_threads(threads, || {
            let (y, base, direction) = run(embed_activations, 200, 60, 64, 1);
            (bits(&y), bits(&base), bits(&direction))
        })
    };
    assert!(at(1) == at(2));
}
