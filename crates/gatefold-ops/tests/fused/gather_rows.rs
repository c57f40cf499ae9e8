use std::sync::Arc;

use burn::tensor::Tensor;
use gatefold_ops::{composed, gather_rows};

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
