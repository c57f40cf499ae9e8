//! Determinism: what may and what must not change a run.

use rayon::ThreadPoolBuilder;

use crate::Action;
use crate::conformance::compare::{both, difference, in_step, row_difference};
use crate::conformance::drive::{Driver, allowed};
use crate::conformance::report::{Check, Fault, Outcome};
use crate::conformance::{Lab, NUM_ENVS};
use crate::{Purpose, stream};

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "same-seed-repeats",
        about: "The same seed and actions give the same run, bit for bit.",
        run: same_seed_repeats,
    },
    Check {
        name: "seeds-differ",
        about: "Another seed gives another run, unless the environment is declared deterministic.",
        run: seeds_differ,
    },
    Check {
        name: "copies-differ",
        about: "The copies of a batch draw from streams of their own.",
        run: copies_differ,
    },
    Check {
        name: "batch-size-does-not-matter",
        about: "Copy i of a small batch lives through what copy i of a larger one does.",
        run: batch_size_does_not_matter,
    },
    Check {
        name: "threads-do-not-matter",
        about: "40 copies step alike on one thread and on three.",
        run: threads_do_not_matter,
    },
    Check {
        name: "parts-do-not-matter",
        about: "A copy of a batch, stepped in parts, goes on as the batch does.",
        run: parts_do_not_matter,
    },
    Check {
        name: "scripted-actions-are-allowed",
        about: "The scripted policy takes only actions that the mask allows.",
        run: scripted_actions_are_allowed,
    },
    Check {
        name: "scripted-policy-repeats",
        about: "The scripted policy asked twice with the same stream answers the same.",
        run: scripted_policy_repeats,
    },
];

fn same_seed_repeats(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    let mut a = lab.drive(NUM_ENVS, lab.settings.seed, Driver::Random)?;
    let mut b = lab.drive(NUM_ENVS, lab.settings.seed, Driver::Random)?;
    in_step(&mut a, &mut b, lab.horizon(), both)?;
    Ok(Outcome::Held)
}

fn seeds_differ(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    let mut a = lab.drive(NUM_ENVS, lab.settings.seed, Driver::Random)?;
    let mut b = lab.drive(NUM_ENVS, lab.settings.seed + 1, Driver::Random)?;
    let found = in_step(&mut a, &mut b, lab.settings.steps, both).err();
    match (lab.settings.deterministic, found) {
        (false, None) => Err(Fault::new(format!("{} steps of two seeds are the same", lab.settings.steps))),
        (true, Some(fault)) => {
            Err(Fault { detail: format!("declared deterministic, but {}", fault.detail), ..fault })
        }
        _ => Ok(Outcome::Held),
    }
}

fn copies_differ(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    if lab.settings.deterministic {
        return Ok(Outcome::Skipped("it is declared deterministic".to_string()));
    }
    let mut drive = lab.drive(NUM_ENVS, lab.settings.seed, Driver::Unison)?;
    for _ in 0..lab.settings.steps {
        let differ = (1..NUM_ENVS).all(|env| row_difference((&drive.seen, 0), (&drive.seen, env)).is_some());
        let rewards = &drive.results.rewards;
        if differ || rewards.iter().any(|reward| reward.to_bits() != rewards[0].to_bits()) {
            return Ok(Outcome::Held);
        }
        drive.advance(1)?;
    }
    Err(Fault::new(format!("{NUM_ENVS} copies with the same actions were one for {} steps", drive.step)))
}

fn batch_size_does_not_matter(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    let mut large = lab.drive(2 * NUM_ENVS, lab.settings.seed, Driver::Random)?;
    let mut small = lab.drive(NUM_ENVS, lab.settings.seed, Driver::Random)?;
    in_step(&mut large, &mut small, lab.settings.steps, both)?;
    Ok(Outcome::Held)
}

fn threads_do_not_matter(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    let pool = |threads| {
        ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|e| Fault::new(format!("no pool of {threads} threads: {e}")))
    };
    let (one, three) = (pool(1)?, pool(3)?);
    let mut a = lab.drive(40, lab.settings.seed, Driver::Random)?;
    let mut b = lab.drive(40, lab.settings.seed, Driver::Random)?;
    in_step(&mut a, &mut b, lab.settings.steps.min(200), |a, b| {
        one.install(|| a.take())?;
        three.install(|| b.take())
    })?;
    for env in 0..40 {
        if let Some(found) = difference(&a, &b, env) {
            return Err(Fault::at(a.step, format!("environment {env}: {found}")));
        }
    }
    Ok(Outcome::Held)
}

fn parts_do_not_matter(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    let mut whole = lab.drive(NUM_ENVS, lab.settings.seed, Driver::Random)?;
    let mut cut = lab.drive(NUM_ENVS, lab.settings.seed, Driver::Random)?;
    for _ in 0..2 {
        let Some(copy) = cut.batch.duplicate() else {
            return Ok(Outcome::Skipped("it steps as a whole alone".to_string()));
        };
        cut.batch = copy;
        in_step(&mut whole, &mut cut, lab.horizon(), |whole, cut| {
            whole.take()?;
            cut.take_in_parts(&[NUM_ENVS / 2, NUM_ENVS - NUM_ENVS / 2])
        })?;
    }
    Ok(Outcome::Held)
}

fn no_script() -> Outcome {
    Outcome::Skipped("it has no scripted policy".to_string())
}

fn scripted_actions_are_allowed(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    if !lab.is_scripted()? {
        return Ok(no_script());
    }
    let mut drive = lab.drive(NUM_ENVS, lab.settings.seed, Driver::Scripted)?;
    for _ in 0..lab.horizon() {
        drive.choose()?;
        for env in 0..NUM_ENVS {
            let index = drive.actions[env].index();
            if allowed(&drive.seen, &drive.spec, env).get(index) != Some(&true) {
                return Err(Fault::at(
                    drive.step,
                    format!("environment {env}: action {index} is not allowed"),
                ));
            }
        }
        drive.take()?;
    }
    Ok(Outcome::Held)
}

fn scripted_policy_repeats(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    if !lab.is_scripted()? {
        return Ok(no_script());
    }
    let mut drive = lab.drive(NUM_ENVS, lab.settings.seed, Driver::Random)?;
    for step in 0..lab.settings.steps {
        let mut answers = [[Action::Discrete(0); NUM_ENVS]; 2];
        for actions in &mut answers {
            drive.batch.scripted(&mut stream(lab.settings.seed, Purpose::Actions, step as u64), actions);
        }
        if answers[0] != answers[1] {
            return Err(Fault::at(step, format!("{:?} and {:?}", answers[0], answers[1])));
        }
        drive.advance(1)?;
    }
    Ok(Outcome::Held)
}
