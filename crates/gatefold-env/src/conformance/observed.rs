//! What an environment writes into the observation buffers.

use crate::ObservationBatch;
use crate::conformance::compare::{compared, in_step, row_difference};
use crate::conformance::drive::{Drive, Driver, allowed};
use crate::conformance::report::{Check, Fault, Outcome};
use crate::conformance::{Lab, NUM_ENVS};

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "features-are-written",
        about: "Every feature is written each time, whatever the buffer held before.",
        run: |lab| prefilled(lab, |batch, second| batch.features.fill(if second { f32::NAN } else { -7e30 })),
    },
    Check {
        name: "activations-are-written",
        about: "Every activation is written each time, whatever the buffer held before.",
        run: |lab| {
            prefilled(lab, |batch, second| batch.activations.fill(if second { f32::NAN } else { -7e30 }))
        },
    },
    Check {
        name: "node-features-are-written",
        about: "Every node feature is written each time, whatever the buffer held before.",
        run: |lab| {
            prefilled(lab, |batch, second| batch.node_features.fill(if second { f32::NAN } else { -7e30 }))
        },
    },
    Check {
        name: "mask-is-written",
        about: "Every mask entry is written each time, whatever the buffer held before.",
        run: |lab| prefilled(lab, |batch, second| batch.mask.fill(second)),
    },
    Check { name: "features-are-finite", about: "No feature is NaN or infinite.", run: features_are_finite },
    Check {
        name: "node-features-are-finite",
        about: "No node feature is NaN or infinite.",
        run: node_features_are_finite,
    },
    Check {
        name: "activations-are-in-range",
        about: "Every node activation lies in [0, 1].",
        run: activations_are_in_range,
    },
    Check {
        name: "mask-allows-an-action",
        about: "There is always an action to take.",
        run: mask_allows_an_action,
    },
    Check {
        name: "mask-is-declared",
        about: "An environment whose spec has no mask forbids nothing.",
        run: mask_is_declared,
    },
    Check {
        name: "observing-repeats",
        about: "Observing again gives what the last reset or step wrote.",
        run: observing_repeats,
    },
    Check {
        name: "observing-changes-nothing",
        about: "Observing leaves the saved state as it was.",
        run: observing_changes_nothing,
    },
];

/// Two equal batches whose buffers are filled differently before every write must still agree.
fn prefilled(lab: &Lab<'_>, fill: fn(&mut ObservationBatch, bool)) -> Result<Outcome, Fault> {
    let poison = |drive: &mut Drive, second| {
        fill(&mut drive.seen, second);
        fill(&mut drive.results.finals, second);
    };
    for &driver in lab.drivers()? {
        let mut a = Drive::new(lab.build(NUM_ENVS, lab.settings.seed)?, driver);
        let mut b = Drive::new(lab.build(NUM_ENVS, lab.settings.seed)?, driver);
        for (second, drive) in [&mut a, &mut b].into_iter().enumerate() {
            poison(drive, second == 1);
            drive.start()?;
        }
        in_step(&mut a, &mut b, lab.horizon(), |a, b| {
            for (second, drive) in [a, b].into_iter().enumerate() {
                poison(drive, second == 1);
                drive.take()?;
            }
            Ok(())
        })?;
        for (second, drive) in [&mut a, &mut b].into_iter().enumerate() {
            fill(&mut drive.seen, second == 1);
            drive.batch.observe(drive.seen.as_mut())?;
        }
        compared(&a, &b)?;
    }
    Ok(Outcome::Held)
}

/// Applies `fault` to every entry that `of` selects, of the current and the final observations.
fn each<T: Copy>(
    lab: &Lab<'_>,
    name: &str,
    of: fn(&ObservationBatch) -> &[T],
    fault: impl Fn(T) -> Option<String>,
) -> Result<Outcome, Fault> {
    lab.watch(|drive| {
        for (which, batch) in [("", &drive.seen), ("final ", &drive.results.finals)] {
            let all = of(batch);
            let width = all.len() / batch.rows();
            for (at, &value) in all.iter().enumerate() {
                let (env, entry) = (at / width, at % width);
                let meaningful = which.is_empty() || drive.results.ends[env].is_some();
                if let Some(found) = fault(value).filter(|_| meaningful) {
                    let detail = format!("environment {env}: {which}{name} {entry} is {found}");
                    return Err(Fault::at(drive.step, detail));
                }
            }
        }
        Ok(())
    })?;
    Ok(Outcome::Held)
}

fn features_are_finite(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    each(lab, "feature", |batch| &batch.features, |x| (!x.is_finite()).then(|| x.to_string()))
}

fn node_features_are_finite(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    if lab.spec.node_features == 0 {
        return Ok(Outcome::Skipped("its nodes have no features".to_string()));
    }
    each(lab, "node feature", |batch| &batch.node_features, |x| (!x.is_finite()).then(|| x.to_string()))
}

fn activations_are_in_range(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    if lab.spec.graph.is_none() {
        return Ok(Outcome::Skipped("it has no graph".to_string()));
    }
    each(
        lab,
        "activation",
        |batch| &batch.activations,
        |x| (!(0.0..=1.0).contains(&x)).then(|| x.to_string()),
    )
}

fn mask_allows_an_action(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    lab.watch(|drive| {
        for env in 0..drive.num_envs() {
            if !allowed(&drive.seen, &drive.spec, env).contains(&true) {
                return Err(Fault::at(drive.step, format!("environment {env}: every action is forbidden")));
            }
        }
        Ok(())
    })?;
    Ok(Outcome::Held)
}

fn mask_is_declared(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    if lab.spec.masked {
        return Ok(Outcome::Skipped("its spec declares a mask".to_string()));
    }
    each(lab, "mask entry", |batch| &batch.mask, |allowed| (!allowed).then(|| "false".to_string()))
}

fn observing_repeats(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    let mut again = ObservationBatch::new(&lab.spec, NUM_ENVS);
    lab.watch(|drive| {
        drive.batch.observe(again.as_mut())?;
        for env in 0..NUM_ENVS {
            if let Some(found) = row_difference((&drive.seen, env), (&again, env)) {
                return Err(Fault::at(drive.step, format!("environment {env}: {found}, observed again")));
            }
        }
        Ok(())
    })?;
    Ok(Outcome::Held)
}

fn observing_changes_nothing(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    let mut drive = lab.drive(NUM_ENVS, lab.settings.seed, Driver::Random)?;
    let mut again = ObservationBatch::new(&lab.spec, NUM_ENVS);
    for _ in 0..20 {
        let before = drive.batch.save()?;
        drive.batch.observe(again.as_mut())?;
        if drive.batch.save()? != before {
            return Err(Fault::at(drive.step, "the saved states before and after differ"));
        }
        drive.advance(lab.settings.steps / 20)?;
    }
    Ok(Outcome::Held)
}
