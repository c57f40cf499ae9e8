//! Are updates discarded again and again, although never often enough in a row for the guard to act?

use super::view::{View, above, number, verdict};
use crate::{Verdict, names};

pub(crate) fn judge(view: &View, out: &mut Vec<Verdict>) {
    let config = view.config;
    let Some(rate) = view.metrics.get(names::GUARD_DISCARD_RATE) else { return };
    let Some(severity) = above(rate, config.discard_rate_warning, config.discard_rate_alarm) else { return };
    out.push(verdict(
        "discarded-updates",
        severity,
        (names::GUARD_DISCARD_RATE, rate),
        format!("at most {} of updates discarded", number(config.discard_rate_warning)),
        format!("{} of the last 20 updates were discarded", (20.0 * rate).round()),
        "see what `gatefold replay-update` says of the newest dump; lower curriculum.lr_scale or \
         ppo.max_grad_norm, and look at the environment's rewards and observations if it names those",
    ));
}
