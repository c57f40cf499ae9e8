//! Saved state: a run that was stopped must go on as if it had not been.

use rand::RngExt;

use crate::conformance::compare::{both, in_step};
use crate::conformance::drive::{Drive, Driver};
use crate::conformance::report::{Check, Fault, Outcome};
use crate::conformance::{Lab, NUM_ENVS};
use crate::{Purpose, stream};

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "saved-state-continues",
        about: "A batch loaded from a state saved in mid-episode goes on as if never stopped.",
        run: saved_state_continues,
    },
    Check {
        name: "saved-state-repeats",
        about: "Saving what was loaded gives the same bytes.",
        run: saved_state_repeats,
    },
    Check {
        name: "garbage-is-refused",
        about: "Loading bytes that are no state is an error and changes nothing.",
        run: garbage_is_refused,
    },
    Check {
        name: "other-size-is-refused",
        about: "Loading a state of another number of copies is an error and changes nothing.",
        run: other_size_is_refused,
    },
];

/// Steps to a save, so that copies stand at different places of their episodes.
const PASTS: [usize; 4] = [0, 1, 6, 29];

/// A batch of another seed that has loaded the state of `from`.
fn loaded(lab: &Lab<'_>, from: &Drive) -> Result<Drive, Fault> {
    let mut drive = lab.drive(NUM_ENVS, lab.settings.seed + 1, Driver::Random)?;
    drive.batch.load(&from.batch.save()?)?;
    drive.batch.observe(drive.seen.as_mut())?;
    Ok(drive)
}

fn saved_state_continues(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    for past in PASTS {
        let mut kept = lab.drive(NUM_ENVS, lab.settings.seed, Driver::Random)?;
        kept.advance(past)?;
        let mut resumed = loaded(lab, &kept)?;
        in_step(&mut kept, &mut resumed, lab.settings.steps, both)
            .map_err(|fault| Fault { detail: format!("saved at step {past}: {}", fault.detail), ..fault })?;
    }
    Ok(Outcome::Held)
}

fn saved_state_repeats(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    for past in PASTS {
        let mut kept = lab.drive(NUM_ENVS, lab.settings.seed, Driver::Random)?;
        kept.advance(past)?;
        let state = kept.batch.save()?;
        let again = loaded(lab, &kept)?.batch.save()?;
        if again != state {
            let at = state.iter().zip(&again).position(|(a, b)| a != b);
            return Err(Fault::at(
                past,
                format!("{} bytes became {}; first difference at {at:?}", state.len(), again.len()),
            ));
        }
    }
    Ok(Outcome::Held)
}

/// Fails unless `drive` refuses `state` and stays as it is.
fn refused(drive: &mut Drive, state: &[u8], what: &str) -> Result<(), Fault> {
    let before = drive.batch.save()?;
    if drive.batch.load(state).is_ok() {
        return Err(Fault::at(drive.step, format!("{what} was accepted")));
    }
    if drive.batch.save()? != before {
        return Err(Fault::at(drive.step, format!("{what} was refused but changed the state")));
    }
    Ok(())
}

fn garbage_is_refused(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    let mut drive = lab.drive(NUM_ENVS, lab.settings.seed, Driver::Random)?;
    drive.advance(3)?;
    let state = drive.batch.save()?;
    let mut rng = stream(lab.settings.seed, Purpose::Conformance, 0);
    let noise: Vec<u8> = (0..64).map(|_| rng.random()).collect();
    // The pieces of state are of an earlier step, so that a partial load would show.
    drive.advance(3)?;
    refused(&mut drive, &[], "nothing")?;
    refused(&mut drive, &noise, "noise")?;
    refused(&mut drive, &state[..state.len() / 2], "half a state")?;
    refused(&mut drive, &state[..state.len() - 1], "a state without its last byte")?;
    refused(&mut drive, &[&state[..], &[0]].concat(), "a state with a byte too many")?;
    Ok(Outcome::Held)
}

fn other_size_is_refused(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    let mut drive = lab.drive(NUM_ENVS, lab.settings.seed, Driver::Random)?;
    drive.advance(3)?;
    for other in [NUM_ENVS - 1, NUM_ENVS + 1] {
        let state = lab.drive(other, lab.settings.seed, Driver::Random)?.batch.save()?;
        refused(&mut drive, &state, &format!("a state of {other} copies, of {NUM_ENVS},"))?;
    }
    Ok(Outcome::Held)
}
