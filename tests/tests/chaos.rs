//! Faults put into whole runs of the full model: every one is found in time, answered, and kept out of
//! checkpoints. Run it by
//!
//!     cargo test -p gatefold-tests --features chaos --test chaos --release

use std::collections::BTreeSet;

use gatefold_runner::chaos::{FaultKind, FaultSpec, Outcome, Stage, Subject, chaos, numeric_faults, sites};
use gatefold_runner::{ExperimentConfig, RunOptions, layers};
use gatefold_tests::camp;

/// Every part of a policy and every loss, small; 16 steps of 4 environments an iteration.
const FULL: &str = r#"
    about = "every part of a policy and every loss, for faults"
    [env]
    name = "camp"
    [run]
    num_envs = 4
    checkpoint_every = 1
    [eval]
    episodes = 4
    [policy]
    trunk = [16]
    experts = ["survival", "combat", "general"]
    expert_hidden = [8]
    router_hidden = [8]
    action_gain = 1.0
    shared_expert = true
    cross_attention = true
    twin_critics = true
    next_operator = true
    normalize_observations = true
    [policy.gat]
    hidden = 8
    heads = 2
    [ppo]
    num_steps = 16
    epochs = 2
    minibatch = 32
    [losses]
    compared_rows = 8
    [curriculum]
    unit = "fraction"
    warmup_until = 0.0
    transition_until = 1.0
    lr_scale = 20.0
    lr_warmup_steps = 1
    lr_decay = "none"
    [curriculum.optional]
    importance = 0.001
    router_z = 0.001
    attention_gini = 0.01
    next_operator = 0.1
    pet = 0.01
"#;

fn experiment(iterations: u64, overrides: &[&str]) -> ExperimentConfig {
    let mut all = vec![format!("run.total_steps={}", 64 * iterations)];
    all.extend(overrides.iter().map(|change| change.to_string()));
    layers::resolve("full.toml", FULL, &all, &[camp::ENTRY]).expect("a valid experiment")
}

fn options() -> RunOptions {
    RunOptions { threads: 1, ..RunOptions::default() }
}

/// Everything wrong with outcomes, a line each.
fn complaints(outcomes: &[Outcome], right: impl Fn(&Outcome) -> bool) -> String {
    let wrong = outcomes.iter().filter(|outcome| !outcome.held() || !right(outcome));
    wrong.map(|outcome| format!("{outcome:?}\n")).collect()
}

#[test]
fn a_number_that_is_none_is_found_in_its_update_wherever_it_arises_and_is_never_saved() {
    let config = experiment(6, &[]);
    let all = sites(&config, &options(), &[camp::ENTRY]).expect("a run that notes its sites");
    let names: BTreeSet<&str> = all.iter().map(|site| site.name.as_str()).collect();
    for group in
        ["activation/", "batch/", "env/", "gradient/", "losses/", "moment/", "normaliser/", "parameter/"]
    {
        assert!(names.iter().any(|name| name.starts_with(group)), "no site in {group}: {names:?}");
    }
    assert!(names.len() >= 50, "{} sites", names.len());

    let entries = [camp::ENTRY];
    let options = options();
    let subject = Subject::new(&config, &options, &entries).expect("a run without a fault");
    let suffered = numeric_faults(&all, 3).into_iter().map(|fault| subject.suffer(&fault).expect("a run"));
    let outcomes: Vec<Outcome> = suffered.collect();
    let discarded_once = |outcome: &Outcome| {
        outcome.by.as_deref() == Some("guard")
            && outcome.action.starts_with("update discarded")
            && outcome.checkpoints >= 6
            && outcome.return_mean.is_some_and(f64::is_finite)
    };
    let wrong = complaints(&outcomes, discarded_once);
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn faults_of_statistics_are_found_within_their_window_and_five_iterations() {
    // 64 steps an iteration are few: gradients are large and returns rise slowly without any fault.
    let config = experiment(
        110,
        &[
            "run.checkpoint_every=10",
            "curriculum.lr_scale=5",
            "monitors.grad_norm_warning=100",
            "monitors.grad_norm_alarm=100",
            "monitors.long_window=100",
        ],
    );
    let entries = [camp::ENTRY];
    let options = options();
    let subject = Subject::new(&config, &options, &entries).expect("a run without a fault");
    let quiet = subject.without_a_fault();
    assert!(!quiet.contains("ladder"), "the run without a fault: {quiet}");
    let kinds = [
        FaultKind::ExpertCollapse,
        FaultKind::RouterFrozen,
        FaultKind::DeadExpert,
        FaultKind::OverSmoothing,
        FaultKind::GradientExplosion,
        FaultKind::RewardStagnation,
        FaultKind::Divergence,
    ];
    let suffered = kinds.map(|kind| {
        let fault = FaultSpec { lasts: Some(60), ..FaultSpec::lasting(kind, 40) };
        subject.suffer(&fault).expect("a run")
    });
    // One unused expert of three is a warning, which the ladder does not count.
    let answered = |outcome: &Outcome| match outcome.fault.kind {
        FaultKind::DeadExpert => outcome.action == "reported",
        _ => outcome.action.contains("ladder full -> freeze-gat"),
    };
    let wrong = complaints(&suffered, answered);
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn three_attempts_at_one_snapshot_step_the_ladder_or_save_and_stop_as_configured() {
    let entries = [camp::ENTRY];
    let options = options();
    let lasting = |kind: FaultKind, lasts| {
        let fault = FaultSpec::numeric(kind, "activation/h_obs", Stage::Update, 3);
        FaultSpec { lasts: Some(lasts), ..fault }
    };
    for (automatic, lasts, action) in [
        (true, 2, "update discarded"),
        (true, 3, "update discarded, ladder full -> freeze-gat"),
        (false, 2, "update discarded"),
        (false, 3, "update discarded, saved and stopped"),
    ] {
        let config = experiment(9, &[&format!("ladder.automatic={automatic}")]);
        let subject = Subject::new(&config, &options, &entries).expect("a run without a fault");
        let outcome = subject.suffer(&lasting(FaultKind::Nan, lasts)).expect("a run");
        assert!(outcome.held(), "{outcome:?}");
        assert_eq!(outcome.action, action, "automatic {automatic}, {lasts} iterations: {outcome:?}");
        assert_eq!(outcome.return_mean.is_none(), action.ends_with("stopped"), "{outcome:?}");
    }
}

#[test]
fn a_ladder_that_does_not_act_leaves_a_verdict_reported() {
    let config = experiment(70, &["ladder.automatic=false", "run.checkpoint_every=10"]);
    let entries = [camp::ENTRY];
    let options = options();
    let subject = Subject::new(&config, &options, &entries).expect("a run without a fault");
    let outcome = subject.suffer(&FaultSpec::lasting(FaultKind::GradientExplosion, 40)).expect("a run");
    assert!(outcome.held() && outcome.action == "reported", "{outcome:?}");
}

#[test]
fn a_file_of_faults_becomes_a_table_with_a_row_for_each() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("full.toml"), FULL).expect("the experiment is written");
    let file = folder.path().join("faults.toml");
    let text = r#"
        about = "a test"
        base = "full.toml"
        overrides = ["run.total_steps=256"]
        [sites]
        names = ["env/rewards", "normaliser/"]
        at = 2
        [[faults]]
        kind = "nan"
        site = "env/rewards"
        at = 9
    "#;
    std::fs::write(&file, text).expect("the faults are written");
    let mut told = Vec::new();
    let mut watch = |_: &Outcome, done, total| told.push((done, total));
    let report = chaos(&file, &options(), &[camp::ENTRY], &mut watch).expect("a report");
    assert_eq!(told, (1..=7).map(|done| (done, 7)).collect::<Vec<_>>(), "three sites, two kinds, one fault");
    let sites: Vec<&str> = report.outcomes.iter().step_by(2).map(|outcome| outcome.site.as_str()).collect();
    assert_eq!(sites, ["env/rewards", "normaliser/observations", "normaliser/rewards", "env/rewards"]);
    // Four iterations never come to the tenth: that is told, not passed over.
    let late = report.outcomes.last().expect("the fault of the list");
    assert!(late.injected_at.is_none() && !late.held(), "{late:?}");
    assert_eq!(late.return_ratio, Some(1.0), "nothing was changed");
    assert_eq!(report.failures().count(), 1);
    assert_eq!(report.num_sites, 3);
    let table = report.markdown();
    assert_eq!(
        table.lines().filter(|line| line.starts_with("| nan") || line.starts_with("| inf")).count(),
        7
    );
    assert!(table.contains("7 faults, 6 of them as they should be"), "{table}");
}
