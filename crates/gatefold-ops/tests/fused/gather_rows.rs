use std::sync::Arc;

use burn::tensor::Tensor;
use gatefold_ops::{composed, embed_nodes, embed_rows, gather_rows, mix, mix_rows};

use crate::support::*;

#[test]
fn rows_are_copied_and_their_gradients_added_up_where_they_were_wanted() {
    let mut n = Numbers::new(3);
    for (count, width, wanted) in [(5, 3, 12), (1, 64, 4), (30, 17, 100)] {
        let x = n.tensor([count, width]);
        let rows: Arc<[u32]> = (0..wanted).map(|_| n.below(count) as u32).collect();
        let g: Tensor<_, 2> = n.tensor([wanted, width]);
        let of = |gather: fn(Tensor<Train, 2>, &Arc<[u32]>) -> Tensor<Train, 2>| {
            let x = leaf(&x);
            let out = gather(x.clone(), &rows);
            let grads = (out.clone() * data(&g)).sum().backward();
            (out.inner(), x.grad(&grads).expect("a gradient"))
        };
        let (out, of_x) = of(gather_rows);
        let mut expected = vec![0.0; count * width];
        for (g, &row) in values(&g).chunks(width).zip(&*rows) {
            expected[row as usize * width..][..width].iter_mut().zip(g).for_each(|(sum, g)| *sum += g);
        }
        assert_eq!(values(&of_x), expected, "in the order of the wanted rows");
        let x = values(&x);
        let copied: Vec<f32> =
            rows.iter().flat_map(|&row| x[row as usize * width..][..width].to_vec()).collect();
        assert_eq!(values(&out), copied);
        let (out, of_x) = of(composed::gather_rows);
        assert_eq!(values(&out), copied, "the composition");
        assert_close("gradient", &of_x, &from_vec(expected, [count, width]));
    }
}

#[test]
#[should_panic(expected = "row 4 of 4")]
fn a_row_that_is_not_there_is_refused() {
    gather_rows(from_vec(vec![0.0; 4], [4, 1]), &Arc::from([0, 3, 4]));
}

#[test]
fn picked_rows_are_embedded_and_mixed_with_the_bits_of_all_of_them_in_place() {
    let mut n = Numbers::new(7);
    for (count, width, batch, picked) in [(5, 3, 4, 2), (40, 64, 9, 16), (1, 17, 3, 1)] {
        let rows: Arc<[u32]> = (0..batch * picked).map(|_| n.below(count) as u32).collect();
        let (items, weights) = (n.tensor([count, width]), n.tensor([batch, picked]));
        let g: Tensor<_, 2> = n.tensor([batch, width]);
        type Mix = fn(Tensor<Train, 2>, Tensor<Train, 2>, &Arc<[u32]>) -> Tensor<Train, 2>;
        let of = |run: Mix| {
            let (weights, items) = (leaf(&weights), leaf(&items));
            let out = run(weights.clone(), items.clone(), &rows);
            let grads = (out.clone() * data(&g)).sum().backward();
            (out.inner(), weights.grad(&grads).expect("a gradient"), items.grad(&grads).expect("a gradient"))
        };
        let (fused, plain) = (of(mix_rows), of(composed::mix_rows));
        let spread = gather_rows(items.clone(), &rows).reshape([batch, picked, width]);
        assert_eq!(bits(&fused.0), bits(&mix(weights.clone(), spread)));
        assert_close("mixed", &fused.0, &plain.0);
        assert_close("gradient of weights", &fused.1, &plain.1);
        assert_close("gradient of items", &fused.2, &plain.2);

        let (inputs, directions) = (n.tensor([batch * picked, 3]), n.tensor([3, width]));
        let g: Tensor<_, 2> = n.tensor([batch * picked, width]);
        type Embed =
            fn(Tensor<Train, 2>, &Arc<[u32]>, Tensor<Train, 2>, Tensor<Train, 2>) -> Tensor<Train, 2>;
        let of = |run: Embed| {
            let (base, directions) = (leaf(&items), leaf(&directions));
            let out = run(base.clone(), &rows, data(&inputs), directions.clone());
            let grads = (out.clone() * data(&g)).sum().backward();
            (
                out.inner(),
                base.grad(&grads).expect("a gradient"),
                directions.grad(&grads).expect("a gradient"),
            )
        };
        let (fused, plain) = (of(embed_rows), of(composed::embed_rows));
        let all = gather_rows(items.clone(), &rows);
        let in_place = embed_nodes(all, inputs.clone().unsqueeze(), directions.clone());
        assert_eq!(bits(&fused.0), bits(&in_place.reshape([batch * picked, width])));
        assert_close("embedded", &fused.0, &plain.0);
        assert_close("gradient of the base", &fused.1, &plain.1);
        assert_close("gradient of the directions", &fused.2, &plain.2);
    }
}
