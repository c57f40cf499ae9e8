use burn::backend::Flex;
use burn::tensor::{DType, Tensor, TensorData};
use gatefold_ops::{AllMasked, OpsBackend, composed};
use proptest::prelude::*;

use crate::support::*;

type Function = fn(Tensor<Train, 2>, f32) -> Tensor<Train, 2>;

fn entmax15<B: OpsBackend>(z: Tensor<B, 2>, temperature: f32) -> Tensor<B, 2> {
    gatefold_ops::entmax15(z, temperature).expect("no row is all masked")
}

fn both(check: impl Fn(fn(Tensor<Flex, 2>, f32) -> Tensor<Flex, 2>)) {
    check(entmax15);
    check(composed::entmax15);
}

fn row(z: &[f32]) -> Tensor<Flex, 2> {
    from_vec(z.to_vec(), [1, z.len()])
}

/// The definition by bisection on the threshold, in f64.
fn bisected(z: &[f64], temperature: f64) -> Vec<f64> {
    let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let u: Vec<f64> = z.iter().map(|z| (z - max) / (2.0 * temperature)).collect();
    let (mut low, mut high) = (-1.0, 0.0);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        let sum: f64 = u.iter().map(|u| (u - middle).max(0.0).powi(2)).sum();
        if sum > 1.0 { low = middle } else { high = middle }
    }
    u.into_iter().map(|u| (u - high).max(0.0).powi(2)).collect()
}

fn wide(z: &[f32]) -> Vec<f64> {
    z.iter().map(|&z| f64::from(z)).collect()
}

proptest! {
    #![proptest_config(cases(64))]
    #[test]
    fn the_kernel_equals_the_composition_and_the_definition(
        rows in 1usize..20, k in 1usize..12, temperature in 0.1f32..3.0, coarse: bool, seed: u64,
    ) {
        let mut n = Numbers::new(seed);
        // Coarse numbers make ties.
        let z = if coarse { (n.tensor([rows, k]) * 2.0).round() } else { n.tensor([rows, k]) };
        let g = n.tensor([rows, k]);
        let run = |function: Function| {
            let z = leaf(&z);
            let p = function(z.clone(), temperature);
            let grads = (p.clone() * data(&g)).sum().backward();
            (p.inner(), z.grad(&grads).expect("a gradient"))
        };
        let (fused, plain) = (run(entmax15), run(composed::entmax15));
        assert_close("value", &fused.0, &plain.0);
        assert_close("gradient", &fused.1, &plain.1);
        for (z, p) in values(&z).chunks(k).zip(values(&fused.0).chunks(k)) {
            for (p, exact) in p.iter().zip(bisected(&wide(z), f64::from(temperature))) {
                prop_assert!((f64::from(*p) - exact).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn many_columns_are_sorted_as_well_as_few(k in 60usize..200, seed: u64) {
        let z = Numbers::new(seed).vec(k);
        both(|function| {
            for (p, exact) in values(&function(row(&z), 20.0)).into_iter().zip(bisected(&wide(&z), 20.0)) {
                assert!((f64::from(p) - exact).abs() < 1e-6);
            }
        });
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_definition(k in 1usize..8, temperature in 0.3f32..2.0, seed: u64) {
        let mut n = Numbers::new(seed);
        let (z, upstream) = (n.vec(k), n.vec(k));
        let tracked = leaf(&row(&z));
        let loss = (entmax15(tracked.clone(), temperature) * data(&row(&upstream))).sum();
        let gradient = values(&tracked.grad(&loss.backward()).expect("a gradient"));
        let value = |i: usize, by: f64| -> f64 {
            let mut z = wide(&z);
            z[i] += by;
            bisected(&z, f64::from(temperature)).iter().zip(&upstream).map(|(p, &u)| p * f64::from(u)).sum()
        };
        for (i, &gradient) in gradient.iter().enumerate() {
            let slope = (value(i, 1e-5) - value(i, -1e-5)) / 2e-5;
            prop_assert!((slope - f64::from(gradient)).abs() < 1e-4, "entry {i}: {slope} and {gradient}");
        }
    }
}

#[test]
fn closed_forms_come_out_exactly() {
    let inf = f32::NEG_INFINITY;
    let cases: [(&[f32], f32, &[f32]); 8] = [
        (&[3.0, 0.0], 1.0, &[1.0, 0.0]),
        (&[2.0, 0.0], 1.0, &[1.0, 0.0]),
        (&[7.0], 1.0, &[1.0]),
        (&[2.0, 2.0, 2.0, 2.0], 1.0, &[0.25; 4]),
        (&[0.0, inf, inf, 0.0, 0.0, inf, 0.0], 0.5, &[0.25, 0.0, 0.0, 0.25, 0.25, 0.0, 0.25]),
        (&[inf, -4.0], 1.0, &[0.0, 1.0]),
        (&[1e38, -1e38, 0.0], 0.5, &[1.0, 0.0, 0.0]),
        (&[-1e38, -1e38, -1e38, -1e38, inf], 0.1, &[0.25, 0.25, 0.25, 0.25, 0.0]),
    ];
    both(|function| {
        for (z, temperature, expected) in cases {
            assert_eq!(values(&function(row(z), temperature)), expected, "{z:?} at {temperature}");
        }
        // Two entries: with d = (z_0 - z_1) / (2 temperature) the threshold solves t^2 + (t + d)^2 = 1.
        let (d, p) = (0.25f64, values(&function(row(&[0.5, 0.0]), 1.0)));
        let low = (-d + (2.0 - d * d).sqrt()) / 2.0;
        assert!(
            (f64::from(p[0]) - (low + d).powi(2)).abs() < 1e-6 && (f64::from(p[1]) - low * low).abs() < 1e-6
        );
    });
}

#[test]
fn masked_entries_and_those_outside_the_support_get_no_gradient() {
    for function in [entmax15 as Function, composed::entmax15] {
        let z = leaf(&row(&[0.0, f32::NEG_INFINITY, -9.0, 0.5]));
        let loss = (function(z.clone(), 1.0) * data(&row(&[1.0, 2.0, 3.0, -1.0]))).sum();
        let d = values(&z.grad(&loss.backward()).expect("a gradient"));
        assert!(d[1] == 0.0 && d[2] == 0.0 && d[0] > 0.1 && (d[0] + d[3]).abs() < 1e-6, "{d:?}");
    }
}

#[test]
fn doubles_take_the_composition() {
    let z = [0.3, -0.1, 0.7, 0.7];
    let tensor =
        Tensor::<Flex, 2>::from_data(TensorData::new(z.to_vec(), [1, 4]), (&Default::default(), DType::F64));
    let p: Vec<f64> = entmax15(tensor, 0.8).into_data().to_vec().expect("f64");
    for (p, exact) in p.into_iter().zip(bisected(&z, f64::from(0.8f32))) {
        assert!((p - exact).abs() < 1e-12, "{p} and {exact}");
    }
}

#[test]
fn a_row_with_a_nan_is_nan_and_its_neighbours_are_not() {
    both(|function| {
        for bad in [[f32::NAN, 0.0], [f32::INFINITY, 0.0], [f32::NEG_INFINITY, f32::NAN]] {
            let p = values(&function(from_vec(vec![bad[0], bad[1], 2.0, 0.0], [2, 2]), 1.0));
            assert!(p[0].is_nan() && p[1].is_nan(), "{bad:?}");
            assert_eq!(p[2..], [1.0, 0.0]);
        }
    });
}

#[test]
fn a_row_of_only_masked_entries_is_an_error_that_names_it() {
    let z = from_vec(vec![1.0, 0.0, f32::NEG_INFINITY, f32::NEG_INFINITY], [2, 2]);
    assert_eq!(gatefold_ops::entmax15(z.clone(), 1.0).unwrap_err(), AllMasked { row: 1 });
    assert_eq!(gatefold_ops::entmax15(data(&z), 1.0).unwrap_err(), AllMasked { row: 1 });
}

#[test]
#[should_panic(expected = "temperature 0")]
fn a_temperature_of_zero_is_refused() {
    let _ = entmax15(row(&[1.0, 2.0]), 0.0);
}
