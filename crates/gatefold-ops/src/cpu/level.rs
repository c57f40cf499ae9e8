//! Which instructions this process uses, chosen once at run time.

/// A set of instructions the kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// 512-bit vectors with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 256-bit vectors with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Whatever the target guarantees; a product and a sum round separately.
    Portable,
}

/// The level of this process: the best of this machine, or a lower one that `GATEFOLD_SIMD` names.
pub(crate) fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        use std::sync::OnceLock;
        static LEVEL: OnceLock<Level> = OnceLock::new();
        *LEVEL.get_or_init(|| {
            let asked = std::env::var("GATEFOLD_SIMD").unwrap_or_default();
            let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let wide = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl");
            match (fma, wide) {
                (false, _) => Level::Portable,
                _ if asked == "portable" => Level::Portable,
                (true, true) if asked != "avx2" => Level::Avx512,
                (true, _) => Level::Avx2,
            }
        })
    }
    #[cfg(not(target_arch = "x86_64"))]
    Level::Portable
}

/// The SIMD level of this process's kernels: `avx512`, `avx2` or `portable`.
///
/// These kernels have the same bits on every machine of one level, and may differ between levels. To repeat
/// a run of a lower level, set the environment variable `GATEFOLD_SIMD` to `avx2` or `portable`. Burn's own
/// sums, over a whole tensor or its last dimension, of which graph policies use some, add in an order that goes
/// by the processor whatever the variable says.
pub fn simd_level() -> &'static str {
    match level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => "avx512",
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => "avx2",
        Level::Portable => "portable",
    }
}

/// `a * b + c`, rounded once with `FMA`. Without it the portable target would call a slow library
/// function, so there it rounds twice.
#[inline(always)]
pub(crate) fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Compiles `body::<FMA>` for every level and calls the best one.
///
/// `body` must be `#[inline(always)]`, so that it takes over the instructions of its caller.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                match $crate::cpu::level::level() {
                    // SAFETY: `level` returns a level only when the machine has its features.
                    #[allow(unsafe_code)]
                    $crate::cpu::level::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    #[allow(unsafe_code)]
                    $crate::cpu::level::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::cpu::level::Level::Portable => {}
                }
            }
            $body::<false>($($arg),*)
        }
    };
}
pub(crate) use multiversion;
