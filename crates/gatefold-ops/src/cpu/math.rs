//! Vectorised tanh and exp.
//!
//! Each is one `#[inline(always)]` function of one number, written so that a plain loop over it
//! vectorises. The bits of a result do not depend on where in a slice its input stands.

use super::level::{mul_add, multiversion};

/// tanh as a ratio of polynomials (the minimax fit of Eigen's `ptanh`); never outside [-1, 1].
/// Error against `f64` over every 61st float: 4.3 ulp with `FMA`, 6.3 without.
#[inline(always)]
pub(crate) fn tanh<const FMA: bool>(x: f32) -> f32 {
    const NUMERATOR: [f32; 7] = [
        -2.760_768_5e-16,
        2.000_188e-13,
        -8.604_672e-11,
        5.122_297e-8,
        1.485_722_4e-5,
        6.372_619e-4,
        4.893_524_6e-3,
    ];
    const DENOMINATOR: [f32; 4] = [1.198_258_4e-6, 1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3];
    let c = x.clamp(-7.905_311, 7.905_311); // keeps a NaN
    let x2 = c * c;
    let polynomial = |coefficients: &[f32]| {
        coefficients[1..].iter().fold(coefficients[0], |p, &a| mul_add::<FMA>(p, x2, a))
    };
    let ratio = c * polynomial(&NUMERATOR) / polynomial(&DENOMINATOR);
    let y = ratio.clamp(-1.0, 1.0);
    let y = if x.abs() < 4e-4 { x } else { y };
    if x.abs() > 9.02 { 1f32.copysign(x) } else { y } // rounds to 1 from here on
}

/// exp by splitting off a power of two; exactly 0 below -87.3 and for `-inf`, `inf` above 88.7.
/// Error against `f64` over every 61st float whose result is a normal number: 1.0 ulp.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    const POLYNOMIAL: [f32; 6] =
        [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1];
    let c = x.clamp(-88.0, 89.0); // keeps a NaN
    let shifted = mul_add::<FMA>(c, std::f32::consts::LOG2_E, SHIFT);
    let n = shifted - SHIFT;
    let r = mul_add::<FMA>(n, -0.693_359_4, c);
    let r = mul_add::<FMA>(n, 2.121_944_4e-4, r);
    let p = POLYNOMIAL[1..].iter().fold(POLYNOMIAL[0], |p, &a| mul_add::<FMA>(p, r, a));
    let p = mul_add::<FMA>(p * r, r, r) + 1.0;
    // 2^n in two factors, because 2^128 is no f32.
    let n = (shifted.to_bits() as i32).wrapping_sub(SHIFT.to_bits() as i32);
    let half = n >> 1;
    let power = |n: i32| f32::from_bits(((n.wrapping_add(127)) << 23) as u32);
    let y = p * power(half) * power(n.wrapping_sub(half));
    let y = if x < -87.33655 { 0.0 } else { y };
    if x > 88.72284 { f32::INFINITY } else { y }
}

multiversion! {
    /// tanh of every element, in place.
    pub(crate) fn tanh_in_place(xs: &mut [f32]) = tanh_body
}

#[inline(always)]
fn tanh_body<const FMA: bool>(xs: &mut [f32]) {
    for x in xs {
        *x = tanh::<FMA>(*x);
    }
}

/// Accumulators of [`dot`] and [`sum`]; the same number at every level, so the order of the sum is too.
pub(crate) const LANES: usize = 16;

/// The sum of the lanes, in pairs.
#[inline(always)]
pub(crate) fn fold_lanes(lanes: [f32; LANES]) -> f32 {
    let mut a = lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            a[i] += a[i + width];
        }
        width /= 2;
    }
    a[0]
}

/// `sum_i a_i b_i` in [`LANES`] partial sums.
#[inline(always)]
pub(crate) fn dot<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks_a, rest_a) = a.as_chunks::<LANES>();
    let (chunks_b, rest_b) = b.as_chunks::<LANES>();
    for (x, y) in chunks_a.iter().zip(chunks_b) {
        for l in 0..LANES {
            lanes[l] = mul_add::<FMA>(x[l], y[l], lanes[l]);
        }
    }
    for (l, (&x, &y)) in rest_a.iter().zip(rest_b).enumerate() {
        lanes[l] = mul_add::<FMA>(x, y, lanes[l]);
    }
    fold_lanes(lanes)
}

/// `y += s * x`.
#[inline(always)]
pub(crate) fn add_scaled<const FMA: bool>(y: &mut [f32], s: f32, x: &[f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = mul_add::<FMA>(s, x, *y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ulp(got: f32, exact: f64) -> f64 {
        let near = (exact as f32).abs().max(f32::MIN_POSITIVE);
        let unit = f32::from_bits(near.to_bits() + 1) - near;
        (f64::from(got) - exact).abs() / f64::from(unit)
    }

    /// Every 2503rd float of both signs up to `limit`.
    fn grid(limit: f32) -> impl Iterator<Item = f32> {
        (0..=limit.to_bits()).step_by(2503).map(f32::from_bits).flat_map(|x| [x, -x])
    }

    fn worst(f: fn(f32) -> f32, exact: fn(f64) -> f64, limit: f32, counts: fn(f64) -> bool) -> f64 {
        grid(limit)
            .map(|x| (f(x), exact(f64::from(x))))
            .filter(|&(_, y)| counts(y))
            .map(|(got, y)| ulp(got, y))
            .fold(0.0, f64::max)
    }

    #[test]
    fn tanh_stays_within_its_stated_error_with_and_without_fma() {
        for f in [tanh::<true>, tanh::<false>] {
            let error = worst(f, f64::tanh, 20.0, |_| true);
            assert!(error < 6.5, "{error} ulp");
            assert!(grid(f32::MAX).all(|x| f(x).abs() <= 1.0));
        }
    }

    #[test]
    fn exp_stays_within_its_stated_error_with_and_without_fma() {
        let normal = |y: f64| y > f64::from(f32::MIN_POSITIVE) && y < f64::from(f32::MAX);
        for f in [exp::<true>, exp::<false>] {
            let error = worst(f, f64::exp, 89.0, normal);
            assert!(error < 1.1, "{error} ulp");
        }
    }

    #[test]
    fn special_values_come_out_as_they_should() {
        for (tanh, exp) in
            [(tanh::<true> as fn(f32) -> f32, exp::<true> as fn(f32) -> f32), (tanh::<false>, exp::<false>)]
        {
            assert!(tanh(f32::NAN).is_nan() && exp(f32::NAN).is_nan());
            assert_eq!((tanh(f32::INFINITY), tanh(f32::NEG_INFINITY), tanh(0.0)), (1.0, -1.0, 0.0));
            assert_eq!((exp(f32::NEG_INFINITY), exp(-1e30), exp(0.0)), (0.0, 0.0, 1.0));
            assert_eq!((exp(89.0), exp(f32::INFINITY)), (f32::INFINITY, f32::INFINITY));
        }
    }

    #[test]
    fn a_slice_gives_the_bits_of_its_elements_wherever_they_stand() {
        let xs: Vec<f32> = (0..61).map(|i| (i as f32 - 30.0) * 0.173).collect();
        let mut whole = xs.clone();
        tanh_in_place(&mut whole);
        for (i, &x) in xs.iter().enumerate() {
            let mut one = [x];
            tanh_in_place(&mut one);
            assert_eq!(one[0].to_bits(), whole[i].to_bits());
        }
    }
}
