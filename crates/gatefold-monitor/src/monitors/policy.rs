//! Does the policy change by steps that PPO can trust, and does it still choose.

use super::view::{View, above, number, verdict};
use crate::{Severity, Verdict, names};

pub(crate) fn judge(view: &View, out: &mut Vec<Verdict>) {
    out.extend(step_size(view));
    out.extend(advantages(view));
    out.extend(actions(view));
}

fn step_size(view: &View) -> Option<Verdict> {
    let config = view.config;
    let value = view.median(names::TRAIN_APPROX_KL, config.short_window)?;
    let severity = above(value, config.approx_kl_warning, config.approx_kl_alarm)?;
    Some(verdict(
        "approx-kl",
        severity,
        (names::TRAIN_APPROX_KL, value),
        format!("below {} nats; above {} an alarm", config.approx_kl_warning, config.approx_kl_alarm),
        format!(
            "updates move the policy by {} nats (median over {} iterations), clip fraction {}",
            number(value),
            config.short_window,
            view.metrics.get(names::TRAIN_CLIP_FRACTION).map_or("unknown".into(), number)
        ),
        "set ppo.target_kl = 0.03, lower curriculum.lr_scale, or use fewer ppo.epochs",
    ))
}

/// Normalising advantages that are all the same magnifies rounding into a gradient.
fn advantages(view: &View) -> Option<Verdict> {
    let config = view.config;
    let scale = view.return_scale?;
    let value = view.median(names::TRAIN_ADVANTAGE_STD, config.short_window)?;
    (value < config.advantage_std_floor * scale).then(|| {
        let severity = if view.at_its_best() { Severity::Info } else { Severity::Warning };
        verdict(
            "advantage-std",
            severity,
            (names::TRAIN_ADVANTAGE_STD, value),
            format!("above {} ({} of the return scale)", number(config.advantage_std_floor * scale), config.advantage_std_floor),
            format!(
                "advantages have a standard deviation of {} (median over {} iterations) at returns of size {}: no action \
                 looks better than another",
                number(value),
                config.short_window,
                number(scale)
            ),
            "nothing if the return is at its best; else look at the rewards (are they constant?), or set \
             ppo.normalize_advantages = false",
        )
    })
}

/// A deterministic policy is fine where it earns its best return, and a collapse where it does not.
fn actions(view: &View) -> Option<Verdict> {
    let config = view.config;
    let window = config.short_window;
    let early = view.history.early(names::TRAIN_ENTROPY).filter(|early| *early > 0.0);
    let entropy = view.median(names::TRAIN_ENTROPY, window);
    // A negative entropy is that of continuous actions, which have no floor.
    let silent = entropy
        .zip(early)
        .filter(|(entropy, early)| *entropy > -1e-3 && *entropy < config.action_entropy_floor * early);
    let share =
        view.median(names::TRAIN_ACTION_MAX_SHARE, window).filter(|share| *share > config.action_share);
    let (metric, value, evidence) = match (silent, share) {
        (Some((entropy, early)), _) => (
            names::TRAIN_ENTROPY,
            entropy,
            format!(
                "actions have an entropy of {} nats (median over {window} iterations), {} at the start",
                number(entropy),
                number(early)
            ),
        ),
        (None, Some(share)) => (
            names::TRAIN_ACTION_MAX_SHARE,
            share,
            format!(
                "{:.1}% of the steps take the same action (median over {window} iterations)",
                100.0 * share
            ),
        ),
        (None, None) => return None,
    };
    let sudden = view.history.early(names::TRAIN_ENTROPY).is_some_and(|early| {
        silent.is_some()
            && view.history.recent(names::TRAIN_ENTROPY, 3 * window).any(|entropy| entropy > 0.25 * early)
    });
    let earns = view.at_its_best();
    let severity = if earns && !sudden { Severity::Info } else { Severity::Alarm };
    let how = if sudden {
        "; it fell at once"
    } else if earns {
        "; the return is at its best"
    } else {
        "; the return is not at its best"
    };
    Some(verdict(
        "action-collapse",
        severity,
        (metric, value),
        format!(
            "entropy above {} of its start and no action above {:.0}% of the steps, unless the return is at its best",
            config.action_entropy_floor,
            100.0 * config.action_share
        ),
        evidence + how,
        "raise entropy in the table of the phase (curriculum.warmup, transition, fine_tune, constant) and lower \
         curriculum.lr_scale",
    ))
}
