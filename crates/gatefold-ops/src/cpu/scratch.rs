//! Buffers for within one call, kept by each thread for the next.

use std::{
    cell::RefCell,
    ops::{Deref, DerefMut},
};

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Buffers that a thread keeps at most: another thread's may end here.
const MOST_FREE: usize = 64;

/// A buffer whose elements are whatever its last user left: write before reading.
#[derive(Debug)]
pub(crate) struct Scratch {
    buffer: Vec<f32>,
    len: usize,
}

impl Scratch {
    /// A buffer of `len` elements.
    pub(crate) fn new(len: usize) -> Self {
        let mut buffer = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
        if buffer.len() < len {
            buffer.resize(len, 0.0);
        }
        Self { buffer, len }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        FREE.with_borrow_mut(|free| {
            if free.len() < MOST_FREE {
                free.push(std::mem::take(&mut self.buffer));
            }
        });
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.buffer[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_in_use_at_once_are_different_and_each_is_as_long_as_asked() {
        let mut a = Scratch::new(3);
        a.fill(1.0);
        let mut b = Scratch::new(5);
        b.fill(2.0);
        assert_eq!((&a[..], &b[..]), ([1.0; 3].as_slice(), [2.0; 5].as_slice()));
        drop((a, b));
        assert_eq!(Scratch::new(4).len(), 4);
    }
}
