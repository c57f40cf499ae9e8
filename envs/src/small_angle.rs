//! Sine and cosine of small angles, in arithmetic that vector registers can do and that gives the same bits on every
//! machine.

use crate::number::Number;

/// Largest angle that [`sin_cos`] takes, in radians.
pub(crate) const RANGE: f64 = 0.25;

/// Sine and cosine of `x`, `|x| <= RANGE`, rounded to nearest but for fewer than one in 20,000: a value so
/// near to the middle of two numbers that the arithmetic cannot tell may become the other one.
///
/// The first terms of the two series, `x³ / 6` and `x² / 2`, are carried as unevaluated sums of two
/// numbers (Dekker 1971), the rest (below 2^-13 of the result) needs no more than one. libm's functions are
/// calls, which nothing vectorises, and their last bits depend on version and processor.
#[inline(always)]
pub(crate) fn sin_cos<N: Number>(x: N) -> (N, N) {
    let number = |value| x.constant(value);
    // x² = square + square_rest
    let square = x * x;
    let square_rest = x.rest(x, square);
    // x³ = cube + cube_rest
    let cube = x * square;
    let cube_rest = x.rest(square, cube) + x * square_rest;
    // x³ / 6 = sixth + sixth_rest; multiples by 2 and 4 and both differences are exact.
    let sixth = cube * number(1.0 / 6.0);
    let sixth_rest = (((cube - number(4.0) * sixth) - number(2.0) * sixth) + cube_rest) * number(1.0 / 6.0);
    let tail = x * (square * square) * series(square, SINE);
    let sum = x - sixth;
    let sin = sum + (((x - sum) - sixth) + (tail - sixth_rest));

    let half = number(0.5) * square;
    let tail = square * square * series(square, COSINE);
    let sum = number(1.0) - half;
    let cos = sum + (((number(1.0) - sum) - half) + (tail - number(0.5) * square_rest));
    (sin, cos)
}

/// `1 / 5!, -1 / 7!, 1 / 9!, ...`
const SINE: [f64; 6] = [
    1.0 / 120.0,
    -1.0 / 5_040.0,
    1.0 / 362_880.0,
    -1.0 / 39_916_800.0,
    1.0 / 6_227_020_800.0,
    -1.0 / 1_307_674_368_000.0,
];

/// `1 / 4!, -1 / 6!, 1 / 8!, ...`
const COSINE: [f64; 6] = [
    1.0 / 24.0,
    -1.0 / 720.0,
    1.0 / 40_320.0,
    -1.0 / 3_628_800.0,
    1.0 / 479_001_600.0,
    -1.0 / 87_178_291_200.0,
];

/// `c[0] + c[1] z + c[2] z² + ...`
#[inline(always)]
fn series<N: Number>(z: N, c: [f64; 6]) -> N {
    let c = |power: usize| z.constant(c[power]);
    ((((c(5) * z + c(4)) * z + c(3)) * z + c(2)) * z + c(1)) * z + c(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatefold_env::{Purpose, stream};
    use rand::RngExt;

    /// Bits behind the point of the fixed-point numbers below.
    const POINT: u32 = 120;

    /// `a * b` in fixed point, both at most 1 in size, cut off.
    fn times(a: i128, b: i128) -> i128 {
        let (u, v) = (a.unsigned_abs(), b.unsigned_abs());
        let halves = |n: u128| (n >> 60, n & ((1 << 60) - 1));
        let ((u1, u0), (v1, v0)) = (halves(u), halves(v));
        let product = u1 * v1 + ((u1 * v0 + u0 * v1 + ((u0 * v0) >> 60)) >> 60);
        if (a < 0) == (b < 0) { product as i128 } else { -(product as i128) }
    }

    /// `x` exactly, as long as it is no smaller than 2^-67.
    fn fixed(x: f64) -> i128 {
        let half = f64::powi(2.0, POINT as i32 / 2);
        (((x * half).trunc() as i128) << (POINT / 2)) + ((x * half).fract() * half) as i128
    }

    /// The nearest `f64`; scaling by a power of two is exact.
    fn float(x: i128) -> f64 {
        x as f64 * f64::powi(2.0, -(POINT as i32))
    }

    /// Sine and cosine by their series in 120 bits.
    fn reference(x: f64) -> (f64, f64) {
        let x = fixed(x);
        let (mut term, mut sums) = (1i128 << POINT, [0i128; 2]);
        for n in 1..30 {
            // 1 and x are added, x² / 2 and x³ / 6 subtracted, and so on.
            let sign = if (n - 1) / 2 % 2 == 0 { 1 } else { -1 };
            sums[(n as usize - 1) % 2] += sign * term;
            term = times(term, x) / n;
        }
        (float(sums[1]), float(sums[0]))
    }

    #[test]
    fn the_reference_knows_angles_that_anybody_knows() {
        assert_eq!(reference(0.0), (0.0, 1.0));
        let (sin, cos) = reference(0.125);
        assert_eq!((sin, cos), (0.12467473338522769, 0.992197667229329));
    }

    #[test]
    fn sine_and_cosine_are_the_nearest_numbers_but_for_one_in_twenty_thousand() {
        let mut rng = stream(1, Purpose::Environment, 0);
        let (mut wrong, count) = ([0; 2], 200_000);
        for i in 0..count {
            // Half of them everywhere in the range, half about where a pole stands.
            let x = rng.random_range(-RANGE..RANGE) * if i % 2 == 0 { 1.0 } else { 0.1 };
            let ((sin, cos), (true_sin, true_cos)) = (sin_cos(x), reference(x));
            for (k, (found, nearest)) in [(sin, true_sin), (cos, true_cos)].into_iter().enumerate() {
                let steps = found.to_bits().abs_diff(nearest.to_bits());
                assert!(steps <= 1, "{x}: {found}, not {nearest}");
                wrong[k] += steps;
            }
        }
        assert!(wrong.iter().all(|&n| n <= count / 20_000), "{wrong:?} of {count}");
    }

    #[test]
    fn they_are_those_of_the_standard_library_to_the_last_bit_or_the_one_before() {
        for i in -2500..=2500 {
            let x = f64::from(i) * 1e-4;
            let ((sin, cos), (a, b)) = (sin_cos(x), x.sin_cos());
            assert!((sin - a).abs() <= a.abs() * f64::EPSILON, "{x}: {sin}, not {a}");
            assert!((cos - b).abs() <= b * f64::EPSILON, "{x}: {cos}, not {b}");
        }
    }
}
