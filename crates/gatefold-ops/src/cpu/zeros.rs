//! Large results that are mostly zero, in memory that is handed on from update to update.
//!
//! Clearing the gradient of 256 experts' weights takes longer than computing what two of them get. So the
//! memory of such a result is remembered, with what was written to it; when nobody holds the result any more,
//! the next one of its size clears that alone, and not what it will overwrite.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

use burn::backend::flex::FlexTensor;

use super::flat::{dims, tensor};

/// Fewer elements are not worth remembering.
const LEAST: usize = 1 << 16;

/// Most elements that are remembered: 64 MiB.
const MOST: usize = 1 << 24;

/// A result that was handed out, and where it is not zero.
struct Lent {
    result: FlexTensor,
    written: Vec<Range<usize>>,
}

static LENT: Mutex<Vec<Lent>> = Mutex::new(Vec::new());

/// A tensor that has no other handle, of zeros but for the ranges that are `overwritten`, in ascending order:
/// they hold anything.
pub(crate) fn zeros(len: usize, overwritten: &[Range<usize>]) -> FlexTensor {
    let mut lent = LENT.lock().unwrap_or_else(PoisonError::into_inner);
    let free = |lent: &Lent| dims(&lent.result) == [len] && lent.result.is_unique();
    let found = lent.iter().rposition(free).map(|at| lent.remove(at));
    drop(lent);
    match found {
        Some(Lent { mut result, written }) => {
            let elements = result.storage_mut::<f32>();
            for Range { mut start, end } in written {
                let first = overwritten.partition_point(|range| range.end <= start);
                for range in overwritten[first..].iter().take_while(|range| range.start < end) {
                    elements[start..range.start.max(start)].fill(0.0);
                    start = range.end.min(end);
                }
                elements[start..end].fill(0.0);
            }
            result
        }
        None => tensor(vec![0.0; len], [len]),
    }
}

/// Remembers a result of [`zeros`] that is 0 but for the `written` ranges.
pub(crate) fn remember(result: &FlexTensor, written: Vec<Range<usize>>) {
    let [len] = dims(result);
    if !(LEAST..=MOST).contains(&len) {
        return;
    }
    let mut lent = LENT.lock().unwrap_or_else(PoisonError::into_inner);
    lent.push(Lent { result: result.clone(), written });
    let mut held: usize = lent.iter().map(|lent| dims::<1>(&lent.result)[0]).sum();
    while held > MOST {
        held -= dims::<1>(&lent.remove(0).result)[0];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::flat::floats;

    #[test]
    fn memory_is_used_again_when_nobody_holds_it_and_is_zero_then() {
        let len = LEAST + 1;
        let mut first = zeros(len, &[]);
        first.storage_mut::<f32>()[5..9].fill(1.0);
        remember(&first, vec![5..7, 7..9]);
        let address = floats(&first).as_ptr();
        let other = zeros(len, &[]);
        assert_ne!(floats(&other).as_ptr(), address, "the first is still held");
        assert_eq!(floats(&first)[5..9], [1.0; 4]);
        drop(first);
        let again = zeros(len, &[]);
        assert_eq!(floats(&again).as_ptr(), address);
        assert!(floats(&again).iter().all(|&x| x == 0.0));
    }

    #[test]
    fn what_is_overwritten_is_not_cleared() {
        let len = LEAST + 3;
        let mut result = zeros(len, &[]);
        result.storage_mut::<f32>()[10..30].fill(1.0);
        remember(&result, vec![10..20, 20..26, 26..30]);
        drop(result);
        let again = zeros(len, &[2..4, 8..12, 15..16, 16..17, 19..21, 25..40, 50..60]);
        let ones = |at: &usize| floats(&again)[*at] == 1.0;
        let kept = (10..12).chain(15..17).chain(19..21).chain(25..30);
        assert!((0..len).filter(ones).eq(kept));
    }

    #[test]
    fn who_changes_a_result_changes_its_own_copy() {
        let len = LEAST + 2;
        let mut result = zeros(len, &[]);
        result.storage_mut::<f32>()[3..5].fill(2.0);
        remember(&result, vec![3..4, 4..5]);
        result.storage_mut::<f32>()[7] = 1.0;
        drop(result);
        assert!(floats(&zeros(len, &[])).iter().all(|&x| x == 0.0));
    }
}
