//! Vectors of eight and of four numbers, for kernels whose registers are laid out by hand.
//!
//! A kernel is one generic function over [`Lanes`]; [`vectorised!`] compiles it for every level. Both
//! fused levels take 256 bits, because a head is rarely wider than two such registers. What treats every number
//! on its own is generic over [`Vector`]: it may take 512 bits without a change of any bit.

#![allow(unsafe_code)]

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

/// Numbers that are each treated on their own, however many a register holds.
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
pub(crate) mod x86 {
    use std::{arch::x86_64::*, mem::MaybeUninit};

    use super::{Lanes, Quad, Vector};

    /// Eight numbers, on a machine with AVX2 and FMA: only kernels that [`vectorised!`](super::vectorised)
    /// compiled for such machines make any.
    #[derive(Clone, Copy)]
    pub(crate) struct Eight(__m256);

    /// Four numbers, on a machine with AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub(crate) struct Four(__m128);

    /// Sixteen numbers, on a machine with AVX-512: only kernels that
    /// [`vectorised_wide!`](super::vectorised_wide) compiled for such machines make any.
    #[derive(Clone, Copy)]
    pub(crate) struct Sixteen(__m512);

    // SAFETY of all blocks below: a value of these types exists only where the machine has AVX2 and FMA, or
    // AVX-512 (see above), and loads and stores stay within the arrays that they are given.

    /// Implements methods that are an intrinsic each.
    macro_rules! by_intrinsics {
        ($($method:ident($($other:ident),*) = $intrinsic:ident;)+) => {$(
            #[inline(always)]
            fn $method(self, $($other: Self),*) -> Self {
                Self(unsafe { $intrinsic(self.0, $($other.0),*) })
            }
        )+};
    }

    impl Vector for Sixteen {
        type Lanes = Eight;
        type Quad = Four;
        const EIGHTS: usize = 2;

        #[inline(always)]
        fn splat(x: f32) -> Self {
            Self(unsafe { _mm512_set1_ps(x) })
        }

        #[inline(always)]
        fn load(from: &[[f32; 8]]) -> Self {
            Self(unsafe { _mm512_loadu_ps(from[..2].as_ptr().cast()) })
        }

        #[inline(always)]
        fn store(self, to: &mut [[f32; 8]]) {
            unsafe { _mm512_storeu_ps(to[..2].as_mut_ptr().cast(), self.0) }
        }

        #[inline(always)]
        fn set(self, to: &mut [[MaybeUninit<f32>; 8]]) {
            unsafe { _mm512_storeu_ps(to[..2].as_mut_ptr().cast(), self.0) }
        }

        by_intrinsics! {
            add(other) = _mm512_add_ps;
            sub(other) = _mm512_sub_ps;
            mul(other) = _mm512_mul_ps;
            mul_add(b, c) = _mm512_fmadd_ps;
        }

        #[inline(always)]
        fn where_negative(self, negative: Self, other: Self) -> Self {
            Self(unsafe {
                let below = _mm512_cmplt_epi32_mask(_mm512_castps_si512(self.0), _mm512_setzero_si512());
                _mm512_mask_mov_ps(other.0, below, negative.0)
            })
        }

        #[inline(always)]
        fn where_above_zero(self, x: Self) -> Self {
            Self(unsafe {
                let above = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(self.0, _mm512_setzero_ps());
                _mm512_maskz_mov_ps(above, x.0)
            })
        }

        #[inline(always)]
        fn add_products_to(self, b: &[[f32; 8]], sum: Eight) -> Eight {
            let (lower, upper) = unsafe {
                let upper = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0));
                (Eight(_mm512_castps512_ps256(self.0)), Eight(_mm256_castpd_ps(upper)))
            };
            let sum = Lanes::mul_add(lower, Lanes::load(&b[0]), sum);
            Lanes::mul_add(upper, Lanes::load(&b[1]), sum)
        }
    }

    impl Lanes for Eight {
        type Quad = Four;

        #[inline(always)]
        fn splat(x: f32) -> Self {
            Self(unsafe { _mm256_set1_ps(x) })
        }

        #[inline(always)]
        fn load(from: &[f32; 8]) -> Self {
            Self(unsafe { _mm256_loadu_ps(from.as_ptr()) })
        }

        #[inline(always)]
        fn store(self, to: &mut [f32; 8]) {
            unsafe { _mm256_storeu_ps(to.as_mut_ptr(), self.0) }
        }

        #[inline(always)]
        fn set(self, to: &mut [MaybeUninit<f32>; 8]) {
            unsafe { _mm256_storeu_ps(to.as_mut_ptr().cast(), self.0) }
        }

        by_intrinsics! {
            add(other) = _mm256_add_ps;
            sub(other) = _mm256_sub_ps;
            mul(other) = _mm256_mul_ps;
            mul_add(b, c) = _mm256_fmadd_ps;
        }

        #[inline(always)]
        fn where_negative(self, negative: Self, other: Self) -> Self {
            Self(unsafe { _mm256_blendv_ps(other.0, negative.0, self.0) })
        }

        #[inline(always)]
        fn where_above_zero(self, x: Self) -> Self {
            Self(unsafe {
                let above = _mm256_cmp_ps::<_CMP_NLE_UQ>(self.0, _mm256_setzero_ps());
                _mm256_and_ps(above, x.0)
            })
        }

        #[inline(always)]
        fn sums(of: [Self; 4]) -> Four {
            let [a, b, c, d] = of;
            // Sums of pairs, of fours, and of the two halves.
            Four(unsafe {
                let fours = _mm256_hadd_ps(_mm256_hadd_ps(a.0, b.0), _mm256_hadd_ps(c.0, d.0));
                _mm_add_ps(_mm256_castps256_ps128(fours), _mm256_extractf128_ps::<1>(fours))
            })
        }
    }

    impl Quad for Four {
        #[inline(always)]
        fn splat(x: f32) -> Self {
            Self(unsafe { _mm_set1_ps(x) })
        }

        #[inline(always)]
        fn load(from: &[f32; 4]) -> Self {
            Self(unsafe { _mm_loadu_ps(from.as_ptr()) })
        }

        #[inline(always)]
        fn store(self, to: &mut [f32; 4]) {
            unsafe { _mm_storeu_ps(to.as_mut_ptr(), self.0) }
        }

        by_intrinsics! {
            add(other) = _mm_add_ps;
            sub(other) = _mm_sub_ps;
            mul(other) = _mm_mul_ps;
            div(other) = _mm_div_ps;
            max(other) = _mm_max_ps;
        }

        #[inline(always)]
        fn sqrt(self) -> Self {
            Self(unsafe { _mm_sqrt_ps(self.0) })
        }

        #[inline(always)]
        fn where_negative(self, negative: Self, other: Self) -> Self {
            Self(unsafe { _mm_blendv_ps(other.0, negative.0, self.0) })
        }

        #[inline(always)]
        fn add_in_pairs(self) -> Self {
            Self(unsafe { _mm_add_ps(self.0, _mm_permute_ps::<0b10_11_00_01>(self.0)) })
        }

        #[inline(always)]
        fn add_pairs(self) -> Self {
            Self(unsafe { _mm_add_ps(self.0, _mm_permute_ps::<0b01_00_11_10>(self.0)) })
        }
    }
}

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
