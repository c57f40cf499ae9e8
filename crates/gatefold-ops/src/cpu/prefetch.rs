//! Memory that is wanted soon.

#![allow(unsafe_code)]

/// Asks for numbers that will be read soon, so that they come while something else is computed.
pub(crate) fn prefetch(wanted: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        /// Numbers in a line of the cache.
        const LINE: usize = 16;
        for line in wanted.chunks(LINE) {
            // SAFETY: every x86-64 machine has SSE; a prefetch neither reads nor writes what a program
            // can see.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = wanted;
}
