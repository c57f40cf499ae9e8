use burn::tensor::Tensor;
use gatefold_ops::in_one_graph;

use crate::support::*;

/// Gradients of a sum of products of so many leaves, of which all but a few want one.
fn gradients(count: usize, together: bool) -> Vec<Option<Vec<f32>>> {
    let mut n = Numbers::new(5);
    let wants = |at: usize| at % 7 != 3;
    let leaves: Vec<Tensor<Train, 1>> =
        (0..count).map(|at| if wants(at) { leaf(&n.tensor([3])) } else { data(&n.tensor([3])) }).collect();
    if together {
        let all: Vec<_> = leaves.iter().map(|leaf| leaf.clone().into_primitive().tensor()).collect();
        in_one_graph::<Train>(&all);
    }
    // The last is used by nothing.
    let used = &leaves[..count.saturating_sub(1)];
    let Some(product) = used.iter().cloned().reduce(|a, b| a * 0.9 + b.clone() * b) else {
        return Vec::new();
    };
    let grads = product.sum().backward();
    leaves.iter().map(|leaf| leaf.grad(&grads).as_ref().map(values)).collect()
}

#[test]
fn leaves_in_one_graph_have_the_gradients_of_leaves_alone() {
    for count in [0, 1, 2, 64, 65, 200] {
        for _ in 0..2 {
            let [together, alone] = [true, false].map(|together| gradients(count, together));
            assert_eq!(together, alone, "{count} leaves");
            let with = together.iter().flatten().count();
            assert_eq!(with, (0..count.saturating_sub(1)).filter(|at| at % 7 != 3).count(), "{count} leaves");
        }
    }
}
