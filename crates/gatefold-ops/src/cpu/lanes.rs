//! Vectors of eight and of four numbers, for kernels whose registers are laid out by hand.
//!
//! A kernel is one generic function over [`Lanes`]; [`vectorised!`] compiles it for every level. Both
//! fused levels take 256 bits, because a head is rarely wider than two such registers. What treats every number
//! on its own, up to sums that take eight after eight, is generic over [`Vector`]: it may take 512 bits without a
//! change of any bit.

use std::mem::MaybeUninit;

/// Eight numbers in one register.
pub(crate) trait Lanes: Copy {
    /// Four numbers in one register.
    type Quad: Quad;
    fn splat(x: f32) -> Self;
    fn load(from: &[f32; 8]) -> Self;
    fn store(self, to: &mut [f32; 8]);
    /// [`store`](Self::store) into memory that may not be set yet.
    fn set(self, to: &mut [MaybeUninit<f32>; 8]);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self * b + c`, rounded once where the level can.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// `negative` where the sign of `self` is set, else `other`.
    fn where_negative(self, negative: Self, other: Self) -> Self;
    /// `x` where `self` is above 0 or NaN, else 0.
    fn where_above_zero(self, x: Self) -> Self;
    /// The sum of each vector's numbers.
    fn sums(of: [Self; 4]) -> Self::Quad;
}

/// Numbers that are each treated on their own, or added up eight after eight, however many a register holds.
pub(crate) trait Vector: Copy {
    /// The vectors of eight at the same level, and those of four.
    type Lanes: Lanes<Quad = Self::Quad>;
    type Quad: Quad;
    /// How many eights.
    const EIGHTS: usize;
    fn splat(x: f32) -> Self;
    /// The first so many of `from`.
    fn load(from: &[[f32; 8]]) -> Self;
    fn store(self, to: &mut [[f32; 8]]);
    /// As [`Lanes::set`].
    fn set(self, to: &mut [[MaybeUninit<f32>; 8]]);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// As [`Lanes::mul_add`].
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// As [`Lanes::where_negative`].
    fn where_negative(self, negative: Self, other: Self) -> Self;
    /// As [`Lanes::where_above_zero`].
    fn where_above_zero(self, x: Self) -> Self;
    /// The products with `b` added to a sum, those of one eight after those of the other.
    fn add_products_to(self, b: &[[f32; 8]], sum: Self::Lanes) -> Self::Lanes;
}

impl<L: Lanes> Vector for L {
    type Lanes = Self;
    type Quad = L::Quad;
    const EIGHTS: usize = 1;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        L::splat(x)
    }

    #[inline(always)]
    fn load(from: &[[f32; 8]]) -> Self {
        L::load(&from[0])
    }

    #[inline(always)]
    fn store(self, to: &mut [[f32; 8]]) {
        L::store(self, &mut to[0]);
    }

    #[inline(always)]
    fn set(self, to: &mut [[MaybeUninit<f32>; 8]]) {
        L::set(self, &mut to[0]);
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        L::add(self, other)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        L::sub(self, other)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        L::mul(self, other)
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        L::mul_add(self, b, c)
    }

    #[inline(always)]
    fn where_negative(self, negative: Self, other: Self) -> Self {
        L::where_negative(self, negative, other)
    }

    #[inline(always)]
    fn where_above_zero(self, x: Self) -> Self {
        L::where_above_zero(self, x)
    }

    #[inline(always)]
    fn add_products_to(self, b: &[[f32; 8]], sum: Self) -> Self {
        L::mul_add(self, L::load(&b[0]), sum)
    }
}

/// Four numbers in one register.
pub(crate) trait Quad: Copy {
    fn splat(x: f32) -> Self;
    fn load(from: &[f32; 4]) -> Self;
    fn store(self, to: &mut [f32; 4]);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn sqrt(self) -> Self;
    /// The larger of each pair; `other` where either is NaN.
    fn max(self, other: Self) -> Self;
    /// `negative` where the sign of `self` is set, else `other`.
    fn where_negative(self, negative: Self, other: Self) -> Self;
    /// Each number with its neighbour in a pair added.
    fn add_in_pairs(self) -> Self;
    /// Each number with that at its place in the other pair added.
    fn add_pairs(self) -> Self;
}

/// Implements the methods of one pair of numbers each.
macro_rules! elementwise {
    ($width:literal) => {
        #[inline(always)]
        fn splat(x: f32) -> Self {
            [x; $width]
        }

        #[inline(always)]
        fn load(from: &[f32; $width]) -> Self {
            *from
        }

        #[inline(always)]
        fn store(self, to: &mut [f32; $width]) {
            *to = self;
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            std::array::from_fn(|i| self[i] + other[i])
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            std::array::from_fn(|i| self[i] - other[i])
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            std::array::from_fn(|i| self[i] * other[i])
        }

        #[inline(always)]
        fn where_negative(self, negative: Self, other: Self) -> Self {
            std::array::from_fn(|i| if self[i].is_sign_negative() { negative[i] } else { other[i] })
        }
    };
}

impl Lanes for [f32; 8] {
    type Quad = [f32; 4];
    elementwise!(8);

    #[inline(always)]
    fn set(self, to: &mut [MaybeUninit<f32>; 8]) {
        *to = self.map(MaybeUninit::new);
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        std::array::from_fn(|i| self[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn where_above_zero(self, x: Self) -> Self {
        std::array::from_fn(|i| if self[i] <= 0.0 { 0.0 } else { x[i] })
    }

    #[inline(always)]
    fn sums(of: [Self; 4]) -> [f32; 4] {
        of.map(|x| ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7])))
    }
}

impl Quad for [f32; 4] {
    elementwise!(4);

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] / other[i])
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        self.map(f32::sqrt)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] > other[i] { self[i] } else { other[i] })
    }

    #[inline(always)]
    fn add_in_pairs(self) -> Self {
        std::array::from_fn(|i| self[i] + self[i ^ 1])
    }

    #[inline(always)]
    fn add_pairs(self) -> Self {
        std::array::from_fn(|i| self[i] + self[i ^ 2])
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

/// Compiles `body::<L>` for every level and calls the best one. `body` must be `#[inline(always)]`.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$(const $n:ident: usize),+>)? ($($arg:ident: $ty:ty),* $(,)?) = $body:ident) => {
        $(#[$meta])*
        $vis fn $name $(<$(const $n: usize),+>)? ($($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::cpu::lanes::x86::Eight;
                #[target_feature(enable = "avx2,fma")]
                fn fused $(<$(const $n: usize),+>)? ($($arg: $ty),*) {
                    $body::<Eight $($(, $n)+)?>($($arg),*)
                }
                if $crate::cpu::level::level() != $crate::cpu::level::Level::Portable {
                    // SAFETY: every level but the portable one has AVX2 and FMA.
                    #[allow(unsafe_code)]
                    return unsafe { fused $(::<$($n),+>)? ($($arg),*) };
                }
            }
            $body::<[f32; 8] $($(, $n)+)?>($($arg),*)
        }
    };
}
pub(crate) use vectorised;

/// As [`vectorised!`], `body::<W>` with the widest [`Vector`] of a level that goes into so many eights.
macro_rules! vectorised_wide {
    ($(#[$meta:meta])* $vis:vis fn $name:ident <$(const $n:ident: usize),+> ($($arg:ident: $ty:ty),* $(,)?) = $body:ident by $eights:ident) => {
        $(#[$meta])*
        $vis fn $name <$(const $n: usize),+> ($($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::cpu::{lanes::x86::{Eight, Sixteen}, level::Level};
                #[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
                fn wide <$(const $n: usize),+> ($($arg: $ty),*) {
                    if $eights.is_multiple_of(<Sixteen as Vector>::EIGHTS) {
                        $body::<Sixteen $(, $n)+>($($arg),*)
                    } else {
                        $body::<Eight $(, $n)+>($($arg),*)
                    }
                }
                #[target_feature(enable = "avx2,fma")]
                fn fused <$(const $n: usize),+> ($($arg: $ty),*) {
                    $body::<Eight $(, $n)+>($($arg),*)
                }
                match $crate::cpu::level::level() {
                    // SAFETY: `level` returns a level only when the machine has its features.
                    #[allow(unsafe_code)]
                    Level::Avx512 => return unsafe { wide::<$($n),+>($($arg),*) },
                    // SAFETY: as above.
                    #[allow(unsafe_code)]
                    Level::Avx2 => return unsafe { fused::<$($n),+>($($arg),*) },
                    Level::Portable => {}
                }
            }
            $body::<[f32; 8] $(, $n)+>($($arg),*)
        }
    };
}
pub(crate) use vectorised_wide;

#[cfg(test)]
mod tests {
    use super::*;

    vectorised_wide! {
        fn widest<const V: usize>(x: &[[f32; 8]], to: &mut [[f32; 8]]) = all_operations by V
    }

    vectorised! {
        fn by_eights<const V: usize>(x: &[[f32; 8]], to: &mut [[f32; 8]]) = all_operations
    }

    /// Every operation of some eights with as many others.
    #[inline(always)]
    fn all_operations<W: Vector, const V: usize>(x: &[[f32; 8]], to: &mut [[f32; 8]]) {
        let mut sum = <W::Lanes as Lanes>::splat(0.3);
        for at in (0..V).step_by(W::EIGHTS) {
            let (a, b) = (W::load(&x[at..]), W::load(&x[2 + at..]));
            a.add(b).store(&mut to[at..]);
            a.sub(b).store(&mut to[2 + at..]);
            a.mul(b).store(&mut to[4 + at..]);
            a.mul_add(b, W::splat(0.7)).store(&mut to[6 + at..]);
            a.where_negative(b, W::splat(3.0)).store(&mut to[8 + at..]);
            a.where_above_zero(b).store(&mut to[10 + at..]);
            sum = a.add_products_to(&x[2 + at..], sum);
        }
        Lanes::store(sum, &mut to[12]);
    }

    #[test]
    fn the_widest_vectors_have_the_bits_of_eights() {
        let special = [0.0, -0.0, f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40, -1e-40];
        let plain = [0.1, -0.3, 7.7, -1e30, 3e-20, 1.0, -1.0, 0.9];
        for x in [[special, plain, plain, special], [plain, special, plain, plain]] {
            let (mut wide, mut eights) = ([[9.0; 8]; 13], [[9.0; 8]; 13]);
            widest::<2>(&x, &mut wide);
            by_eights::<2>(&x, &mut eights);
            assert_eq!(wide.map(|of| of.map(f32::to_bits)), eights.map(|of| of.map(f32::to_bits)));
        }
    }
}
