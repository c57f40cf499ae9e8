//! Does the critic predict returns, or only their mean.

use super::view::{View, number, verdict};
use crate::{Severity, Verdict, names};

/// Root mean squared value error in units of the return scale: derived here from other metrics.
pub(crate) const VALUE_ERROR: &str = "derived/value_error";

/// `(error, scale)`: root mean squared error of the critic, and the size of returns, both in its units.
///
/// Returns have a mean of about the mean value, and a variance of `value_loss / (1 - explained variance)`,
/// since both terms measure one error against it. Explained variance is cut at 0.99, where the quotient
/// says nothing.
pub(crate) fn error_and_scale(metrics: &crate::Metrics) -> Option<(f64, f64)> {
    let finite = |name: &str| metrics.get(name).filter(|value| value.is_finite());
    let value_loss = finite(names::TRAIN_VALUE_LOSS)?.max(0.0);
    let mean = finite(names::ROLLOUT_VALUE_MEAN)?;
    let explained = finite(names::TRAIN_EXPLAINED_VARIANCE).unwrap_or(0.0).min(0.99);
    Some((value_loss.sqrt(), (mean * mean + value_loss / (1.0 - explained)).sqrt()))
}

pub(crate) fn judge(view: &View, out: &mut Vec<Verdict>) {
    out.extend(worse_than_none(view));
    out.extend(stuck_at_the_mean(view));
}

fn worse_than_none(view: &View) -> Option<Verdict> {
    let (config, window) = (view.config, view.config.window);
    let value = view.median(names::TRAIN_EXPLAINED_VARIANCE, window)?;
    // Returns that are nearly constant make any critic look bad; without an error to look at, none is excused.
    let error = view.median(VALUE_ERROR, window);
    if value >= config.explained_variance_alarm || error.is_some_and(|error| error < config.value_error_floor)
    {
        return None;
    }
    Some(verdict(
        "explained-variance",
        Severity::Alarm,
        (names::TRAIN_EXPLAINED_VARIANCE, value),
        format!("above 0, better towards 1; below {} an alarm", config.explained_variance_alarm),
        format!(
            "the critic explains {} of the returns' variance (median over {window} iterations): worse than predicting their \
             mean; its error is {} of the return scale",
            number(value),
            error.map_or("an unknown share".into(), number)
        ),
        "lower curriculum.lr_scale, raise ppo.value_coef, or set ppo.value_loss = \"huber\"",
    ))
}

fn stuck_at_the_mean(view: &View) -> Option<Verdict> {
    let (config, window) = (view.config, view.config.long_window);
    let ratio = view.median(names::TRAIN_VALUE_SD_RATIO, window)?;
    let skill = view.median(names::TRAIN_VALUE_SKILL, window)?;
    if ratio >= config.value_sd_ratio || skill >= config.value_skill {
        return None;
    }
    let errors = view.window(VALUE_ERROR, window);
    if let Some(errors) = errors {
        let (before, now) = errors.split_at(window / 2);
        let (before, now) = (super::history::median(before)?, super::history::median(now)?);
        if now < config.value_error_floor || now < 0.9 * before {
            return None; // small, or still falling
        }
    }
    Some(verdict(
        "value-head",
        Severity::Alarm,
        (names::TRAIN_VALUE_SD_RATIO, ratio),
        format!(
            "a spread above {} of the returns', or a skill above {}",
            config.value_sd_ratio, config.value_skill
        ),
        format!(
            "the critic is stuck at the mean: its values spread by {} of the returns' standard deviation, its skill over the \
             best constant is {} (medians over {window} iterations), and its error does not fall",
            number(ratio),
            number(skill)
        ),
        "raise ppo.value_coef or curriculum.lr_scale, scale rewards (reward.scaling = \"returns\"), and look at whether the \
         observation can tell good states from bad ones",
    ))
}
