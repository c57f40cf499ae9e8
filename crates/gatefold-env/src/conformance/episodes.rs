//! Rewards, scores, ends and statistics of episodes.

use crate::conformance::compare::{compared, in_step};
use crate::conformance::drive::{Drive, Driver};
use crate::conformance::report::{Check, Fault, Outcome};
use crate::conformance::{Lab, NUM_ENVS};
use crate::{Episode, EpisodeEnd};

pub(super) const CHECKS: &[Check] = &[
    Check { name: "rewards-are-finite", about: "No reward is NaN or infinite.", run: rewards_are_finite },
    Check {
        name: "scores-are-finite",
        about: "No episode's score is NaN or infinite.",
        run: scores_are_finite,
    },
    Check {
        name: "ends-are-reported-once",
        about: "Each end gives exactly one episode record, in the order of environments, and no step without one does.",
        run: ends_are_reported_once,
    },
    Check {
        name: "returns-add-up",
        about: "An episode's return is the sum of the rewards of its steps.",
        run: returns_add_up,
    },
    Check {
        name: "lengths-are-counted",
        about: "An episode's length is the number of its steps.",
        run: lengths_are_counted,
    },
    Check {
        name: "time-limit-holds",
        about: "No episode is longer than the spec's limit.",
        run: time_limit_holds,
    },
    Check {
        name: "results-are-overwritten",
        about: "What the last step left in the results does not show in the next.",
        run: results_are_overwritten,
    },
    Check {
        name: "reset-starts-over",
        about: "A reset in the middle of episodes starts all statistics at 0 and the clock anew.",
        run: reset_starts_over,
    },
];

fn rewards_are_finite(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    lab.watch(|drive| match drive.results.rewards.iter().position(|reward| !reward.is_finite()) {
        Some(env) => {
            let reward = drive.results.rewards[env];
            Err(Fault::at(drive.step, format!("environment {env}: reward {reward}")))
        }
        None => Ok(()),
    })?;
    Ok(Outcome::Held)
}

/// Looks at every episode that ends; skipped if none does.
fn each_episode(
    lab: &Lab<'_>,
    look: impl Fn(&Drive, &Episode) -> Result<(), String>,
) -> Result<Outcome, Fault> {
    let mut count = 0;
    lab.watch(|drive| {
        if drive.step > 0 {
            for episode in &drive.results.finished {
                count += 1;
                look(drive, episode).map_err(|found| {
                    Fault::at(drive.step, format!("environment {}: {found}", episode.env))
                })?;
            }
        }
        Ok(())
    })?;
    Ok(if count > 0 { Outcome::Held } else { no_episode(lab) })
}

fn no_episode(lab: &Lab<'_>) -> Outcome {
    Outcome::Skipped(format!("no episode ended within {} steps", lab.horizon()))
}

fn scores_are_finite(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    each_episode(lab, |_, episode| match episode.score.is_finite() {
        true => Ok(()),
        false => Err(format!("score {}", episode.score)),
    })
}

fn ends_are_reported_once(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    lab.watch(|drive| {
        if drive.step == 0 {
            return Ok(());
        }
        let ends = drive.results.ends.iter().enumerate();
        let ended: Vec<(usize, EpisodeEnd)> = ends.filter_map(|(env, end)| Some((env, (*end)?))).collect();
        let reported: Vec<_> = drive.results.finished.iter().map(|e| (e.env, e.end)).collect();
        if ended != reported {
            return Err(Fault::at(drive.step, format!("ended {ended:?}, reported {reported:?}")));
        }
        Ok(())
    })?;
    Ok(Outcome::Held)
}

fn returns_add_up(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    each_episode(lab, |drive, episode| {
        let (sum, told) = (drive.returns[episode.env], episode.episode_return);
        // A NaN reward fails its own check only.
        if sum.is_finite() && (sum - told).abs() > 1e-9 * (1.0 + sum.abs()) {
            return Err(format!("rewards add up to {sum}, the return is {told}"));
        }
        Ok(())
    })
}

fn lengths_are_counted(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    each_episode(lab, |drive, episode| match drive.lengths[episode.env] {
        counted if counted == episode.length => Ok(()),
        counted => Err(format!("{counted} steps were taken, the length is {}", episode.length)),
    })
}

fn time_limit_holds(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    let Some(limit) = lab.spec.max_episode_steps else {
        return Ok(Outcome::Skipped("it has no time limit".to_string()));
    };
    lab.watch(|drive| match drive.lengths.iter().position(|&length| length > limit) {
        Some(env) => {
            let length = drive.lengths[env];
            Err(Fault::at(drive.step, format!("environment {env}: step {length} of at most {limit}")))
        }
        None => Ok(()),
    })?;
    Ok(Outcome::Held)
}

fn results_are_overwritten(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    let mut a = lab.drive(NUM_ENVS, lab.settings.seed, Driver::Random)?;
    let mut b = lab.drive(NUM_ENVS, lab.settings.seed, Driver::Random)?;
    in_step(&mut a, &mut b, lab.settings.steps, |a, b| {
        a.take()?;
        // Statistics counted by the drive are not compared, so junk in the ends does no harm.
        b.results.rewards.fill(f32::MAX);
        b.results.ends.fill(Some(EpisodeEnd::Terminated));
        let end = EpisodeEnd::Truncated;
        b.results.finished.push(Episode { env: 0, episode_return: -1.0, score: -1.0, length: 0, end });
        b.take()
    })?;
    compared(&a, &b)?;
    Ok(Outcome::Held)
}

fn reset_starts_over(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    let mut count = 0;
    for before in [1, 3, 7] {
        let mut drive = lab.drive(NUM_ENVS, lab.settings.seed, Driver::Random)?;
        drive.advance(before)?;
        drive.start()?;
        for _ in 0..lab.horizon() {
            drive.advance(1)?;
            for episode in &drive.results.finished {
                count += 1;
                let (env, length, sum) =
                    (episode.env, drive.lengths[episode.env], drive.returns[episode.env]);
                let same_return = (sum - episode.episode_return).abs() <= 1e-9 * (1.0 + sum.abs());
                if length != episode.length || (sum.is_finite() && !same_return) {
                    let detail = format!(
                        "environment {env}, reset after {before} steps: {length} steps gave {sum}, but {episode:?}"
                    );
                    return Err(Fault::at(drive.step, detail));
                }
            }
        }
    }
    Ok(if count > 0 { Outcome::Held } else { no_episode(lab) })
}
