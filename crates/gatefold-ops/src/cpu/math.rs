//! Vectorised tanh, exp and ln.
//!
//! Each is one `#[inline(always)]` function of one number, written so that a plain loop over it
//! vectorises. The bits of a result do not depend on where in a slice its input stands.

use super::level::{mul_add, multiversion};

/// tanh as `x P(x^2) / Q(x^2)`, a minimax fit of relative error 2e-8; never outside [-1, 1], and exactly +-1
/// from 9.02 on. Error against `f64` over every 61st float: 5.4 ulp with `FMA`, 5.9 without, nearly all of it
/// from rounding.
#[inline(always)]
pub(crate) fn tanh<const FMA: bool>(x: f32) -> f32 {
    const P: [f32; 5] = [1.396_182_4e-8, 2.104_356_8e-5, 3.521_926_7e-3, 1.340_320_6e-1, 1.0];
    const Q: [f32; 5] = [8.023_787_4e-7, 3.328_737_5e-4, 2.597_718e-2, 4.673_653e-1, 1.0];
    let c = x.clamp(-9.02, 9.02); // keeps a NaN
    let square = c * c;
    let polynomial = |coefficients: &[f32; 5]| {
        coefficients[1..].iter().fold(coefficients[0], |p, &a| mul_add::<FMA>(p, square, a))
    };
    (c * (polynomial(&P) / polynomial(&Q))).clamp(-1.0, 1.0)
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

/// ln by splitting off a power of two, with the polynomial of Cephes' `logf`; -inf of 0, NaN below.
/// Error against `f64` over every 61st normal float: 1.0 ulp.
#[inline(always)]
pub(crate) fn ln<const FMA: bool>(x: f32) -> f32 {
    const POLYNOMIAL: [f32; 9] = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_7e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    const ROOT: u32 = 0x3f35_04f3; // sqrt(1/2)
    // x = m 2^n with m in [sqrt(1/2), sqrt(2))
    let above = x.to_bits().wrapping_sub(ROOT);
    let n = (above as i32) >> 23;
    let m = f32::from_bits(x.to_bits().wrapping_sub((n << 23) as u32));
    let (n, r) = (n as f32, m - 1.0);
    let p = POLYNOMIAL[1..].iter().fold(POLYNOMIAL[0], |p, &a| mul_add::<FMA>(p, r, a));
    let square = r * r;
    let y = mul_add::<FMA>(n, -2.121_944_4e-4, p * r * square);
    let y = mul_add::<FMA>(-0.5, square, y);
    let y = mul_add::<FMA>(n, 0.693_359_4, r + y);
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    let y = if x == f32::INFINITY { x } else { y };
    if x >= 0.0 { y } else { f32::NAN }
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
    fn ln_stays_within_its_stated_error_with_and_without_fma() {
        for f in [ln::<true>, ln::<false>] {
            let worst = (f32::MIN_POSITIVE.to_bits()..f32::MAX.to_bits())
                .step_by(2503)
                .map(f32::from_bits)
                .chain((0..5000).map(|i| 1.0 + i as f32 * 4e-4))
                .map(|x| ulp(f(x), f64::from(x).ln()))
                .fold(0.0, f64::max);
            assert!(worst < 1.1, "{worst} ulp");
            assert!(f(f32::NAN).is_nan() && f(-1.0).is_nan() && f(f32::NEG_INFINITY).is_nan());
            assert_eq!((f(0.0), f(1.0), f(f32::INFINITY)), (f32::NEG_INFINITY, 0.0, f32::INFINITY));
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
