//! No dead knobs: changing any key of an experiment changes what a run does.

use std::collections::BTreeSet;

use gatefold_runner::events::{Event, Happening, Reporter};
use gatefold_runner::{ExperimentConfig, RunOptions, checkpoint, layers, train};
use gatefold_tests::camp;

/// Three iterations, one in each phase.
const TINY: &str = r#"
    about = "knob test"
    [env]
    name = "camp"
    [run]
    total_steps = 384
    num_envs = 8
    [policy]
    trunk = [16]
    experts = ["survival", "combat", "general"]
    expert_hidden = [16]
    router_hidden = [16]
    [policy.gat]
    hidden = 8
    heads = 2
    [ppo]
    num_steps = 16
    minibatch = 64
    epochs = 2
    [curriculum]
    lr_scale = 30.0
    lr_warmup_steps = 0
    [eval]
    episodes = 1
"#;

/// What happens in a run, less the clock.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// Of the final state.
    hash: String,
    metrics: Vec<serde_json::Map<String, serde_json::Value>>,
    happened: Vec<Happening>,
}

#[derive(Default)]
struct Happenings(Vec<Happening>);

impl Reporter for Happenings {
    fn event(&mut self, event: &Event) {
        if let Event::Happened(event) = event {
            self.0.push(event.what.clone());
        }
    }
}

fn outcome(overrides: &[&str]) -> Outcome {
    let entries = [camp::ENTRY];
    let changes: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    let config = layers::resolve("test", TINY, &changes, &entries);
    let config = config.unwrap_or_else(|e| panic!("{overrides:?}: {e}"));
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let options = RunOptions { run_dir: Some(run.clone()), threads: 1, ..RunOptions::default() };
    let mut happened = Happenings::default();
    train(&config, &options, &entries, &mut happened).unwrap_or_else(|e| panic!("{overrides:?}: {e}"));
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let metrics = metrics.lines().map(|line| {
        let mut metrics: serde_json::Map<_, _> = serde_json::from_str(line).unwrap();
        metrics.retain(|name, _| !name.starts_with("time/"));
        metrics
    });
    Outcome { hash: checkpoint::hash(&run).unwrap(), metrics: metrics.collect(), happened: happened.0 }
}

fn number(outcome: &Outcome, name: &str) -> f64 {
    outcome.metrics.last().expect("iterations")[name].as_f64().expect(name)
}

#[test]
fn a_tight_target_kl_ends_the_epochs_early() {
    let steps = |overrides: &[&str]| number(&outcome(overrides), "train/optimizer_steps");
    assert_eq!(steps(&[]), 3.0 * 2.0 * 2.0, "3 iterations of 2 epochs of 2 minibatches");
    assert_eq!(steps(&["ppo.target_kl=1e-9"]), 3.0 * 2.0, "one epoch each");
}

#[test]
fn the_value_loss_reported_is_the_one_minimised() {
    let loss = |overrides: &[&str]| number(&outcome(overrides), "train/value_loss");
    assert_ne!(loss(&["ppo.value_loss=huber"]), loss(&[]));
}

#[test]
fn repeating_a_run_repeats_its_hash() {
    assert_eq!(outcome(&[]), outcome(&[]));
}

#[test]
fn a_minibatch_of_one_row_is_learned_from_without_harm() {
    outcome(&["ppo.num_steps=7", "ppo.minibatch=2", "run.num_envs=1", "run.total_steps=14"]);
}

/// Keys that need no other setting.
const ALONE: &[&str] = &[
    "run.total_steps=512",
    "run.num_envs=4",
    "run.seed=2",
    "policy.architecture=mlp-gat",
    "policy.trunk=[8]",
    "policy.activation=tanh",
    "policy.experts=[\"survival\", \"combat\"]",
    "policy.expert_hidden=[8]",
    "policy.router_hidden=[8]",
    "policy.action_gain=1.0",
    "policy.shared_expert=true",
    "policy.cross_attention=true",
    "policy.twin_critics=true",
    "policy.normalize_observations=true",
    "policy.gat.hidden=16",
    "policy.gat.layers=1",
    "policy.gat.heads=4",
    "policy.gat.attention=gatv2",
    "policy.gat.combine=average",
    "policy.gat.attention_dropout=0.3",
    "policy.gat.feature_dropout=0.3",
    "policy.gat.edge_dropout=0.3",
    "policy.gat.attention_temperature=learned",
    "policy.gat.node_norm_clip=0.5",
    "ppo.num_steps=8",
    "ppo.epochs=1",
    "ppo.minibatch=32",
    "ppo.gamma=0.5",
    "ppo.gae_lambda=0.5",
    "ppo.clip=0.01",
    "ppo.value_clip=0.01",
    "ppo.value_clamp=0.01",
    "ppo.value_loss=huber",
    "ppo.value_coef=0.1",
    "ppo.normalize_advantages=false",
    "ppo.max_grad_norm=0.01",
    "ppo.target_kl=1e-9",
    "losses.load_balance=switch",
    "losses.compared_rows=8",
    "losses.alignment_temperature=0.1",
    "reward.scaling=standardize",
    "reward.clip=0.1",
    "optimizer.beta1=0.5",
    "optimizer.beta2=0.9",
    "optimizer.eps=0.1",
    "optimizer.weight_decay=0.5",
    "curriculum.schedule=constant",
    "curriculum.warmup_until=0.4",
    "curriculum.transition_until=0.9",
    "curriculum.routing=entmax15",
    "curriculum.lr_scale=10.0",
    "curriculum.lr_warmup_steps=5",
    "curriculum.lr_warmup_fraction=0.5",
    "curriculum.lr_decay=none",
    "curriculum.warmup.lr=1e-3",
    "curriculum.warmup.entropy=0.5",
    "curriculum.warmup.gate_entropy=0.5",
    "curriculum.warmup.gate_entropy_sign=minimise",
    "curriculum.warmup.load_balance=0.5",
    "curriculum.warmup.diversity=0.5",
    "curriculum.warmup.alignment=0.5",
    "curriculum.warmup.semantic=0.5",
    "curriculum.warmup.overlap=0.5",
    "curriculum.warmup.temporal=0.5",
    "curriculum.warmup.temperature=0.5",
    "curriculum.warmup.routing=sparsemax",
    "curriculum.transition.lr=1e-3",
    "curriculum.transition.entropy=0.5",
    "curriculum.transition.gate_entropy_start=0.5",
    "curriculum.transition.gate_entropy_end=0.5",
    "curriculum.transition.gate_entropy_sign=minimise",
    "curriculum.transition.load_balance=0.5",
    "curriculum.transition.diversity=0.5",
    "curriculum.transition.alignment=0.5",
    "curriculum.transition.semantic=0.5",
    "curriculum.transition.overlap=0.5",
    "curriculum.transition.temporal=0.5",
    "curriculum.transition.temperature_start=0.7",
    "curriculum.transition.temperature_end=0.2",
    "curriculum.transition.blend_start=0.5",
    "curriculum.transition.blend_end=0.5",
    "curriculum.fine_tune.lr=1e-3",
    "curriculum.fine_tune.entropy=0.5",
    "curriculum.fine_tune.gate_entropy=0.5",
    "curriculum.fine_tune.gate_entropy_sign=maximise",
    "curriculum.fine_tune.load_balance=0.5",
    "curriculum.fine_tune.diversity=0.5",
    "curriculum.fine_tune.alignment=0.5",
    "curriculum.fine_tune.semantic=0.5",
    "curriculum.fine_tune.overlap=0.5",
    "curriculum.fine_tune.temporal=0.5",
    "curriculum.fine_tune.temperature=0.2",
    "curriculum.fine_tune.routing=softmax",
    "curriculum.optional.importance=1.0",
    "curriculum.optional.router_z=1.0",
    "curriculum.optional.attention_gini=1.0",
    "curriculum.optional.pet=1.0",
    "ladder.start=freeze-gat",
];

/// Keys of one schedule, in its phase.
const CONSTANT: &[&str] = &[
    "curriculum.constant.lr=1e-3",
    "curriculum.constant.entropy=0.5",
    "curriculum.constant.gate_entropy=0.5",
    "curriculum.constant.load_balance=0.5",
    "curriculum.constant.diversity=0.5",
    "curriculum.constant.alignment=0.5",
    "curriculum.constant.semantic=0.5",
    "curriculum.constant.overlap=0.5",
    "curriculum.constant.temporal=0.5",
    "curriculum.constant.temperature=0.2",
    "curriculum.constant.routing=sparsemax",
];

/// Monitors to which any update is an alarm, after two iterations.
const STRICT: [&str; 4] = [
    "monitors.grace=0",
    "monitors.short_window=2",
    "monitors.approx_kl_warning=0.0",
    "monitors.approx_kl_alarm=0.0",
];

/// The same, with a ladder that steps at the first alarm and counts all verdicts.
const STEPPING: [&str; 6] =
    [STRICT[0], STRICT[1], STRICT[2], STRICT[3], "ladder.patience=1", "ladder.cooldown=0"];

/// Steps down in the fourth iteration, is not judged in the two after it, and may come back in them.
const RETURNING: [&str; 8] = [
    "monitors.grace=2",
    STRICT[1],
    STRICT[2],
    STRICT[3],
    "ladder.patience=1",
    "ladder.cooldown=0",
    "ladder.recovery=2",
    "run.total_steps=1024",
];

/// Keys that act where others say so: the key, and the settings that both runs have.
fn together() -> Vec<(&'static str, Vec<&'static str>)> {
    let with = |settings: &[&'static str], more: &[&'static str]| [settings, more].concat();
    let large = vec!["run.num_envs=32", "ppo.minibatch=512", "run.total_steps=1536"];
    let reversible = with(&RETURNING, &["ladder.reversible=true"]);
    let mut rows: Vec<(&str, Vec<&str>)> =
        CONSTANT.iter().map(|&key| (key, vec!["curriculum.schedule=constant"])).collect();
    rows.extend([
        ("policy.next_operator=true", vec![]),
        ("curriculum.unit=episodes", vec!["curriculum.warmup_until=1", "curriculum.transition_until=1"]),
        ("losses.pet_on=gates", vec!["curriculum.optional.pet=1.0"]),
        ("losses.pet_huber=1e-4", vec!["curriculum.optional.pet=1.0"]),
        ("curriculum.top_k=1", vec!["curriculum.routing=top-k"]),
        ("losses.load_balance=bias", vec!["curriculum.routing=top-k"]),
        ("curriculum.large_batch_scaling=true", large),
        ("curriculum.advance_when_healthy=true", STRICT.to_vec()),
        (
            "curriculum.max_hold=0.01",
            with(&STRICT, &["curriculum.advance_when_healthy=true", "run.total_steps=2560"]),
        ),
        (
            "curriculum.constant.gate_entropy_sign=minimise",
            vec!["curriculum.schedule=constant", "curriculum.constant.gate_entropy=0.5"],
        ),
        ("curriculum.optional.next_operator=1.0", vec!["policy.next_operator=true"]),
        ("curriculum.optional.pet_schedule=stepped", vec!["curriculum.optional.pet=1.0"]),
        ("monitors.enabled=false", STRICT.to_vec()),
        ("monitors.grace=3", STRICT.to_vec()),
        ("monitors.short_window=4", STRICT.to_vec()),
        ("monitors.approx_kl_alarm=1e9", STRICT.to_vec()),
        ("ladder.patience=1", with(&STRICT, &["ladder.cooldown=0"])),
        ("ladder.automatic=false", STEPPING.to_vec()),
        ("ladder.lowest=full", STEPPING.to_vec()),
        ("ladder.cooldown=2", with(&STEPPING, &["run.total_steps=640"])),
        ("ladder.reversible=true", RETURNING.to_vec()),
        ("ladder.recovery=50", reversible),
    ]);
    rows
}

/// Keys whose effect is not on what a run computes, or that another test shows.
const ELSEWHERE: &[(&str, &str)] = &[
    ("about", "told to readers alone"),
    ("env.name", "the environments' own tests"),
    ("run.stop_at_target", "gatefold/tests/run_directory.rs"),
    ("run.checkpoint_every", "gatefold/tests/run_directory.rs"),
    ("run.keep_checkpoints", "gatefold/tests/run_directory.rs"),
    ("eval.", "gatefold/tests/run_directory.rs"),
    ("monitors.", "gatefold-monitor/tests/keys.rs: one fault for every key"),
];

#[test]
fn every_key_changes_what_a_run_does() {
    let plain = outcome(&[]);
    for key in ALONE {
        let changed = outcome(&[key]);
        assert_ne!(changed.hash, plain.hash, "{key} changes nothing");
    }
    for (key, settings) in together() {
        let changed = [&settings[..], &[key]].concat();
        assert!(outcome(&changed) != outcome(&settings), "{key} beside {settings:?} changes nothing");
    }
}

fn leaves(table: &toml::Table, path: &str, found: &mut BTreeSet<String>) {
    for (name, value) in table {
        let key = format!("{path}{name}");
        match value {
            toml::Value::Table(inner) => leaves(inner, &format!("{key}."), found),
            _ => drop(found.insert(key)),
        }
    }
}

#[test]
fn no_key_is_left_out_of_these_tests() {
    let resolved = layers::to_toml(&ExperimentConfig::new("a test", "camp"));
    let mut keys = BTreeSet::new();
    leaves(&resolved.parse().unwrap(), "", &mut keys);
    assert!(keys.len() > 100, "{keys:?}");
    let changes = ALONE.iter().copied().chain(together().into_iter().map(|(change, _)| change));
    let changed: BTreeSet<&str> = changes.map(|change| change.split('=').next().expect("a key")).collect();
    let elsewhere = |key: &String| ELSEWHERE.iter().any(|(start, _)| key.starts_with(start));
    let left: Vec<_> = keys.iter().filter(|key| !changed.contains(key.as_str()) && !elsewhere(key)).collect();
    assert!(left.is_empty(), "nothing changes {left:?}");
}
