//! Every conformance check is broken by at least one environment made for it.

#[path = "faults/probe.rs"]
mod probe;
#[path = "faults/wrapper.rs"]
mod wrapper;

use std::collections::BTreeSet;

use gatefold_env::EnvEntry;
use gatefold_env::conformance::{Settings, check, checks};
use wrapper::entry;

/// What is wrong with a probe.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(u8)]
pub(crate) enum Fault {
    Nothing,
    CopiesMiscounted,
    NoStepAllowed,
    SpecFlickers,
    NothingToReadOut,
    LonelyNode,
    UnknownOptionAccepted,
    UnknownOptionUnnamed,
    OptionUndocumented,
    DefaultMisstated,
    NoCopiesAccepted,
    FeatureUnwritten,
    ActivationUnwritten,
    MaskUnwritten,
    FeatureNotFinite,
    ActivationOutOfRange,
    NodeFeatureUnwritten,
    NodeFeatureNotFinite,
    EverythingForbidden,
    MaskUndeclared,
    ObservesAnew,
    ObservingCounts,
    RewardNotFinite,
    ScoreNotFinite,
    EndUnreported,
    ReturnWrong,
    LengthWrong,
    LimitUnderstated,
    FinishedKept,
    RewardKept,
    SecondResetIgnored,
    StepsAStranger,
    DriftsTogether,
    FinalAfterReset,
    FirstBeforeReset,
    ScoreZeroed,
    RemembersThePast,
    DrawsElsewhere,
    SeedIgnored,
    OneStreamForAll,
    BatchSizeShows,
    ThreadsShow,
    PartsMixedUp,
    PartsMissing,
    ScriptForbidden,
    ScriptFlickers,
    LoadResets,
    SaveFlickers,
    GarbageAccepted,
    FailedLoadResets,
    OtherSizeAccepted,
}

macro_rules! case {
    ($fault:ident breaks $name:literal) => {
        Case { fault: Fault::$fault, entry: entry::<{ Fault::$fault as u8 }>(), breaks: $name, others: false }
    };
    ($fault:ident breaks $name:literal and others) => {
        Case { fault: Fault::$fault, entry: entry::<{ Fault::$fault as u8 }>(), breaks: $name, others: true }
    };
}

struct Case {
    fault: Fault,
    entry: EnvEntry,
    breaks: &'static str,
    /// Whether the fault cannot help breaking other checks too.
    others: bool,
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    case!(CopiesMiscounted breaks "builds"),
    case!(NoStepAllowed breaks "sizes-are-positive" and others),
    case!(SpecFlickers breaks "spec-repeats" and others),
    case!(NothingToReadOut breaks "graph-validates"),
    case!(LonelyNode breaks "nodes-have-in-edges"),
    case!(UnknownOptionAccepted breaks "unknown-options-are-named"),
    case!(UnknownOptionUnnamed breaks "unknown-options-are-named"),
    case!(OptionUndocumented breaks "options-are-documented"),
    case!(DefaultMisstated breaks "defaults-can-be-written"),
    case!(NoCopiesAccepted breaks "no-copies-is-an-error"),
    case!(FeatureUnwritten breaks "features-are-written"),
    case!(ActivationUnwritten breaks "activations-are-written"),
    case!(NodeFeatureUnwritten breaks "node-features-are-written"),
    case!(NodeFeatureNotFinite breaks "node-features-are-finite"),
    case!(MaskUnwritten breaks "mask-is-written" and others),
    case!(FeatureNotFinite breaks "features-are-finite"),
    case!(ActivationOutOfRange breaks "activations-are-in-range"),
    case!(EverythingForbidden breaks "mask-allows-an-action" and others),
    case!(MaskUndeclared breaks "mask-is-declared"),
    case!(ObservesAnew breaks "observing-repeats" and others),
    case!(ObservingCounts breaks "observing-changes-nothing" and others),
    case!(RewardNotFinite breaks "rewards-are-finite"),
    case!(ScoreNotFinite breaks "scores-are-finite"),
    case!(EndUnreported breaks "ends-are-reported-once" and others),
    case!(ReturnWrong breaks "returns-add-up" and others),
    case!(LengthWrong breaks "lengths-are-counted" and others),
    case!(LimitUnderstated breaks "time-limit-holds" and others),
    case!(FinishedKept breaks "results-are-overwritten" and others),
    case!(RewardKept breaks "results-are-overwritten" and others),
    case!(SecondResetIgnored breaks "reset-starts-over"),
    case!(StepsAStranger breaks "batch-steps-its-environments"),
    case!(DriftsTogether breaks "together-equals-alone"),
    case!(FinalAfterReset breaks "final-observation"),
    case!(FirstBeforeReset breaks "first-observation" and others),
    case!(ScoreZeroed breaks "score-is-the-last"),
    case!(RemembersThePast breaks "reset-forgets"),
    case!(DrawsElsewhere breaks "same-seed-repeats" and others),
    case!(SeedIgnored breaks "seeds-differ"),
    case!(OneStreamForAll breaks "copies-differ" and others),
    case!(BatchSizeShows breaks "batch-size-does-not-matter" and others),
    case!(ThreadsShow breaks "threads-do-not-matter"),
    case!(PartsMixedUp breaks "parts-do-not-matter"),
    case!(PartsMissing breaks "parts-do-not-matter"),
    case!(ScriptForbidden breaks "scripted-actions-are-allowed"),
    case!(ScriptFlickers breaks "scripted-policy-repeats"),
    case!(LoadResets breaks "saved-state-continues" and others),
    case!(SaveFlickers breaks "saved-state-repeats" and others),
    case!(GarbageAccepted breaks "garbage-is-refused" and others),
    case!(FailedLoadResets breaks "garbage-is-refused" and others),
    case!(OtherSizeAccepted breaks "other-size-is-refused"),
];

#[test]
fn a_sound_environment_passes_every_check() {
    let report = check(&entry::<{ Fault::Nothing as u8 }>(), &Settings::default()).unwrap();
    let undeclared: Vec<_> = report.skipped.iter().map(|skipped| skipped.check.name).collect();
    assert_eq!(undeclared, ["mask-is-declared"], "{report}");
}

#[test]
fn each_fault_breaks_the_check_it_was_made_for() {
    let mut wrong = Vec::new();
    let settings = Settings { steps: 100, ..Settings::default() };
    for Case { fault, entry, breaks, others } in CASES {
        let broken: Vec<_> = match check(entry, &settings) {
            Ok(_) => Vec::new(),
            Err(violations) => violations.0.iter().map(|violation| violation.check).collect(),
        };
        if !broken.contains(breaks) || *others != (broken.len() > 1) {
            wrong.push(format!("{fault:?} breaks {broken:?}, expected {breaks}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_check_is_broken_by_some_fault() {
    let broken: BTreeSet<_> = CASES.iter().map(|case| case.breaks).collect();
    let every: BTreeSet<_> = checks().map(|check| check.name).collect();
    assert_eq!(broken, every);
}

#[test]
fn a_false_declaration_of_determinism_is_caught() {
    let entry = entry::<{ Fault::Nothing as u8 }>();
    let violations = check(&entry, &Settings::deterministic()).unwrap_err();
    assert_eq!(violations.0.len(), 1);
    assert!(
        violations.to_string().starts_with("`probe` breaks seeds-differ at step 0: declared"),
        "{violations}"
    );
}

#[test]
fn a_violation_names_the_check_the_environment_the_step_and_the_values() {
    let entry = entry::<{ Fault::FeatureNotFinite as u8 }>();
    let violations = check(&entry, &Settings::default()).unwrap_err().to_string();
    let first = violations.lines().next().unwrap();
    assert!(first.starts_with("`probe` breaks features-are-finite at step "), "{first}");
    assert!(
        first.ends_with(": environment 0: feature 0 is NaN") || first.contains("feature 0 is NaN"),
        "{first}"
    );
}
