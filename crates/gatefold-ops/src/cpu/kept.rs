//! Large buffers that live from a forward to its backward pass, handed on from update to update.
//!
//! Fresh memory costs a page fault for each 4 KiB, about as much as filling it with the result.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, PoisonError},
};

/// Most numbers that wait for their next user: 64 MiB.
const MOST_WAITING: usize = 1 << 24;

static FREE: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// A buffer whose elements are whatever its last user left: write before reading.
#[derive(Debug)]
pub(crate) struct Kept {
    buffer: Vec<f32>,
    len: usize,
}

/// The length of the buffers that serve requests of `len`, at most an eighth more.
fn class(len: usize) -> usize {
    let step = (len.next_power_of_two() / 16).max(1);
    len.next_multiple_of(step)
}

impl Kept {
    /// A buffer of `len` elements: a used one of about this length, or a new one.
    pub(crate) fn new(len: usize) -> Self {
        let size = class(len);
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let used = free.iter().rposition(|buffer| buffer.len() == size).map(|at| free.remove(at));
        drop(free);
        Self { buffer: used.unwrap_or_else(|| vec![0.0; size]), len }
    }
}

impl Drop for Kept {
    /// Leaves the buffer to the next user of its size; the ones that wait longest go for it.
    fn drop(&mut self) {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(std::mem::take(&mut self.buffer));
        let mut waiting: usize = free.iter().map(Vec::len).sum();
        while waiting > MOST_WAITING {
            waiting -= free.remove(0).len();
        }
    }
}

impl Deref for Kept {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.buffer[..self.len]
    }
}

impl DerefMut for Kept {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_by_the_next_of_about_its_length_alone() {
        let mut first = Kept::new(12_347);
        first[0] = 7.0;
        let other = Kept::new(12_347);
        assert_eq!(other[0], 0.0, "the first is still in use");
        drop(first);
        assert_eq!(Kept::new(14_347)[0], 0.0);
        let again = Kept::new(12_340);
        assert_eq!((again[0], again.len()), (7.0, 12_340));
    }

    #[test]
    fn a_buffer_is_at_most_an_eighth_longer_than_asked() {
        assert!(
            (1..5000).chain([1 << 20, (1 << 20) + 1]).all(|len| (len..=len + len / 8).contains(&class(len)))
        );
        assert_eq!(class(0), 0);
    }

    #[test]
    fn no_more_waits_than_the_most() {
        drop(Kept::new(MOST_WAITING - 5));
        drop(Kept::new(MOST_WAITING - 6));
        let free = FREE.lock().unwrap();
        assert!(free.iter().map(Vec::len).sum::<usize>() <= MOST_WAITING);
        assert!(free.iter().all(|buffer| buffer.len() != MOST_WAITING - 5), "the older one went");
    }
}
