//! Memory that is wanted soon.

#![allow(unsafe_code)]

/// Numbers in a line of the cache.
pub(crate) const LINE: usize = 16;

/// Memory to ask for little by little, while something else is computed: what comes next then need not wait for it.
/// Only its place is known here, as it may be written meanwhile.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Soon {
    address: usize,
    /// Lines of the cache.
    pub(crate) lines: usize,
}

impl Soon {
    /// These numbers, which will be read or written.
    pub(crate) fn of(wanted: &[f32]) -> Self {
        Self { address: wanted.as_ptr().addr(), lines: wanted.len().div_ceil(LINE) }
    }

    /// Where it begins.
    pub(crate) fn first(self) -> *const f32 {
        std::ptr::without_provenance(self.address)
    }

    /// Without its first lines.
    pub(crate) fn after(self, lines: usize) -> Self {
        let lines = lines.min(self.lines);
        Self { address: self.address + lines * LINE * size_of::<f32>(), lines: self.lines - lines }
    }
}

/// Asks for numbers that will be read soon, so that they come while something else is computed.
pub(crate) fn prefetch(wanted: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        for line in wanted.chunks(LINE) {
            // SAFETY: every x86-64 machine has SSE; a prefetch neither reads nor writes what a program
            // can see.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = wanted;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_from_the_first_to_the_last() {
        let numbers = [0.0; 5 * LINE + 1];
        let soon = Soon::of(&numbers);
        assert_eq!((soon.first(), soon.lines), (numbers.as_ptr(), 6));
        let rest = soon.after(4);
        assert_eq!((rest.first(), rest.lines), (numbers[4 * LINE..].as_ptr(), 2));
        assert_eq!(rest.after(7).lines, 0);
        assert_eq!(Soon::of(&[]).lines, 0);
    }
}
