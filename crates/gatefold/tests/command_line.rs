//! The built binary: what each command prints and with which code it ends.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn gatefold_in(folder: &Path, arguments: &[&str]) -> Ran {
    gatefold_with("", folder, arguments)
}

/// With a value of the environment variable `GATEFOLD_SIMD`.
fn gatefold_with(simd: &str, folder: &Path, arguments: &[&str]) -> Ran {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_gatefold"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("NO_COLOR")
        .env("GATEFOLD_SIMD", simd)
        .output()
        .expect("the binary starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    Ran { code: status.code(), out: text(stdout), err: text(stderr) }
}

fn gatefold(arguments: &[&str]) -> Ran {
    gatefold_in(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().parent().unwrap(), arguments)
}

/// Runs in a folder with `x.toml` and expects one message and exit code 2.
fn refused(text: &str, arguments: &[&str], expected: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.toml"), text).unwrap();
    let ran = gatefold_in(folder.path(), arguments);
    assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.err);
    assert!(ran.out.is_empty(), "{arguments:?}: {}", ran.out);
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
    for part in expected {
        assert!(ran.err.contains(part), "{arguments:?}: no {part:?} in\n{}", ran.err);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{arguments:?} leaves nothing behind");
}

const CORRIDOR: &str = "about = \"a test\"\n[env]\nname = \"corridor\"\n";

#[test]
fn without_arguments_help_shows_the_quickstart() {
    for arguments in [&[][..], &["--help"], &["help"]] {
        let ran = gatefold(arguments);
        assert_eq!(ran.code, Some(0));
        assert!(ran.out.contains("cargo run --release -- train experiments/quickstart.toml"), "{}", ran.out);
    }
}

#[test]
fn every_mistake_ends_with_code_2_and_one_message() {
    let cases: [(&str, &[&str], &[&str]); 16] = [
        (CORRIDOR, &["train", "y.toml"], &["y.toml: cannot read: it does not exist"]),
        (CORRIDOR, &["train", "x.toml", "ppo.clpi=1"], &["ppo.clpi", "did you mean `clip`?"]),
        (
            CORRIDOR,
            &["train", "x.toml", "--run-dir", "x.toml"],
            &["x.toml: this is a file: need a folder", "--run-dir runs/mine"],
        ),
        (CORRIDOR, &["train", "x.toml", "--run-dir", "."], &["not empty", "holds no run", "--run-dir"]),
        (CORRIDOR, &["train", "x.toml", "--device", "tpu"], &["tpu", "cpu, cuda, auto"]),
        (CORRIDOR, &["train", "x.toml", "--threads", "0"], &["0", "--threads"]),
        (CORRIDOR, &["resume", "x.toml"], &["x.toml: not a run directory: it is a file"]),
        (
            CORRIDOR,
            &["resume", "."],
            &[".: not a run directory: there is no config.toml in it", "`train` named"],
        ),
        (CORRIDOR, &["config", "check", "."], &[".: this is a folder: need an experiment file"]),
        (CORRIDOR, &["eval", "nowhere", "--episodes", "1"], &["nowhere", "does not exist"]),
        (CORRIDOR, &["checkpoint", "hash", "."], &[".: no usable checkpoint"]),
        (
            CORRIDOR,
            &["replay-update", "."],
            &[".: not a dump: there is no dump.json", "RUN/dumps/iteration-"],
        ),
        (CORRIDOR, &["env", "check", "corridoor"], &["unknown environment", "did you mean \"corridor\"?"]),
        (CORRIDOR, &["bench", "ppo", "--preset", "sb3"], &["sb3", "sb3-fast"]),
        ("about = 3", &["config", "check", "x.toml"], &["x.toml: about = 3: need a string", "about = 3"]),
        ("[run", &["config", "check", "x.toml"], &["x.toml: not valid TOML", "[run"]),
    ];
    for (text, arguments, expected) in cases {
        refused(text, arguments, expected);
    }
}

#[cfg(not(feature = "chaos"))]
#[test]
fn a_build_without_faults_says_how_to_build_one_with_them() {
    let expected = "cargo run --release --features chaos -- chaos x.toml --out y";
    refused(CORRIDOR, &["chaos", "x.toml", "--out", "y"], &[expected]);
    assert!(!gatefold(&["--help"]).out.contains("chaos"));
}

#[test]
fn numbers_that_cannot_be_are_told_with_what_could() {
    let cases: [(&[&str], &[&str]); 9] = [
        (&["--seed", "-1"], &["'-1'", "--seed", "need a whole number from 0 to 9223372036854775807"]),
        (&["--seed", "9223372036854775808"], &["--seed", "need a whole number from 0"]),
        (&["--threads", "-2"], &["--threads", "need a whole number from 1 to 1024"]),
        (&["ppo.num_steps=-5"], &["command line: ppo.num_steps = -5: need a whole number from 1 to 1048576"]),
        (&["ppo.num_steps=9e99"], &["ppo.num_steps = 9e99: need a whole number"]),
        (&["ppo.max_grad_norm=1e39"], &["ppo.max_grad_norm = 1e39", "single precision", "3.4028235e38"]),
        (&["optimizer.eps=1e-50"], &["optimizer.eps = 1e-50", "from 1e-12 to 1", "make 0 of it"]),
        (&["ppo.max_grad_norm=16777217"], &["ppo.max_grad_norm = 16777217", "would make 16777216 of it"]),
        (
            &["--seed", "7777777"],
            &["run.seed = 7777777", "eval", "7777777: must differ", "change run.seed or eval.seed"],
        ),
    ];
    for (arguments, expected) in cases {
        refused(CORRIDOR, &[&["train", "x.toml"], arguments].concat(), expected);
    }
}

#[test]
fn keys_that_do_not_go_together_are_both_named_and_the_one_that_was_set_is_blamed() {
    let cases: [(&[&str], &[&str]); 11] = [
        (
            &["policy.gat.heads=5"],
            &[
                "command line: policy.gat.heads = 5",
                "hidden = 64",
                "change policy.gat.heads or policy.gat.hidden",
            ],
        ),
        (&["run.num_envs=1"], &["command line: run.num_envs = 1", "minibatch = 256: need 2..=128"]),
        (&["eval.seed=1"], &["command line: [eval] seed = 1: must differ from run.seed = 1"]),
        (
            &["policy.architecture=mlp", "curriculum.routing=sparsemax"],
            &["curriculum.routing = \"sparsemax\"", "policy.architecture = \"mlp\" has no router"],
        ),
        (
            &["policy.experts=[\"only\"]", "curriculum.warmup.routing=uniform"],
            &["curriculum.warmup.routing = \"uniform\"", "policy.experts names one"],
        ),
        (
            &["preset=cleanrl", "curriculum.constant.routing=softmax"],
            &["curriculum.constant.routing = \"softmax\"", "policy.architecture = \"mlp\""],
        ),
        (
            &["preset=cleanrl", "policy.twin_critics=true"],
            &["command line: policy.twin_critics = true: does not go with", "value_clip = 0.2"],
        ),
        (
            &["policy.architecture=v2", "curriculum.fine_tune.routing=top-k"],
            &["curriculum.fine_tune.routing = \"top-k\"", "policy.architecture = \"v2\" routes by Gumbel"],
        ),
        (
            &["policy.architecture=v2", "curriculum.routing=softmax"],
            &["[curriculum] routing = \"softmax\": does not go with policy.architecture = \"v2\""],
        ),
        (
            &["losses.load_balance=bias"],
            &["command line: [losses] load_balance = \"bias\": needs curriculum.routing = \"top-k\""],
        ),
        (
            &["curriculum.optional.next_operator=0.1"],
            &["optional.next_operator = 0.1: needs policy.next_operator = true"],
        ),
    ];
    for (arguments, expected) in cases {
        refused(CORRIDOR, &[&["train", "x.toml"], arguments].concat(), expected);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_that_cannot_fit_into_memory_is_refused_before_it_is_built() {
    let widths = vec!["4096"; 4000].join(",");
    let text = format!("{CORRIDOR}[policy]\ntrunk = [{widths}]\n");
    let expected = ["TiB of memory", "available", "parameters of the trunks (policy.trunk)"];
    refused(&text, &["train", "x.toml"], &expected);
}

#[test]
fn routing_that_nobody_asked_for_is_no_contradiction() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.toml"), CORRIDOR).unwrap();
    for change in ["preset=cleanrl", "policy.architecture=mlp", "policy.experts=[\"only\"]"] {
        let checked = gatefold_in(folder.path(), &["config", "check", "x.toml", change]);
        assert_eq!(checked.code, Some(0), "{change}: {}", checked.err);
        fs::write(folder.path().join("again.toml"), &checked.out).unwrap();
        let again = gatefold_in(folder.path(), &["config", "check", "again.toml"]);
        assert_eq!((again.code, &again.out), (Some(0), &checked.out), "{change}: {}", again.err);
    }
    let dense = ["config", "check", "x.toml", "policy.architecture=mlp", "curriculum.routing=dense"];
    assert_eq!(gatefold_in(folder.path(), &dense).code, Some(0));
}

#[test]
fn a_simd_level_that_there_is_not_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let ran = gatefold_with("sse2", folder.path(), &["env", "list"]);
    assert_eq!(ran.code, Some(2));
    for part in ["GATEFOLD_SIMD = \"sse2\"", "\"avx512\", \"avx2\", \"portable\"", "unset"] {
        assert!(ran.err.contains(part), "no {part:?} in {}", ran.err);
    }
    assert_eq!(gatefold_with("portable", folder.path(), &["env", "list"]).code, Some(0));
}

#[test]
fn an_unknown_key_is_shown_where_it_stands() {
    let text = format!("{CORRIDOR}[run]\nseeds = 3\n");
    refused(
        &text,
        &["config", "check", "x.toml"],
        &["x.toml: run.seeds = 3", "x.toml:5:1", "did you mean `seed`?"],
    );
}

#[test]
fn a_checked_configuration_is_printed_whole_and_can_be_checked_again() {
    let first = gatefold(&["config", "check", "experiments/cartpole.toml", "run.seed=9"]);
    assert_eq!((first.code, first.err.as_str()), (Some(0), ""));
    assert!(first.out.contains("seed = 9\n") && first.out.contains("gae_lambda = 0.95\n"), "{}", first.out);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("again.toml"), &first.out).unwrap();
    let again = gatefold_in(folder.path(), &["config", "check", "again.toml"]);
    assert_eq!(again.out, first.out);
}

#[test]
fn every_experiment_that_ships_resolves() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
    let mut checked = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        if text.contains("\n[[faults]]\n") {
            continue; // a file for `chaos`, whose own test reads it
        }
        let is_study = text.contains("\n[study]\n");
        let place = path.to_str().unwrap();
        let ran = match is_study {
            true => gatefold(&["study", place, "--dry-run"]),
            false => gatefold(&["config", "check", place]),
        };
        assert_eq!(ran.code, Some(0), "{}: {}", path.display(), ran.err);
        checked += 1;
    }
    assert!(checked >= 5);
}

#[test]
fn the_printed_defaults_are_a_file_that_can_be_checked() {
    let defaults = gatefold(&["config", "defaults"]);
    assert_eq!(defaults.code, Some(0));
    assert!(defaults.out.contains("# Half-width of the trusted ratio band"));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("defaults.toml"), &defaults.out).unwrap();
    let ran = gatefold_in(folder.path(), &["config", "check", "defaults.toml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
}

/// Units of numbers, as documentation writes them behind "in", "per" or "number of".
const UNITS: [&str; 22] = [
    "`unit`",
    "actions",
    "attention layers",
    "checkpoints",
    "edges",
    "environment steps",
    "environments",
    "episodes",
    "experts",
    "heads",
    "iterations",
    "layers",
    "levels",
    "nats",
    "nodes",
    "optimizer step",
    "passes",
    "rows",
    "squared units",
    "steps",
    "units",
    "units of raw reward",
];

/// Whether the documentation of a key that accepts `accepts` says what its values are.
fn says_its_unit(about: &str, accepts: &str) -> bool {
    if ["true or false", "one of these names:", "a table"].iter().any(|kind| accepts.starts_with(kind)) {
        return true;
    }
    let about = about.to_lowercase();
    if accepts.contains("string") {
        return ["name", "path", "text"].iter().any(|word| about.contains(word));
    }
    let named =
        |unit: &str| ["in", "per", "number of"].iter().any(|word| about.contains(&format!("{word} {unit}")));
    let ratio = ["dimensionless", "probability", "share of", "a share", "as a fraction of"];
    ratio.iter().any(|word| about.contains(word)) || UNITS.iter().any(|unit| named(unit))
}

#[test]
fn every_key_says_what_it_is_what_it_accepts_and_in_which_unit() {
    let text = gatefold(&["config", "defaults"]).out;
    let (mut about, mut keys, mut mute) = (String::new(), 0, Vec::new());
    for line in text.lines() {
        let name = line.trim_start_matches("# ").split_once(" = ").map_or("", |(name, _)| name);
        let is_key =
            !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c));
        if is_key {
            keys += 1;
            match about.split_once("Accepts ") {
                Some((about, accepts)) if !about.trim().is_empty() && says_its_unit(about, accepts) => {}
                _ => mute.push(format!("{name}: {about}")),
            }
        }
        match line.strip_prefix("# ") {
            Some(words) if !is_key => about += &format!("{words} "),
            _ => about.clear(),
        }
    }
    assert!(keys > 90, "{keys} keys");
    assert!(mute.is_empty(), "{}", mute.join("\n"));
    assert!(!says_its_unit("Steps of an episode.", "a whole number of at least 1"), "the rule can be broken");
    assert!(["v2", "routed"].iter().all(|name| text.contains(name)), "choices are listed by name");
    let sections = ["[policy.gat]", "[curriculum.optional]", "[monitors]", "[ladder]"];
    sections.iter().for_each(|section| assert!(text.contains(section), "no {section}"));
}

#[test]
fn environments_are_listed_and_checked() {
    let list = gatefold(&["env", "list"]);
    for name in ["bandit", "cartpole", "corridor", "delve", "identity", "lore"] {
        assert!(list.out.lines().any(|line| line.starts_with(name)), "{}", list.out);
    }
    let check = gatefold(&["env", "check", "cartpole"]);
    assert_eq!(check.code, Some(0), "{}", check.err);
    assert!(check.out.contains("checks held") && !check.out.contains("draws nothing"), "{}", check.out);
    let check = gatefold(&["env", "check", "corridor"]);
    assert_eq!(check.code, Some(0), "{}", check.err);
    assert!(check.out.contains("`corridor` draws nothing"), "{}", check.out);
}
