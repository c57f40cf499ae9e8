use burn::backend::Flex;
use burn::tensor::Tensor;
use gatefold_ops::{AllMasked, OpsBackend, composed};
use proptest::prelude::*;

use crate::support::*;

type Function = fn(Tensor<Train, 2>, f32) -> Tensor<Train, 2>;

fn sparsemax<B: OpsBackend>(z: Tensor<B, 2>, temperature: f32) -> Tensor<B, 2> {
    gatefold_ops::sparsemax(z, temperature).expect("no row is all masked")
}

fn both(check: impl Fn(fn(Tensor<Flex, 2>, f32) -> Tensor<Flex, 2>)) {
    check(sparsemax);
    check(composed::sparsemax);
}

fn row(z: &[f32]) -> Tensor<Flex, 2> {
    from_vec(z.to_vec(), [1, z.len()])
}

/// The projection by bisection on the threshold, in f64.
fn bisected(z: &[f32], temperature: f32) -> Vec<f64> {
    let max = z.iter().fold(f64::NEG_INFINITY, |m, &z| m.max(f64::from(z)));
    let u: Vec<f64> = z.iter().map(|&z| (f64::from(z) - max) / f64::from(temperature)).collect();
    let (mut low, mut high) = (-1.0, 0.0);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        let sum: f64 = u.iter().map(|u| (u - middle).max(0.0)).sum();
        if sum > 1.0 { low = middle } else { high = middle }
    }
    u.into_iter().map(|u| (u - high).max(0.0)).collect()
}

proptest! {
    #![proptest_config(cases(64))]
    #[test]
    fn the_kernel_equals_the_composition_and_the_projection(
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
        let (fused, plain) = (run(sparsemax), run(composed::sparsemax));
        assert_close("value", &fused.0, &plain.0);
        assert_close("gradient", &fused.1, &plain.1);
        for (z, p) in values(&z).chunks(k).zip(values(&fused.0).chunks(k)) {
            for (p, exact) in p.iter().zip(bisected(z, temperature)) {
                prop_assert!((f64::from(*p) - exact).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn many_columns_are_sorted_as_well_as_few(k in 60usize..200, seed: u64) {
        let z = Numbers::new(seed).vec(k);
        let p = values(&sparsemax(row(&z), 20.0));
        for (p, exact) in p.into_iter().zip(bisected(&z, 20.0)) {
            prop_assert!((f64::from(p) - exact).abs() < 1e-5);
        }
    }
}

#[test]
fn closed_forms_come_out_exactly() {
    let inf = f32::NEG_INFINITY;
    let cases: [(&[f32], f32, &[f32]); 9] = [
        (&[3.0, 0.0], 1.0, &[1.0, 0.0]),
        (&[0.5, 0.0], 1.0, &[0.75, 0.25]),
        (&[0.5, 0.0], 0.5, &[1.0, 0.0]),
        (&[0.5, 0.0], 2.0, &[0.625, 0.375]),
        (&[7.0], 1.0, &[1.0]),
        (&[2.0, 2.0], 1.0, &[0.5, 0.5]),
        (&[1.0, inf, 1.0, 0.0], 1.0, &[0.5, 0.0, 0.5, 0.0]),
        (&[inf, -4.0], 1.0, &[0.0, 1.0]),
        (&[1e38, -1e38, 1e38, 0.0], 0.5, &[0.5, 0.0, 0.5, 0.0]),
    ];
    both(|function| {
        for (z, temperature, expected) in cases {
            assert_eq!(values(&function(row(z), temperature)), expected, "{z:?} at {temperature}");
        }
    });
}

#[test]
fn a_row_with_a_nan_is_nan_and_its_neighbours_are_not() {
    both(|function| {
        for bad in [[f32::NAN, 0.0], [f32::INFINITY, 0.0], [f32::NEG_INFINITY, f32::NAN]] {
            let p = values(&function(from_vec(vec![bad[0], bad[1], 1.0, 1.0], [2, 2]), 1.0));
            assert!(p[0].is_nan() && p[1].is_nan(), "{bad:?}");
            assert_eq!(p[2..], [0.5, 0.5]);
        }
    });
}

#[test]
fn a_row_of_only_masked_entries_is_an_error_that_names_it() {
    let inf = f32::NEG_INFINITY;
    let z = || from_vec(vec![inf, 0.0, inf, inf, inf, inf], [3, 2]);
    assert_eq!(gatefold_ops::sparsemax(z(), 1.0).unwrap_err(), AllMasked { row: 1 });
    assert_eq!(gatefold_ops::sparsemax(data(&z()), 1.0).unwrap_err(), AllMasked { row: 1 });
    assert_eq!(composed::all_masked_row(&z()), Some(1));
    let turned = from_vec(vec![inf, inf, 0.0, inf], [2, 2]).transpose();
    assert_eq!(gatefold_ops::sparsemax(turned.clone(), 1.0).unwrap_err(), AllMasked { row: 1 });
    assert_eq!(composed::all_masked_row(&turned), Some(1));
    assert_eq!(composed::all_masked_row(&row(&[inf, f32::NAN])), None);
}

#[test]
#[should_panic(expected = "temperature 0")]
fn a_temperature_of_zero_is_refused() {
    let _ = sparsemax(row(&[1.0, 2.0]), 0.0);
}

#[test]
fn the_gradient_is_the_slope_of_the_values() {
    // Inside one support the projection is linear, so a central difference is exact up to rounding.
    let (z, upstream, temperature, h) = ([0.5f32, 0.1, -2.0, 0.3], [0.7f32, -1.1, 2.0, 0.4], 0.7, 0.02);
    let value = |z: [f32; 4]| -> f64 {
        let gates: Vec<f32> = sparsemax(row(&z), temperature).into_data().to_vec().unwrap();
        gates.iter().zip(upstream).map(|(p, u)| f64::from(*p) * f64::from(u)).sum()
    };
    let tracked = Tensor::<Train, 2>::from_inner(row(&z)).require_grad();
    let loss = (sparsemax(tracked.clone(), temperature) * Tensor::from_inner(row(&upstream))).sum();
    let gradient: Vec<f32> = tracked.grad(&loss.backward()).unwrap().into_data().to_vec().unwrap();
    for i in 0..4 {
        let moved = |by: f32| {
            let mut z = z;
            z[i] += by;
            value(z)
        };
        let slope = (moved(h) - moved(-h)) / f64::from(2.0 * h);
        assert!((slope - f64::from(gradient[i])).abs() < 1e-4, "entry {i}: {slope} and {gradient:?}");
    }
}
