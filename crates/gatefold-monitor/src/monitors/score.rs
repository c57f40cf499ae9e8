//! Does the return rise, has it risen, and is it still there.

use super::history::{mean, variance};
use super::view::{View, number, verdict};
use crate::{Severity, Verdict, names};

/// Episodes after which a window of the last 100 holds none from before.
const FRESH_EPISODES: f64 = 200.0;
/// Share of the gain within which a return counts as standing still.
const STILL: f64 = 0.05;

pub(crate) fn judge(view: &View, out: &mut Vec<Verdict>) {
    let missing = no_reward(view);
    if missing.is_some() {
        out.extend(missing);
        return; // says more than a flat or lost score
    }
    out.extend(lost(view));
    out.extend(flat(view));
}

/// Whether the second half of the window lies above the first by more than the noise inside the halves.
fn rises(window: &[f64]) -> bool {
    let (before, now) = window.split_at(window.len() / 2);
    let noise = (0.5 * (variance(before) + variance(now))).sqrt();
    let rise = mean(now) - mean(before);
    rise > 2.0 * noise && rise > 0.01 * mean(now).abs()
}

fn no_reward(view: &View) -> Option<Verdict> {
    let config = view.config;
    let metric = match view.metrics.get(names::ROLLOUT_REWARD_ABS_MEAN) {
        Some(_) => names::ROLLOUT_REWARD_ABS_MEAN,
        None => names::ROLLOUT_RETURN_MEAN,
    };
    let regular = view.score.rewarded_regularly(config.short_window);
    let window = if regular { config.short_window } else { config.long_window };
    let values = view.window(metric, window)?;
    if values.iter().any(|value| *value != 0.0) {
        return None;
    }
    // Where all rewards are penalties, none is the best there is.
    let first = view.score.first(config);
    let penalties = first.is_some_and(|first| first < 0.0) && view.score.best() <= Some(0.0);
    if penalties || view.at_target() {
        return None;
    }
    let evidence = match view.score.best().filter(|_| view.score.rewarded()) {
        Some(best) => format!(
            "every reward of the last {window} iterations was 0, after returns of up to {}",
            number(best)
        ),
        None => format!("no reward other than 0 in the last {window} iterations"),
    };
    Some(verdict(
        "no-reward",
        Severity::Alarm,
        (metric, 0.0),
        "some reward in every window",
        evidence,
        "look at the environment and its rewards; if they are merely rare, raise entropy in the table of the phase, \
         ppo.num_steps or run.num_envs, or start from recorded episodes",
    ))
}

fn lost(view: &View) -> Option<Verdict> {
    let config = view.config;
    if view.at_target() || !view.score.learned(config) {
        return None;
    }
    let (since, episodes_then) = view.score.lost_at()?;
    let (level, best, first) = (view.score.level()?, view.score.best()?, view.score.first(config)?);
    let lasted = (view.at.iteration + 1).saturating_sub(since);
    if lasted < config.short_window as u64 {
        return None;
    }
    let episodes = view.metrics.get(names::ROLLOUT_EPISODES).unwrap_or(f64::NAN) - episodes_then;
    let fresh = episodes.is_nan() || episodes >= FRESH_EPISODES;
    let rising = view.window(names::ROLLOUT_RETURN_MEAN, config.window).is_none_or(|window| rises(&window));
    let severity = if lasted >= config.long_window as u64 && fresh && !rising {
        Severity::Alarm
    } else {
        Severity::Warning
    };
    Some(verdict(
        "score-lost",
        severity,
        (names::ROLLOUT_RETURN_MEAN, level),
        format!(
            "above {}, half way between the first and the best return",
            number(best - config.lost_share * (best - first))
        ),
        format!(
            "the mean return fell from {} to {} and has been low for {lasted} iterations (it began at {}; medians over {} \
             iterations)",
            number(best),
            number(level),
            number(first),
            config.short_window
        ),
        "go back to the best checkpoint with a lower curriculum.lr_scale or ppo.target_kl = 0.03; look at entropy and \
         explained variance around the fall",
    ))
}

/// Flat after learning is for information; flat at the first level is stagnation.
fn flat(view: &View) -> Option<Verdict> {
    let config = view.config;
    let window = view.window(names::ROLLOUT_RETURN_MEAN, config.long_window)?;
    let (first, level) = (view.score.first(config)?, view.score.level()?);
    let episodes = view.metrics.get(names::ROLLOUT_EPISODES).unwrap_or(f64::NAN);
    if rises(&window) || view.at_target() || episodes < FRESH_EPISODES {
        return None;
    }
    let evidence = |what: &str| {
        format!(
            "{what}: mean return {} now, {} at the start, best {} (window of {} iterations)",
            number(level),
            number(first),
            view.score.best().map_or("unknown".into(), number),
            config.long_window
        )
    };
    if !view.score.learned(config) {
        return Some(verdict(
            "stagnation",
            Severity::Alarm,
            (names::ROLLOUT_RETURN_MEAN, level),
            format!("a rise of more than {} over the first mean return", number(view.score.margin(config))),
            evidence("the return does not rise and never did"),
            "cure other alarms first, if any stand; else raise curriculum.lr_scale or the entropy coefficient of the phase, collect more per update (ppo.num_steps, \
             run.num_envs), and compare with a random policy (gatefold eval); if this return is the best there is, say so \
             with run.target_return",
        ));
    }
    let (gain, best) = (view.score.best()? - first, view.score.best()?);
    let still = window.iter().all(|value| (best - value).abs() < STILL * gain);
    still.then(|| {
        verdict(
            "plateau",
            Severity::Info,
            (names::ROLLOUT_RETURN_MEAN, level),
            "rising, or at the target",
            evidence("the return stays where it is, at its best"),
            "nothing if this is good enough; else lower entropy or raise curriculum.lr_scale",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_rises_and_noise_or_a_fall_does_not() {
        let ramp: Vec<f64> = (0..50).map(f64::from).collect();
        let fall: Vec<f64> = ramp.iter().map(|value| -value).collect();
        let noise: Vec<f64> = (0..50).map(|i| f64::from((i * 7) % 5)).collect();
        assert!(rises(&ramp));
        assert!(!rises(&fall) && !rises(&noise) && !rises(&[3.0; 50]));
    }
}
