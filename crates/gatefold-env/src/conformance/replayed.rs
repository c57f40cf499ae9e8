//! The batch against its own environments, copied out and stepped by hand.

use crate::conformance::compare::row_difference;
use crate::conformance::drive::{Drive, Driver};
use crate::conformance::report::{Check, Fault, Outcome};
use crate::conformance::{Lab, NUM_ENVS};
use crate::{EpisodeEnd, ObservationBatch, Purpose, Single, Transition, stream};

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "batch-steps-its-environments",
        about: "Rewards and ends are those of the single environment, plus the time limit.",
        run: |lab| replayed(lab, steps_agree),
    },
    Check {
        name: "together-equals-alone",
        about: "43 copies have the states and observations that stepping each alone gives, bit for bit.",
        run: together_equals_alone,
    },
    Check {
        name: "final-observation",
        about: "The final observation is what observing just before the reset gives.",
        run: |lab| replayed(lab, final_observation),
    },
    Check {
        name: "first-observation",
        about: "After an end, the observation is that of a fresh reset.",
        run: |lab| replayed(lab, first_observation),
    },
    Check {
        name: "score-is-the-last",
        about: "An episode's score is that of its last step, read before the reset.",
        run: |lab| replayed(lab, score_is_the_last),
    },
    Check {
        name: "reset-forgets",
        about: "An episode depends on the stream, not on how the one before it ended.",
        run: reset_forgets,
    },
];

/// One environment around one step: how it was before, and what its own step gave.
struct Replay<'a> {
    drive: &'a Drive,
    env: usize,
    /// After the step, before any reset.
    single: Single,
    transition: Transition,
}

fn no_single() -> Outcome {
    Outcome::Skipped("its environments cannot be copied out of the batch".to_string())
}

/// Replays every step of every environment and hands it to `look`.
fn replayed(
    lab: &Lab<'_>,
    look: fn(&Replay<'_>, &mut ObservationBatch) -> Result<(), String>,
) -> Result<Outcome, Fault> {
    let mut alone = ObservationBatch::new(&lab.spec, 1);
    for &driver in lab.drivers()? {
        let mut drive = lab.drive(NUM_ENVS, lab.settings.seed, driver)?;
        for _ in 0..lab.horizon() {
            drive.choose()?;
            let singles: Vec<_> = (0..NUM_ENVS).map(|env| drive.batch.single(env)).collect();
            drive.take()?;
            for (env, single) in singles.into_iter().enumerate() {
                let Some(mut single) = single else { return Ok(no_single()) };
                let transition = single.step(drive.actions[env]);
                let replay = Replay { drive: &drive, env, single, transition };
                look(&replay, &mut alone)
                    .map_err(|found| Fault::at(drive.step, format!("environment {env}: {found}")))?;
            }
        }
    }
    Ok(Outcome::Held)
}

impl Replay<'_> {
    fn ended(&self) -> bool {
        self.drive.results.ends[self.env].is_some()
    }
}

fn steps_agree(replay: &Replay<'_>, _alone: &mut ObservationBatch) -> Result<(), String> {
    let Replay { drive, env, transition, .. } = replay;
    let reward = drive.results.rewards[*env];
    if reward.to_bits() != transition.reward.to_bits() {
        return Err(format!("reward {reward}, the environment itself gives {}", transition.reward));
    }
    let cut = drive.spec.max_episode_steps == Some(drive.lengths[*env]);
    let expected = transition.end.or(cut.then_some(EpisodeEnd::Truncated));
    let end = drive.results.ends[*env];
    if end != expected {
        return Err(format!("end {end:?} after step {}, expected {expected:?}", drive.lengths[*env]));
    }
    Ok(())
}

/// Copies for [`together_equals_alone`]: more than a block of the batch, and no round number.
const MANY: usize = 43;

/// Compares whole states, because a difference in the last bit may not show in an observation.
fn together_equals_alone(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    let mut alone = ObservationBatch::new(&lab.spec, 1);
    let mut drive = lab.drive(MANY, lab.settings.seed, Driver::Random)?;
    for _ in 0..lab.settings.steps.min(200) {
        drive.choose()?;
        let singles: Vec<_> = (0..MANY).map(|env| drive.batch.single(env)).collect();
        drive.take()?;
        for (env, single) in singles.into_iter().enumerate() {
            let (Some(mut single), Some(together)) = (single, drive.batch.single(env)) else {
                return Ok(no_single());
            };
            single.step(drive.actions[env]);
            if drive.results.ends[env].is_some() {
                single.reset();
            }
            single.observe(&mut alone.as_mut().row(0));
            let differs = |what: String| Fault::at(drive.step, format!("environment {env}: {what} alone"));
            if let Some(found) = row_difference((&drive.seen, env), (&alone, 0)) {
                return Err(differs(found));
            }
            if together.state()? != single.state()? {
                return Err(differs("the state is another one than".to_string()));
            }
        }
    }
    Ok(Outcome::Held)
}

fn final_observation(replay: &Replay<'_>, alone: &mut ObservationBatch) -> Result<(), String> {
    if replay.ended() {
        replay.single.observe(&mut alone.as_mut().row(0));
        let finals = &replay.drive.results.finals;
        if let Some(found) = row_difference((finals, replay.env), (alone, 0)) {
            return Err(format!("final {found} just before the reset"));
        }
    }
    Ok(())
}

fn first_observation(replay: &Replay<'_>, alone: &mut ObservationBatch) -> Result<(), String> {
    if replay.ended() {
        let mut single = replay.single.clone();
        single.reset();
        single.observe(&mut alone.as_mut().row(0));
        if let Some(found) = row_difference((&replay.drive.seen, replay.env), (alone, 0)) {
            return Err(format!("after the end {found} in a fresh reset"));
        }
    }
    Ok(())
}

fn score_is_the_last(replay: &Replay<'_>, _alone: &mut ObservationBatch) -> Result<(), String> {
    let of_env = |episode: &&crate::Episode| episode.env == replay.env;
    match replay.drive.results.finished.iter().find(of_env) {
        Some(episode) if episode.score.to_bits() != replay.transition.score.to_bits() => {
            Err(format!("score {}, the last step gave {}", episode.score, replay.transition.score))
        }
        _ => Ok(()),
    }
}

/// Two environments with different pasts, reset on the same stream, must live the same episode.
fn reset_forgets(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    for (round, past) in [1, 5, 17, 40].into_iter().enumerate() {
        let mut drive = lab.drive(NUM_ENVS, lab.settings.seed, Driver::Random)?;
        let (Some(young), old) = (drive.batch.single(0), {
            drive.advance(past)?;
            drive.batch.single(1)
        }) else {
            return Ok(no_single());
        };
        let Some(old) = old else { return Ok(no_single()) };
        let rng = stream(lab.settings.seed, Purpose::Conformance, round as u64);
        same_episode(lab, young.with_rng(rng.clone()), old.with_rng(rng)).map_err(|fault| Fault {
            detail: format!("{}, after {past} steps more", fault.detail),
            ..fault
        })?;
    }
    Ok(Outcome::Held)
}

fn same_episode(lab: &Lab<'_>, mut a: Single, mut b: Single) -> Result<(), Fault> {
    let mut seen = [ObservationBatch::new(&lab.spec, 1), ObservationBatch::new(&lab.spec, 1)];
    let mut chooser = stream(lab.settings.seed, Purpose::Actions, 1);
    a.reset();
    b.reset();
    for step in 0..lab.settings.steps {
        a.observe(&mut seen[0].as_mut().row(0));
        b.observe(&mut seen[1].as_mut().row(0));
        if let Some(found) = row_difference((&seen[0], 0), (&seen[1], 0)) {
            return Err(Fault::at(step, found));
        }
        let action = super::drive::draw(&seen[0].mask, &mut chooser);
        let (x, y) = (a.step(action), b.step(action));
        let same =
            (x.reward.to_bits(), x.score.to_bits(), x.end) == (y.reward.to_bits(), y.score.to_bits(), y.end);
        if !same {
            return Err(Fault::at(step + 1, format!("{x:?} and {y:?}")));
        }
        if x.end.is_some() {
            break;
        }
    }
    Ok(())
}
