//! Vectors of sixteen, eight and four numbers on x86-64.

#![allow(unsafe_code)]

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
