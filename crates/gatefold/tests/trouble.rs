//! Runs in trouble, through the built binary: what is noted, explained, replayed and simplified.

mod lab;

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use lab::Lab;
use serde_json::Value;

const SMALL: &str = r#"
about = "a run of a second"
[env]
name = "delve"
[run]
total_steps = 64
num_envs = 2
checkpoint_every = 1
keep_checkpoints = 9
[eval]
episodes = 1
[policy]
trunk = [8]
expert_hidden = [8]
router_hidden = [8]
[policy.gat]
hidden = 8
[ppo]
num_steps = 16
minibatch = 16
epochs = 2
"#;

/// A learning rate of 1000 through a deep trunk leaves single precision within an update.
const EXPLOSIVE: [&str; 4] = [
    "policy.trunk=[8,8,8,8,8,8]",
    "curriculum.lr_scale=1000",
    "curriculum.lr_warmup_steps=0",
    "curriculum.warmup.lr=1.0",
];

impl Lab {
    fn new() -> Self {
        Self::with(&[("small.toml", SMALL)])
    }

    fn hash(&self, run: &str) -> String {
        self.succeed(&["checkpoint", "hash", run]).out
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }

    /// Events of one kind.
    fn events(&self, run: &str, kind: &str) -> Vec<Value> {
        let mut events = self.lines(&format!("{run}/events.jsonl"));
        events.retain(|event| event["event"] == kind);
        events
    }
}

#[test]
fn a_healthy_run_is_explained_by_its_numbers() {
    let lab = Lab::new();
    lab.succeed(&["train", "small.toml", "--run-dir", "r"]);
    let told = lab.succeed(&["explain", "r"]).out;
    assert!(told.contains("2 iterations, 64 steps"), "{told}");
    assert!(told.contains("gradient norm before clipping"), "{told}");

    lab.refuse(&["explain", "small.toml"], &["small.toml: not a run directory"]);
    fs::write(lab.path("r/events.jsonl"), "{\"iteration\":1}\n{\"iterat").unwrap();
    lab.refuse(&["explain", "r"], &["events.jsonl: line 1", "missing field"]);
    fs::remove_file(lab.path("r/events.jsonl")).unwrap();
    lab.refuse(&["explain", "r"], &["r: there is no events.jsonl", "gatefold resume r"]);
}

#[test]
fn an_exploding_run_dumps_its_updates_and_each_is_replayed_bit_for_bit() {
    let lab = Lab::new();
    let train = [&["train", "small.toml", "--run-dir", "r", "run.total_steps=640"], &EXPLOSIVE[..]].concat();
    let ran = lab.run(&train);
    let discarded = lab.events("r", "update-discarded");
    assert!(!discarded.is_empty(), "a learning rate of 1000 did no harm: {}", ran.err);
    assert!(ran.err.contains("discarded"), "a line tells of it: {}", ran.err);
    let dumps = lab.events("r", "dump-written");
    let newest = format!("r/{}", dumps.last().expect("a dump")["path"].as_str().unwrap());
    for threads in ["1", "2"] {
        let replay = lab.succeed(&["replay-update", &newest, "--threads", threads]).out;
        assert!(replay.contains("Reproduced bit for bit"), "{replay}");
    }
    let told = lab.succeed(&["explain", "r"]).out;
    assert!(told.contains("the numerical guard discarded the update"), "{told}");
    assert!(told.contains("what is needed to replay it was written to dumps/iteration-"), "{told}");
    lab.refuse(&["replay-update", "r"], &["r: not a dump: it holds dumps, the newest is r/dumps/"]);
}

#[test]
fn a_run_is_taken_to_a_rung_by_hand_and_goes_on_from_there() {
    let lab = Lab::new();
    lab.succeed(&["train", "small.toml", "--run-dir", "r"]);
    let before = lab.hash("r");
    let told = lab.succeed(&["ladder", "r", "--rung", "fewer-experts", "--out", "copy"]).out;
    assert!(told.contains("copy: from rung full to fewer-experts at step 64"), "{told}");
    assert!(
        told.contains("survival, combat, exploration, general before, survival, general after"),
        "{told}"
    );
    assert_eq!(lab.hash("r"), before, "with --out the run stays as it is");
    assert!(lab.events("r", "ladder-step").is_empty());

    lab.succeed(&["ladder", "r", "--rung", "fewer-experts"]);
    let after = lab.hash("r");
    assert_ne!(after, before);
    assert_eq!(after, lab.hash("copy"), "a copy is changed in the same way");
    let steps = lab.events("r", "ladder-step");
    assert_eq!(steps.len(), 1);
    let step = &steps[0];
    assert_eq!([&step["from"], &step["to"], &step["by"]], ["full", "fewer-experts", "hand"]);
    assert_eq!((&step["env_step"], &step["evidence"]), (&64.into(), &"asked for by hand".into()));
    let again = lab.succeed(&["ladder", "r", "--rung", "fewer-experts"]).out;
    assert!(again.contains("already") && lab.hash("r") == after, "{again}");
    lab.refuse(&["ladder", "r", "--rung", "nowhere"], &["nowhere", "need one of full, freeze-gat"]);

    lab.succeed(&["resume", "r", "run.total_steps=96"]);
    let metrics = lab.lines("r/metrics.jsonl");
    let rungs: Vec<_> = metrics.iter().map(|line| line["ladder/rung"].as_f64()).collect();
    assert_eq!(rungs, [Some(0.0), Some(0.0), Some(3.0)]);
    assert_eq!(lab.events("r", "ladder-step").len(), 1, "the step is neither lost nor doubled");
}

#[test]
fn a_rung_can_be_given_where_a_run_begins_and_where_it_goes_on() {
    let lab = Lab::new();
    let rungs = |run: &str| -> Vec<f64> {
        let lines = lab.lines(&format!("{run}/metrics.jsonl"));
        lines.iter().map(|line| line["ladder/rung"].as_f64().unwrap()).collect()
    };
    lab.succeed(&["train", "small.toml", "--run-dir", "r", "--rung", "softmax-only"]);
    assert_eq!(rungs("r"), [2.0, 2.0]);
    lab.succeed(&["resume", "r", "run.total_steps=96", "--rung", "full"]);
    assert_eq!(rungs("r"), [2.0, 2.0, 0.0]);

    let corridor = ["train", "small.toml", "env.name=corridor", "--run-dir", "c"];
    let refusal = ["changes nothing for this policy", "full, softmax-only, fewer-experts, v2-routing"];
    lab.refuse(&[&corridor[..], &["--rung", "freeze-gat"]].concat(), &refusal);
    assert!(!lab.path("c").exists(), "nothing is written for a run that cannot be");
    lab.succeed(&corridor);
    let before = lab.hash("c");
    lab.refuse(&["ladder", "c", "--rung", "freeze-gat", "--out", "copy"], &refusal);
    assert!(lab.hash("c") == before && !lab.path("copy").exists());
}

#[test]
fn a_run_that_goes_on_is_not_changed_under_its_feet() {
    let lab = Lab::new();
    let train = ["train", "small.toml", "run.total_steps=100000000", "--run-dir", "r"];
    let mut child = lab.command(&train).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while !lab.path("r/checkpoints/step-000000000032").exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no checkpoint within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
    lab.refuse(&["ladder", "r", "--rung", "softmax-only"], &["r: another process is writing into this run"]);
    assert!(lab.succeed(&["explain", "r"]).out.contains("iterations"), "but it can be asked how it is");
    child.kill().unwrap();
    child.wait().unwrap();
}
