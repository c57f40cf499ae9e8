//! Drawing actions from logits, on the host.

use gatefold_env::Action;
use gatefold_ops::log_softmax_rows;
use thiserror::Error;

/// One chosen action.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// The action.
    pub action: Action,
    /// Its log-probability.
    pub log_prob: f32,
}

/// Why no action could be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChoiceError {
    /// The mask allows nothing.
    #[error("row {row}: the mask allows no action")]
    AllMasked {
        /// Row of the batch, i.e. environment.
        row: usize,
    },
    /// The logits are not numbers.
    #[error("row {row}: the policy's logits are not finite")]
    NonFinite {
        /// Row of the batch, i.e. environment.
        row: usize,
    },
}

impl ChoiceError {
    /// The same for rows that are part of a larger batch, from row `first` of it on.
    pub fn of_rows_from(self, first: usize) -> Self {
        match self {
            Self::AllMasked { row } => Self::AllMasked { row: first + row },
            Self::NonFinite { row } => Self::NonFinite { row: first + row },
        }
    }
}

/// How actions are picked from logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// Drawn from the distribution.
    Sample,
    /// The most likely one.
    Mode,
}

impl Choice {
    /// Chooses an action for every row of `logits` `[N, A]`, row-major; `mask` alike, or `None`.
    ///
    /// [`Pick::Sample`] takes one number of `uniform`, in [0, 1), per row, [`Pick::Mode`] none. Fails on an
    /// all-masked row, before any softmax, and on logits that are NaN or infinite where allowed.
    pub fn rows(
        logits: &[f32],
        mask: Option<&[bool]>,
        num_actions: usize,
        pick: Pick,
        mut uniform: impl FnMut() -> f32,
        choices: &mut Vec<Choice>,
    ) -> Result<(), ChoiceError> {
        choices.clear();
        for (row, logits) in logits.chunks_exact(num_actions).enumerate() {
            let mask = mask.map(|mask| &mask[row * num_actions..(row + 1) * num_actions]);
            if mask.is_some_and(|mask| !mask.contains(&true)) {
                return Err(ChoiceError::AllMasked { row });
            }
            let allowed = |a: usize| mask.is_none_or(|mask| mask[a]);
            if (0..num_actions).any(|a| allowed(a) && !logits[a].is_finite()) {
                return Err(ChoiceError::NonFinite { row });
            }
        }
        let mut log_probs = vec![0.0; logits.len()];
        log_softmax_rows(logits, mask, num_actions, &mut log_probs);
        for log_probs in log_probs.chunks_exact(num_actions) {
            let action = match pick {
                Pick::Mode => most_likely(log_probs),
                Pick::Sample => draw(log_probs, uniform()),
            };
            choices.push(Choice { action: Action::Discrete(action), log_prob: log_probs[action] });
        }
        Ok(())
    }
}

fn most_likely(log_probs: &[f32]) -> usize {
    (0..log_probs.len()).fold(0, |best, a| if log_probs[a] > log_probs[best] { a } else { best })
}

/// Inverse transform sampling; rounding at the very end falls on the last action that can happen.
fn draw(log_probs: &[f32], uniform: f32) -> usize {
    let mut below = 0.0;
    let mut last = 0;
    for (action, &log_prob) in log_probs.iter().enumerate() {
        if log_prob > f32::NEG_INFINITY {
            last = action;
            below += log_prob.exp();
            if uniform < below {
                return action;
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatefold_env::{Purpose, stream};
    use rand::RngExt;

    fn choose(logits: &[f32], mask: Option<&[bool]>, pick: Pick) -> Result<Vec<Choice>, ChoiceError> {
        let mut choices = Vec::new();
        let mut rng = stream(1, Purpose::Actions, 0);
        Choice::rows(logits, mask, 3, pick, || rng.random(), &mut choices)?;
        Ok(choices)
    }

    #[test]
    fn draws_follow_the_probabilities_and_never_a_masked_action() {
        let logits = [0.0, 2f32.ln(), 5.0].repeat(30_000);
        let mask = [true, true, false].repeat(30_000);
        let choices = choose(&logits, Some(&mask), Pick::Sample).unwrap();
        let ones = choices.iter().filter(|c| c.action.index() == 1).count();
        assert!(choices.iter().all(|c| c.action.index() != 2));
        assert!((ones as f64 / 30_000.0 - 2.0 / 3.0).abs() < 0.01, "{ones}");
        let expected = choices.iter().map(|c| if c.action.index() == 1 { 2.0 / 3.0 } else { 1.0 / 3.0f32 });
        assert!(choices.iter().zip(expected).all(|(c, p)| (c.log_prob - p.ln()).abs() < 1e-6));
    }

    #[test]
    fn the_mode_is_the_most_likely_allowed_action() {
        let mask = [true, true, false];
        let choice = choose(&[0.0, 1.0, 9.0], Some(&mask), Pick::Mode).unwrap()[0];
        assert_eq!(choice.action, Action::Discrete(1));
    }

    #[test]
    fn an_all_masked_row_and_a_nan_are_errors_that_name_the_row() {
        let masked = choose(&[0.0; 6], Some(&[true, false, true, false, false, false]), Pick::Sample);
        assert_eq!(masked, Err(ChoiceError::AllMasked { row: 1 }));
        assert_eq!(choose(&[0.0, f32::NAN, 0.0], None, Pick::Mode), Err(ChoiceError::NonFinite { row: 0 }));
        let hidden = choose(&[0.0, f32::NAN, 0.0], Some(&[true, false, true]), Pick::Mode);
        assert!(hidden.is_ok(), "a masked entry takes no part");
    }
}
