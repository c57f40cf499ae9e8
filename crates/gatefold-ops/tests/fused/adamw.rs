use burn::backend::Flex;
use burn::tensor::Tensor;
use gatefold_ops::{AdamwStep, adamw_step, composed, squared_norm};
use proptest::prelude::*;

use crate::support::*;

fn step_at(t: i32, grad_scale: f32) -> AdamwStep {
    AdamwStep {
        lr: 3e-3,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-5,
        weight_decay: 0.01,
        grad_scale,
        bias_correction1: 1.0 - 0.9f32.powi(t),
        bias_correction2: 1.0 - 0.999f32.powi(t),
    }
}

proptest! {
    #![proptest_config(cases(32))]
    #[test]
    fn the_kernel_equals_the_composition(rows in 1usize..30, cols in 1usize..40, t in 1i32..100, seed: u64) {
        let mut n = Numbers::new(seed);
        let [p, g, m, v] = [(); 4].map(|()| n.tensor([rows, cols]));
        let v = v.abs();
        let step = step_at(t, 0.7);
        let plain = composed::adamw_step(p.clone(), g.clone(), m.clone(), v.clone(), &step);
        let fused = adamw_step(p, g, m, v, &step);
        assert_close("parameter", &fused.0, &plain.0);
        assert_close("first moment", &fused.1, &plain.1);
        assert_close("second moment", &fused.2, &plain.2);
    }

    #[test]
    fn the_squared_norm_equals_its_f64_sum(rows in 1usize..30, cols in 1usize..40, seed: u64) {
        let g = Numbers::new(seed).tensor([rows, cols]);
        let exact: f64 = values(&g).into_iter().map(|x| f64::from(x) * f64::from(x)).sum();
        let got = f64::from(squared_norm(g).into_scalar());
        prop_assert!((got - exact).abs() <= 1e-7 * exact, "{got} {exact}");
    }
}

#[test]
fn three_steps_follow_a_scalar_f64_adamw() {
    let gradients = [0.5f32, -2.0, 0.25];
    let mut state = (from_vec(vec![1.0], [1]), from_vec(vec![0.0], [1]), from_vec(vec![0.0], [1]));
    let (mut p, mut m, mut v) = (1.0f64, 0.0f64, 0.0f64);
    for (t, &g) in (1..).zip(&gradients) {
        let step = step_at(t, 0.5);
        state = adamw_step(state.0, from_vec(vec![g], [1]), state.1, state.2, &step);
        let g = f64::from(g) * 0.5;
        p *= 1.0 - 3e-3 * 0.01;
        m = 0.9 * m + 0.1 * g;
        v = 0.999 * v + 0.001 * g * g;
        let (m_hat, v_hat) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.999f64.powi(t)));
        p -= 3e-3 * m_hat / (v_hat.sqrt() + 1e-5);
    }
    assert!((f64::from(state.0.into_scalar()) - p).abs() < 1e-6);
}

#[test]
fn other_handles_of_the_same_memory_keep_their_values() {
    let mut n = Numbers::new(3);
    let [p, g, m, v] = [(); 4].map(|()| n.tensor([4, 5]).abs());
    let before = [&p, &m, &v].map(bits);
    let after = adamw_step(p.clone(), g, m.clone(), v.clone(), &step_at(1, 1.0));
    assert_eq!([&p, &m, &v].map(bits), before);
    assert_ne!(bits(&after.0), before[0]);
}

#[test]
fn large_tensors_give_the_same_bits_on_any_number_of_threads() {
    let at = |threads| {
        with_threads(threads, || {
            let mut n = Numbers::new(9);
            let [p, g, m, v] = [(); 4].map(|()| from_vec(n.vec(1_100_000), [1_100_000]).abs());
            let norm: Tensor<Flex, 1> = squared_norm(g.clone());
            let (p, m, v) = adamw_step(p, g, m, v, &step_at(4, 1.0));
            (bits(&norm), bits(&p), bits(&m), bits(&v))
        })
    };
    assert!(at(1) == at(2));
}
