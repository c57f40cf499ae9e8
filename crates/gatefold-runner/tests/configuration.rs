//! What a user may write, what becomes of it, and what is said about a mistake.

use std::fs;
use std::marker::PhantomData;
use std::path::Path;

use gatefold_curriculum::{CurriculumConfig, Decay, FixedRouting, Schedule};
use gatefold_env::{
    Action, EnvEntry, EnvError, EnvSpec, Environment, NoOptions, ObservationView, StreamRng, Transition,
};
use gatefold_gat::Heads;
use gatefold_policy::{Architecture, Nonlinearity};
use gatefold_ppo::RewardScaling;
use gatefold_runner::layers::{defaults, find_environment, load, resolve, to_toml};
use gatefold_runner::{ExperimentConfig, RunError};
use miette::Diagnostic;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How wet the floor is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Floor {
    /// Steps succeed.
    Dry,
    /// Steps slip.
    Wet,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct WalkOptions {
    /// Cells to the goal.
    #[schemars(range(min = 2, max = 100))]
    length: u32,
    /// Probability of slipping.
    #[schemars(range(min = 0.0, max = 1.0))]
    slip: f32,
    /// How wet the floor is.
    floor: Floor,
}

impl Default for WalkOptions {
    fn default() -> Self {
        Self { length: 8, slip: 0.1, floor: Floor::Dry }
    }
}

/// Only its options and sizes matter here.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Walk<C>(PhantomData<C>);

impl<C> Environment for Walk<C>
where
    C: Clone + Default + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static,
{
    type Config = C;

    fn new(_: &C) -> Result<Self, EnvError> {
        Ok(Self(PhantomData))
    }

    fn spec(&self) -> EnvSpec {
        EnvSpec::new(1, 2)
    }

    fn reset(&mut self, _: &mut StreamRng) {}

    fn step(&mut self, _: Action, _: &mut StreamRng) -> Transition {
        Transition { reward: 0.0, score: 0.0, end: None }
    }

    fn observe(&self, view: &mut ObservationView<'_>) {
        view.features[0] = 0.0;
    }
}

const ENTRIES: [EnvEntry; 2] = [
    EnvEntry::new::<Walk<WalkOptions>>("walk", "a walk to a goal"),
    EnvEntry::new::<Walk<NoOptions>>("cartpole", "a pole on a cart"),
];

const WALK: &str = "about = \"a test\"\n[env]\nname = \"walk\"\n";

fn resolved(text: &str, overrides: &[&str]) -> Result<ExperimentConfig, RunError> {
    let overrides: Vec<_> = overrides.iter().map(ToString::to_string).collect();
    resolve("walk.toml", text, &overrides, &ENTRIES)
}

/// The message, the help and what the label points at.
fn told(error: &RunError, text: &str) -> String {
    let help = error.help().map(|h| h.to_string()).unwrap_or_default();
    let pointed = error.labels().into_iter().flatten().map(|label| {
        let span = label.offset()..label.offset() + label.len();
        format!(">{}<", &text[span])
    });
    format!("{error} | {help} | {}", pointed.collect::<String>())
}

#[test]
fn every_mistake_in_a_file_is_one_message_with_file_key_value_and_remedy() {
    // What follows WALK, and what the message, its help and its label must say.
    let cases: [(&str, &[&str]); 22] = [
        (
            "[ppo]\nclpi = 0.1",
            &["walk.toml: ppo.clpi = 0.1: unknown key `clpi`", "did you mean `clip`?", ">clpi<"],
        ),
        ("[ppo]\nlr = 1e-3", &["ppo.lr = 0.001: unknown key", "`curriculum.warmup.lr` or"]),
        ("[pppo]\nclip = 1", &["pppo = {...}: unknown key `pppo`", "did you mean `ppo`?", ">pppo<"]),
        ("[ppo]\nzzzz = 1", &["ppo.zzzz = 1", "accepted here: num_steps, epochs, minibatch"]),
        ("[ppo]\nclip = 3.0", &["walk.toml: ppo.clip = 3.0: need a number from 0.001 to 1", ">3.0<"]),
        ("[ppo]\nclip = nan", &["ppo.clip = nan: need a number from 0.001 to 1", ">nan<"]),
        ("[run]\ntarget_return = inf", &["run.target_return = inf: need a number", ">inf<"]),
        ("[ppo]\nclip = \"big\"", &["ppo.clip = \"big\": need a number from 0.001 to 1", ">\"big\"<"]),
        ("[ppo]\nminibatch = 1", &["ppo.minibatch = 1: need a whole number of at least 2", ">1<"]),
        ("[ppo]\nepochs = 2.5", &["ppo.epochs = 2.5: need a whole number from 1 to 1000"]),
        ("[run]\ntotal_steps = 1e6", &["run.total_steps = 1000000.0: need a whole number", "write 1000000"]),
        ("[run]\nseed = -1", &["run.seed = -1: need a whole number of at least 0", ">-1<"]),
        ("[run]\nstop_at_target = 1", &["run.stop_at_target = 1: need true or false"]),
        ("[run]\nname = 7", &["run.name = 7: need a string", "write \"7\""]),
        ("run = 7", &["unknown key `run`", ">run<"]),
        (
            "[policy]\nactivation = \"relo\"",
            &["need one of \"tanh\", \"relu\"", "did you mean \"relu\"?", ">\"relo\"<"],
        ),
        ("[policy]\ntrunk = 64", &["policy.trunk = 64: need a list of 1 or more", "write [64]"]),
        ("[policy]\ntrunk = []", &["policy.trunk = []: need a list of 1 or more", ">[]<"]),
        ("[policy]\ntrunk = [64, \"x\"]", &["policy.trunk = \"x\": need a whole number"]),
        ("policy.gat.headz = 4", &["unknown key `policy`"]),
        ("[policy.gat]\nheads = 5", &["[policy] gat.hidden = 64: must be a multiple of heads = 5"]),
        ("[ppo]\nminibatch = 100_000", &["[ppo] minibatch = 100000: need 2..=8192", ">100_000<"]),
    ];
    for (rest, expected) in cases {
        let text = format!("{WALK}{rest}\n");
        let error = resolved(&text, &[]).expect_err(rest);
        let told = told(&error, &text);
        for part in expected {
            assert!(told.contains(part), "{rest}: no {part:?} in {told}");
        }
    }
}

#[test]
fn mistakes_in_whole_files_are_named() {
    let cases: [(&str, &[&str]); 9] = [
        (
            "about = \"a test\"\n[env]\nname = \"wlak\"",
            &[
                "env.name = \"wlak\": unknown environment",
                "did you mean \"walk\"? All of them: walk, cartpole",
                ">\"wlak\"<",
            ],
        ),
        ("about = \"a test\"\n[env]\nname = 3", &["env.name = 3: need a string", ">3<"]),
        ("about = \"a test\"", &["walk.toml: env is missing"]),
        (
            "about = \"a test\"\n[env]",
            &["walk.toml: env.name is missing: need a string", "gatefold env list"],
        ),
        ("[env]\nname = \"walk\"", &["walk.toml: about is missing", "the question it answers"]),
        ("about = \"  \"\n[env]\nname = \"walk\"", &["walk.toml: about = \"\": say in a line why"]),
        ("about = \"x\nfoo", &["walk.toml: not valid TOML"]),
        ("a = 1\na = 2", &["walk.toml: not valid TOML: duplicate key", ">a<"]),
        (
            "preset = \"clean-rl\"\nabout = \"x\"\n[env]\nname = \"walk\"",
            &[
                "preset = \"clean-rl\": need one of \"cleanrl\", \"quick\", \"sb3-fast\", \"seed\", \"v3\"",
                "did you mean \"cleanrl\"?",
            ],
        ),
    ];
    for (text, expected) in cases {
        let error = resolved(text, &[]).expect_err(text);
        let told = told(&error, text);
        for part in expected {
            assert!(told.contains(part), "{text}: no {part:?} in {told}");
        }
    }
}

#[test]
fn environment_options_are_checked_like_all_other_keys() {
    let cases: [(&str, &[&str]); 4] = [
        ("lenght = 3", &["env.lenght = 3: unknown key `lenght`", "did you mean `length`?", ">lenght<"]),
        ("length = 1", &["env.length = 1: need a whole number from 2 to 100", ">1<"]),
        ("slip = 1.5", &["env.slip = 1.5: need a number from 0 to 1"]),
        (
            "floor = \"west\"",
            &["env.floor = \"west\": need one of \"dry\", \"wet\"", "did you mean \"wet\"?"],
        ),
    ];
    for (rest, expected) in cases {
        let text = format!("{WALK}{rest}\n");
        let told = told(&resolved(&text, &[]).expect_err(rest), &text);
        for part in expected {
            assert!(told.contains(part), "{rest}: no {part:?} in {told}");
        }
    }
}

#[test]
fn mistakes_in_overrides_are_told_of_the_command_line() {
    let cases = [
        ("ppo.clpi=0.1", "command line: ppo.clpi = 0.1: unknown key `clpi` | did you mean `clip`?"),
        ("ppo.clip=3", "command line: ppo.clip = 3: need a number from 0.001 to 1"),
        ("env.name=wlak", "command line: env.name = \"wlak\": unknown environment | did you mean \"walk\"?"),
        ("ppo.minibatch=100000", "command line: [ppo] minibatch = 100000: need 2..=8192"),
        ("run.seed", "command line: `run.seed` is not an override: need key=value"),
        ("eval.seed=1", "command line: [eval] seed = 1: must differ from run.seed"),
        ("run.stop_at_target=true", "command line: [run] stop_at_target = true: needs target_return"),
        (
            "env={name='wlak'}",
            "command line: env.name = \"wlak\": unknown environment | did you mean \"walk\"?",
        ),
        ("ppo={minibatch=100000}", "command line: [ppo] minibatch = 100000: need 2..=8192"),
        ("run.name=a/b", "command line: [run] name = \"a/b\": need letters"),
        ("policy.architecture=mlp-gat", "command line: [policy] architecture = \"mlp-gat\": the environment"),
        ("ppo.max_grad_norm=1e39", "command line: ppo.max_grad_norm"),
        (
            "curriculum.routing=dense",
            "command line: [curriculum] routing = \"dense\": means one expert, policy.experts names 4",
        ),
        ("curriculum.warmup_until=0.9", "command line: [curriculum] warmup_until = 0.9: must not exceed"),
    ];
    for (change, expected) in cases {
        let told = told(&resolved(WALK, &[change]).expect_err(change), WALK);
        assert!(told.contains(expected), "{change}: no {expected:?} in {told}");
    }
}

#[test]
fn a_missing_file_and_a_missing_environment_are_named() {
    let error = load(Path::new("experiments/nowhere.toml"), &[], &ENTRIES).unwrap_err();
    assert_eq!(error.to_string(), "experiments/nowhere.toml: cannot read: it does not exist");
    let error = find_environment("cartpol", &ENTRIES).unwrap_err();
    assert!(told(&error, "").contains("did you mean \"cartpole\"?"));
}

#[test]
fn a_file_lies_over_its_preset_and_overrides_over_both() {
    let text = format!("preset = \"cleanrl\"\n{WALK}[ppo]\nclip = 0.3\nepochs = 2\n");
    let config = resolved(&text, &["ppo.epochs=7", "env.length=5", "policy.trunk=[32]"]).unwrap();
    assert_eq!((config.ppo.clip, config.ppo.epochs, config.ppo.gamma), (0.3, 7, 0.99));
    assert_eq!(config.policy.trunk, [32]);
    assert_eq!(config.env.options["length"], 5.into());
    assert_eq!(config.env.options["slip"], 0.1.into(), "options not given take their defaults");
    let other = resolved(&text, &["preset=sb3-fast"]).unwrap();
    assert_eq!((other.ppo.num_steps, other.ppo.clip), (256, 0.3));
    let last = resolved(&text, &["run.seed=2", "run.seed=3"]).unwrap();
    assert_eq!(last.run.seed, 3);
}

#[test]
fn presets_have_the_documented_numbers() {
    let cleanrl = resolved(WALK, &["preset=cleanrl"]).unwrap();
    let fast = resolved(WALK, &["preset=sb3-fast"]).unwrap();
    let quick = resolved(WALK, &["preset=quick"]).unwrap();
    assert_eq!((quick.run.num_envs, quick.ppo.num_steps, quick.ppo.epochs), (16, 32, 6));
    assert_eq!((quick.ppo.gamma, quick.ppo.gae_lambda, quick.curriculum.constant.lr), (0.98, 0.9, 2e-3));
    for config in [&cleanrl, &fast] {
        assert_eq!(config.policy.architecture, Architecture::Mlp);
        assert_eq!(config.policy.trunk, [64, 64]);
        assert_eq!(config.policy.activation, Nonlinearity::Tanh);
        assert_eq!((config.ppo.gamma, config.ppo.gae_lambda, config.ppo.clip), (0.99, 0.95, 0.2));
        assert_eq!((config.ppo.value_coef, config.ppo.max_grad_norm), (0.25, 0.5));
        assert_eq!(config.reward.scaling, RewardScaling::Off);
        assert_eq!((config.optimizer.eps, config.optimizer.weight_decay), (1e-5, 0.0));
        assert_eq!(config.curriculum.schedule, Schedule::Constant);
        assert_eq!(config.curriculum.constant.routing, FixedRouting::Dense);
        assert_eq!(config.curriculum.lr_warmup_steps, 0);
    }
    assert_eq!((cleanrl.run.num_envs, cleanrl.ppo.num_steps), (4, 128));
    assert_eq!((cleanrl.ppo.epochs, cleanrl.ppo.minibatch), (4, 4 * 128 / 4));
    assert_eq!(cleanrl.ppo.value_clip, 0.2);
    let constant = &cleanrl.curriculum.constant;
    assert_eq!((constant.lr, constant.entropy, cleanrl.curriculum.lr_decay), (2.5e-4, 0.01, Decay::Linear));

    assert_eq!((fast.run.num_envs, fast.ppo.num_steps), (8, 256));
    assert_eq!((fast.ppo.epochs, fast.ppo.minibatch, fast.ppo.value_clip), (10, 64, 0.0));
    let constant = &fast.curriculum.constant;
    assert_eq!((constant.lr, constant.entropy, fast.curriculum.lr_decay), (3e-4, 0.0, Decay::None));
}

#[test]
fn the_presets_of_earlier_versions_change_what_they_name_and_nothing_else() {
    let default = resolved(WALK, &[]).unwrap();
    let mut seed = resolved(WALK, &["preset=seed"]).unwrap();
    assert_eq!(seed.curriculum, CurriculumConfig::seed());
    let mut v3 = resolved(WALK, &["preset=v3"]).unwrap();
    assert_eq!((v3.policy.gat.hidden, v3.policy.gat.combine), (256, Heads::Average));
    seed.curriculum = default.curriculum.clone();
    v3.policy.gat = default.policy.gat.clone();
    (seed.preset, v3.preset) = (None, None);
    assert_eq!([&seed, &v3], [&default, &default]);
}

#[test]
fn the_printed_defaults_read_back_as_the_default_configuration() {
    let text = defaults(&ENTRIES);
    let config = resolved(&text, &[]).unwrap();
    let expected = resolved("about = \"why this experiment exists\"\n[env]\nname = \"walk\"", &[]).unwrap();
    assert_eq!(config, expected);

    let mut bare = expected.clone();
    bare.env.options.clear();
    assert_eq!(bare, ExperimentConfig::new("why this experiment exists", "walk"));
}

#[test]
fn the_printed_defaults_document_every_key() {
    let text = defaults(&ENTRIES);
    let keys =
        ["clip = 0.15", "eps = 0.00001", "# target_return =   (not set)", "# slip = 0.1", "lr = 0.0001"];
    for line in keys {
        assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
    }
    let words = [
        "Half-width of the trusted ratio band",
        "Accepts a number from 0.001 to 1.",
        "\"wet\"",
        "Steps slip.",
    ];
    for word in words {
        assert!(text.contains(word), "no {word:?} in\n{text}");
    }
    let lines: Vec<_> = text.lines().collect();
    let is_key = |line: &str| {
        let name = line.trim_start_matches("# ").split_once(" = ").map(|(name, _)| name);
        name.is_some_and(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
    };
    assert!(lines.iter().filter(|line| is_key(line)).count() > 80);
    for (i, line) in lines.iter().enumerate().filter(|(_, line)| is_key(line)) {
        assert!(lines[i - 1].starts_with("# "), "no documentation above {line:?}");
    }
}

#[test]
fn a_resolved_configuration_reads_back_as_itself() {
    let config = resolved(WALK, &["preset=cleanrl", "run.target_return=475", "env.slip=0.25"]).unwrap();
    let text = to_toml(&config);
    assert!(text.contains("clip = 0.2\n") && text.contains("lr = 0.00025\n"), "{text}");
    assert_eq!(resolved(&text, &[]).unwrap(), config);
    assert_eq!(to_toml(&resolved(&text, &[]).unwrap()), text);
}

#[test]
fn a_run_without_a_name_is_named_after_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long-walk.toml");
    fs::write(&path, WALK).unwrap();
    assert_eq!(load(&path, &[], &ENTRIES).unwrap().run.name.as_deref(), Some("long-walk"));
    let named = load(&path, &["run.name=other".into()], &ENTRIES).unwrap();
    assert_eq!(named.run.name.as_deref(), Some("other"));
}
