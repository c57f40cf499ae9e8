//! For information: variances over updates, and the gap between training and held-out data.

use super::history::variance;
use super::view::{View, number, verdict};
use crate::{Metrics, Severity, Verdict, names};

/// Updates of the short and the long variance.
const UPDATES: [usize; 2] = [50, 100];

/// A metric and the names of its variances over [`UPDATES`].
const VARIANCES: [(&str, [&str; 2]); 3] = [
    (names::TRAIN_LOSS, [names::TRAIN_LOSS_VARIANCE_50, names::TRAIN_LOSS_VARIANCE_100]),
    (
        names::SUPERVISED_ACCURACY,
        [names::SUPERVISED_ACCURACY_VARIANCE_50, names::SUPERVISED_ACCURACY_VARIANCE_100],
    ),
    (names::LOSSES_PET, [names::LOSSES_PET_VARIANCE_50, names::LOSSES_PET_VARIANCE_100]),
];

/// The variances whose window is full.
pub(crate) fn variances(view: &View) -> Metrics {
    let mut metrics = Metrics::new();
    for (name, reported) in VARIANCES {
        for (updates, reported) in UPDATES.into_iter().zip(reported) {
            if let Some(values) = view.history.window(name, updates, 0) {
                metrics.set(reported, variance(&values));
            }
        }
    }
    metrics
}

pub(crate) fn judge(view: &View, variances: &Metrics, out: &mut Vec<Verdict>) {
    out.extend(still_loss(view, variances));
    out.extend(accuracy_gap(view));
    out.extend(return_gap(view));
}

fn still_loss(view: &View, variances: &Metrics) -> Option<Verdict> {
    let value = variances.get(names::TRAIN_LOSS_VARIANCE_50)?;
    (value < view.config.loss_variance_floor && !view.at_its_best()).then(|| {
        verdict(
            "loss-variance",
            Severity::Info,
            (names::TRAIN_LOSS_VARIANCE_50, value),
            format!("above {:.0e}", view.config.loss_variance_floor),
            format!("the loss has a variance of {} over 50 updates: nothing moves", number(value)),
            "raise curriculum.lr_scale if the score does not rise",
        )
    })
}

fn gap(view: &View, metric: &str, what: &str, (training, held_out): (f64, f64), gap: f64) -> Option<Verdict> {
    (gap > view.config.generalisation_gap).then(|| {
        verdict(
            "generalisation-gap",
            Severity::Info,
            (metric, gap),
            format!("below {}", view.config.generalisation_gap),
            format!("{what} {} in training and {} on held-out data", number(training), number(held_out)),
            "more training environments or data, augmentation, or a smaller policy.trunk",
        )
    })
}

fn accuracy_gap(view: &View) -> Option<Verdict> {
    let training = view.history.last(names::SUPERVISED_ACCURACY)?;
    let held_out = view.history.last(names::SUPERVISED_VALIDATION_ACCURACY)?;
    gap(view, names::SUPERVISED_VALIDATION_ACCURACY, "accuracy is", (training, held_out), training - held_out)
}

fn return_gap(view: &View) -> Option<Verdict> {
    let held_out = view.metrics.get(names::EVAL_RETURN_MEAN)?; // only compare returns of one moment
    let training = view.metrics.get(names::ROLLOUT_RETURN_MEAN)?;
    let relative = (training - held_out) / training.abs().max(held_out.abs());
    gap(view, names::EVAL_RETURN_MEAN, "the mean return is", (training, held_out), relative)
}
