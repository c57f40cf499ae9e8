//! Memory for a large result that tasks write part by part.
//!
//! Cleared as a whole it would go through all caches once more. So a product writes its part at once, and
//! what adds up clears its part just before.

#![allow(unsafe_code)]

use std::{
    mem::MaybeUninit,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Memory of which nothing is set yet.
pub(crate) struct Unset {
    /// Empty, with room for the result.
    memory: Vec<f32>,
    len: usize,
    /// How many elements parts have set.
    set: AtomicUsize,
}

/// A part of [`Unset`] memory.
pub(crate) struct Part<'a> {
    elements: &'a mut [MaybeUninit<f32>],
    set: &'a AtomicUsize,
}

impl Unset {
    /// Memory for `len` elements.
    pub(crate) fn new(len: usize) -> Self {
        Self { memory: Vec::with_capacity(len), len, set: AtomicUsize::new(0) }
    }

    /// All of it, as one part; what earlier parts have set counts no more.
    pub(crate) fn whole(&mut self) -> Part<'_> {
        *self.set.get_mut() = 0;
        Part { elements: &mut self.memory.spare_capacity_mut()[..self.len], set: &self.set }
    }

    /// The result. Panics if a part was not set.
    pub(crate) fn finish(mut self) -> Vec<f32> {
        assert_eq!(*self.set.get_mut(), self.len, "elements that parts have set");
        // SAFETY: parts do not overlap and each is set once at most, so with this count every element is.
        unsafe { self.memory.set_len(self.len) };
        self.memory
    }
}

impl<'a> Part<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.elements.len()
    }

    /// Takes the first `len` elements off.
    pub(crate) fn take(&mut self, len: usize) -> Part<'a> {
        let (first, rest) = std::mem::take(&mut self.elements).split_at_mut(len);
        self.elements = rest;
        Part { elements: first, set: self.set }
    }

    /// Sets every element to 0.
    pub(crate) fn cleared(self) -> &'a mut [f32] {
        // SAFETY: all are set.
        unsafe { self.set_by(|elements| elements.fill(MaybeUninit::new(0.0))) }
    }

    /// # Safety
    /// `set` sets every element.
    pub(crate) unsafe fn set_by(self, set: impl FnOnce(&mut [MaybeUninit<f32>])) -> &'a mut [f32] {
        set(self.elements);
        self.set.fetch_add(self.elements.len(), Ordering::Relaxed);
        // SAFETY: the caller vouches for every element.
        unsafe { assume_set(self.elements) }
    }
}

/// # Safety
/// Every element is set.
pub(crate) unsafe fn assume_set(elements: &mut [MaybeUninit<f32>]) -> &mut [f32] {
    // SAFETY: `MaybeUninit<f32>` lies in memory as `f32` does.
    unsafe { &mut *(std::ptr::from_mut(elements) as *mut [f32]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_set_one_by_one() {
        let mut memory = Unset::new(5);
        let mut rest = memory.whole();
        let first = rest.take(2).cleared();
        first[1] = 3.0;
        assert!(!rest.is_empty());
        // SAFETY: all elements are set.
        unsafe { rest.set_by(|rest| rest.fill(MaybeUninit::new(4.0))) };
        assert_eq!(memory.finish(), [0.0, 3.0, 4.0, 4.0, 4.0]);
    }

    #[test]
    #[should_panic(expected = "elements that parts have set")]
    fn a_result_with_a_part_that_nobody_set_is_none() {
        let mut memory = Unset::new(5);
        memory.whole().take(2).cleared();
        memory.finish();
    }

    #[test]
    #[should_panic(expected = "elements that parts have set")]
    fn what_was_set_before_the_whole_was_taken_again_does_not_count() {
        let mut memory = Unset::new(4);
        memory.whole().take(2).cleared();
        memory.whole().take(2).cleared();
        memory.finish();
    }
}
