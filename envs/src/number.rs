//! Arithmetic that is written once, for one number and for many.

use std::ops::{Add, Div, Mul, Sub};

use pulp::Simd;

/// A number, or several that are worked on together, each with the bits it has alone.
pub(crate) trait Number:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// `value`, as many times as there are numbers in `self`.
    fn constant(self, value: f64) -> Self;

    /// What rounding took from `product`, which is `self * other`; exact unless it is too small for an `f64`.
    fn rest(self, other: Self, product: Self) -> Self;
}

impl Number for f64 {
    #[inline(always)]
    fn constant(self, value: f64) -> Self {
        value
    }

    #[inline(always)]
    fn rest(self, other: Self, product: Self) -> Self {
        // Dekker 1971; of the products of halves, none is rounded.
        let ((high, low), (other_high, other_low)) = (split(self), split(other));
        (high * other_high - product) + high * other_low + low * other_high + low * other_low
    }
}

/// `x` as a sum of two numbers of 26 bits, whose products are exact.
#[inline(always)]
fn split(x: f64) -> (f64, f64) {
    let scaled = 134_217_729.0 * x; // 2^27 + 1
    let high = scaled - (scaled - x);
    (high, x - high)
}

/// Two vector registers: while the results of one are waited for, the other is worked on.
#[derive(Clone, Copy)]
pub(crate) struct Vectors<S: Simd> {
    simd: S,
    numbers: [S::f64s; 2],
}

impl<S: Simd> Vectors<S> {
    /// Numbers in both.
    pub(crate) const COUNT: usize = 2 * S::F64_LANES;

    /// Panics if there are too few.
    #[inline(always)]
    pub(crate) fn load(simd: S, from: &[f64]) -> Self {
        let (vectors, _) = S::as_simd_f64s(from);
        Self { simd, numbers: [vectors[0], vectors[1]] }
    }

    /// Panics if there is no room.
    #[inline(always)]
    pub(crate) fn store(self, to: &mut [f64]) {
        let (vectors, _) = S::as_mut_simd_f64s(to);
        [vectors[0], vectors[1]] = self.numbers;
    }
}

impl<S: Simd> Number for Vectors<S> {
    #[inline(always)]
    fn constant(self, value: f64) -> Self {
        Self { numbers: [self.simd.splat_f64s(value); 2], ..self }
    }

    #[inline(always)]
    fn rest(self, other: Self, product: Self) -> Self {
        let ([a, b], [c, d], [e, f]) = (self.numbers, other.numbers, product.numbers);
        let [e, f] = [self.simd.neg_f64s(e), self.simd.neg_f64s(f)];
        Self { numbers: [self.simd.mul_add_f64s(a, c, e), self.simd.mul_add_f64s(b, d, f)], ..self }
    }
}

macro_rules! each {
    ($($operation:ident $method:ident $of_simd:ident,)*) => {$(
        impl<S: Simd> $operation for Vectors<S> {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                let ([a, b], [c, d]) = (self.numbers, other.numbers);
                Self { numbers: [self.simd.$of_simd(a, c), self.simd.$of_simd(b, d)], ..self }
            }
        }
    )*};
}

each! {
    Add add add_f64s,
    Sub sub sub_f64s,
    Mul mul mul_f64s,
    Div div div_f64s,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_product_is_what_a_fused_operation_finds() {
        for i in 1..2000 {
            let (x, y) = ((f64::from(i) * 0.37).sin(), (f64::from(i) * 1.91).cos() * 1e-3);
            assert_eq!(x.rest(y, x * y), x.mul_add(y, -(x * y)), "{x} * {y}");
        }
    }
}
