//! The contract of an environment as named checks; run them in every environment's test.
//!
//! ```
//! # use gatefold_env::*;
//! # #[derive(Clone, serde::Serialize, serde::Deserialize)]
//! # struct Coin { heads: bool }
//! # impl Environment for Coin {
//! #     type Config = NoOptions;
//! #     fn new(_: &NoOptions) -> Result<Self, EnvError> { Ok(Self { heads: false }) }
//! #     fn spec(&self) -> EnvSpec { EnvSpec { max_episode_steps: Some(5), ..EnvSpec::new(1, 2) } }
//! #     fn reset(&mut self, rng: &mut StreamRng) { self.heads = rand::RngExt::random(rng); }
//! #     fn step(&mut self, action: Action, rng: &mut StreamRng) -> Transition {
//! #         let reward = f32::from(u8::from((action.index() == 1) == self.heads));
//! #         self.reset(rng);
//! #         Transition { reward, score: 0.0, end: None }
//! #     }
//! #     fn observe(&self, view: &mut ObservationView<'_>) {
//! #         view.features[0] = f32::from(u8::from(self.heads));
//! #     }
//! # }
//! const ENTRY: EnvEntry = EnvEntry::new::<Coin>("coin", "Guess the side that is shown");
//! let report = conformance::check(&ENTRY, &conformance::Settings::default()).unwrap();
//! assert!(report.passed.len() > 30);
//! ```

mod compare;
mod declared;
mod drive;
mod episodes;
mod observed;
mod repeated;
mod replayed;
mod report;
mod saved;

pub use report::{Check, Report, Settings, Skipped, Violation, Violations};

use self::report::{Fault, Outcome};
use crate::{BatchEnv, EnvEntry, EnvSpec, Params};

const GROUPS: [&[Check]; 6] =
    [declared::CHECKS, observed::CHECKS, episodes::CHECKS, replayed::CHECKS, repeated::CHECKS, saved::CHECKS];

/// Every check, in the order they run.
pub fn checks() -> impl Iterator<Item = &'static Check> {
    GROUPS.into_iter().flatten()
}

/// Runs every check on `entry` and reports all violations, not only the first.
///
/// If the environment does not even build, that is the only violation.
pub fn check(entry: &EnvEntry, settings: &Settings) -> Result<Report, Violations> {
    let violation = |name: &'static str, fault: Fault| Violation {
        check: name,
        env: entry.name.to_string(),
        step: fault.step,
        detail: fault.detail,
    };
    let lab =
        Lab::new(entry, settings).map_err(|fault| Violations(vec![violation(declared::BUILDS, fault)]))?;
    let mut report = Report { env: entry.name.to_string(), passed: Vec::new(), skipped: Vec::new() };
    let mut violations = Vec::new();
    for check in checks() {
        match (check.run)(&lab) {
            Ok(Outcome::Held) => report.passed.push(*check),
            Ok(Outcome::Skipped(reason)) => report.skipped.push(Skipped { check: *check, reason }),
            Err(fault) => violations.push(violation(check.name, fault)),
        }
    }
    if violations.is_empty() { Ok(report) } else { Err(Violations(violations)) }
}

/// Copies that most checks step together.
const NUM_ENVS: usize = 4;

/// What a check works with: the entry, the settings and the spec that the entry declared.
pub(crate) struct Lab<'a> {
    entry: &'a EnvEntry,
    settings: &'a Settings,
    spec: EnvSpec,
}

impl<'a> Lab<'a> {
    fn new(entry: &'a EnvEntry, settings: &'a Settings) -> Result<Self, Fault> {
        let params = Params { num_envs: NUM_ENVS, seed: settings.seed, options: settings.options.clone() };
        let batch = (entry.build)(&params)?;
        if batch.num_envs() != NUM_ENVS {
            return Err(Fault::new(format!("asked for {NUM_ENVS} copies, got {}", batch.num_envs())));
        }
        Ok(Self { entry, settings, spec: batch.spec().clone() })
    }

    fn build(&self, num_envs: usize, seed: u64) -> Result<Box<dyn BatchEnv>, Fault> {
        let options = self.settings.options.clone();
        Ok((self.entry.build)(&Params { num_envs, seed, options })?)
    }

    /// Steps that let every episode of a time limit end once (limits above 4000 are not waited for).
    fn horizon(&self) -> usize {
        let limit = self.spec.max_episode_steps.map_or(0, |limit| limit as usize + 2);
        self.settings.steps.max(limit.min(4000))
    }
}
