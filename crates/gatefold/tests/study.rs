//! Studies through the built binary: every arm with every seed, failures, stops, and the comparison.

mod lab;

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lab::Lab;
use serde_json::Value;

const SMALL: &str = include_str!("lab/corridor.toml");

const STUDY: &str = r#"
about = "does a router matter where nothing does?"
base = "parts/small.toml"
[study]
seeds = [3, 1]
overrides = ["ppo.clip=0.2"]
[arms.routed]
[arms.dense]
overrides = ["policy.architecture=mlp"]
"#;

impl Lab {
    fn new(study: &str) -> Self {
        Self::with(&[("parts/small.toml", SMALL), ("arms.toml", study)])
    }

    fn hash(&self, run: &str) -> String {
        self.succeed(&["checkpoint", "hash", run]).out
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&fs::read_to_string(self.path(name)).unwrap()).unwrap()
    }
}

#[test]
fn a_study_runs_every_arm_with_every_seed_and_compares_them() {
    let lab = Lab::new(STUDY);
    let first = lab.succeed(&["study", "arms.toml", "--jobs", "2"]);
    assert!(first.err.contains("4 of 4 runs to do, 2 at a time"), "{}", first.err);
    for run in ["routed/s1", "routed/s3", "dense/s1", "dense/s3"] {
        assert!(lab.path(&format!("runs/arms/{run}/summary.json")).is_file(), "{run}");
        let log = fs::read_to_string(lab.path(&format!("runs/arms/{run}.log"))).unwrap();
        assert!(log.contains("training on corridor"), "{run}: {log}");
    }
    // Corridor gives every policy 8.
    let report = lab.json("runs/arms/study.json");
    assert_eq!(report["about"], "does a router matter where nothing does?");
    let arms: Vec<_> = report["arms"].as_array().unwrap().iter().map(|arm| &arm["name"]).collect();
    assert_eq!(arms, ["routed", "dense"]);
    assert_eq!(report["arms"][1]["runs"][0]["seed"], 1);
    assert_eq!(report["arms"][1]["iqm"]["value"], 8.0);
    assert_eq!(report["arms"][1]["improvement"]["value"], 0.5);

    // The same runs by hand have the same bits.
    let overrides = ["ppo.clip=0.2", "policy.architecture=mlp", "--seed", "3", "--run-dir", "alone"];
    lab.succeed(&[&["train", "parts/small.toml"], &overrides[..]].concat());
    assert_eq!(lab.hash("alone"), lab.hash("runs/arms/dense/s3"));

    // Nothing is left, and `compare` prints what the study did.
    let again = lab.succeed(&["study", "arms.toml"]);
    assert!(!again.err.contains("started"), "{}", again.err);
    let table = lab.succeed(&["compare", "runs/arms", "--json", "table.json"]).out;
    assert!(first.out.starts_with(&table) && again.out == first.out, "{table}\n{}", first.out);
    assert_eq!(lab.json("table.json")["arms"], report["arms"]);

    // More seeds run only what is new.
    let more = lab.succeed(&["study", "arms.toml", "--seeds", "3,1,4"]);
    assert!(
        more.err.contains("2 of 6 runs to do") && more.err.contains("routed/s4: started"),
        "{}",
        more.err
    );
}

#[test]
fn a_failing_run_is_told_with_its_last_lines_and_ends_no_other() {
    let lab = Lab::new(STUDY);
    fs::create_dir_all(lab.path("runs/arms/routed/s3")).unwrap();
    fs::write(lab.path("runs/arms/routed/s3/notes"), "mine").unwrap();
    let told = ["routed/s3: failed, exit status: 2", "not empty", "1 of 4 runs failed: routed/s3"];
    let ran = lab.refuse(&["study", "arms.toml"], &told);
    assert!(ran.out.contains("dense") && ran.err.contains("dense/s3: finished"), "{}\n{}", ran.out, ran.err);
    let report = lab.json("runs/arms/study.json");
    assert_eq!(report["failed"][0], "routed/s3");
    assert_eq!(report["arms"][0]["runs"].as_array().unwrap().len(), 1);

    fs::remove_file(lab.path("runs/arms/routed/s3/notes")).unwrap();
    let ran = lab.succeed(&["study", "arms.toml"]);
    assert!(ran.err.contains("1 of 4 runs to do"), "{}", ran.err);
}

#[test]
fn a_dry_run_says_what_is_left_and_writes_nothing() {
    let lab = Lab::new(STUDY);
    let ran = lab.succeed(&["study", "arms.toml", "--dry-run", "--dir", "elsewhere"]);
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(lines.len(), 4);
    assert!(
        lines[1].starts_with("to train   elsewhere/dense/s3") && lines[1].contains("mlp"),
        "{}",
        lines[1]
    );
    assert!(!lab.path("elsewhere").exists() && !lab.path("runs").exists());
}

#[test]
fn a_mistake_in_any_arm_is_told_before_a_run_starts() {
    let cases: [(&str, &str, &[&str]); 6] = [
        ("architecture=mlp", "architecture=mpl", &["arm `dense`", "policy.architecture", "\"mlp\""]),
        ("architecture=mlp", "architecture=mlp-gat", &["arm `dense`", "no graph"]),
        ("parts/small.toml", "small.toml", &["small.toml: cannot read: it does not exist"]),
        ("seeds", "sedes", &["arms.toml", "unknown field `sedes`", "did you mean `seeds`?"]),
        ("seeds = [3, 1]", "seeds = [7777777]", &["arm `routed`", "eval", "7777777"]),
        ("ppo.clip=0.2", "run.seed=2", &["run.seed", "[study] seeds"]),
    ];
    for (from, to, expected) in cases {
        let lab = Lab::new(&STUDY.replacen(from, to, 1));
        lab.refuse(&["study", "arms.toml"], expected);
        assert!(!lab.path("runs").exists(), "{to}");
    }
    let lab = Lab::new(STUDY);
    lab.refuse(&["study", "arms.toml", "--seeds", "1,1"], &["--seeds: 1 is repeated"]);
    lab.refuse(&["compare", "parts"], &["parts: no run in it"]);
}

#[test]
fn runs_of_another_configuration_are_not_taken_for_the_studys() {
    let lab = Lab::new(STUDY);
    lab.succeed(&["study", "arms.toml", "--seeds", "1"]);
    fs::write(lab.path("arms.toml"), STUDY.replace("0.2", "0.3").replace("does a", "did a")).unwrap();
    lab.refuse(
        &["study", "arms.toml", "--seeds", "1"],
        &["runs/arms/routed/s1: ppo.clip = 0.2, but the study now says 0.3", "--dir"],
    );
    fs::write(lab.path("arms.toml"), STUDY.replace("does a", "did a")).unwrap();
    lab.succeed(&["study", "arms.toml", "--seeds", "1"]);
}

/// Waits for the process for a minute at most.
fn wait_for(child: &mut Child) -> Option<i32> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    panic!("the process did not end");
}

#[cfg(unix)]
#[test]
fn a_stopped_study_goes_on_by_the_same_command_as_if_never_stopped() {
    let study = STUDY
        .replace("ppo.clip=0.2\"", "ppo.clip=0.2\", \"run.total_steps=19200\", \"run.checkpoint_every=200\"");
    let lab = Lab::new(&study);
    let mut child = lab
        .command(&["study", "arms.toml", "--seeds", "1", "--jobs", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let metrics = lab.path("runs/arms/routed/s1/metrics.jsonl");
    let begun = Instant::now();
    while fs::read_to_string(&metrics).unwrap_or_default().is_empty()
        && begun.elapsed() < Duration::from_secs(60)
    {
        std::thread::sleep(Duration::from_millis(5));
    }
    let told = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(told.success());
    assert_eq!(wait_for(&mut child), Some(0));
    let summary = lab.json("runs/arms/routed/s1/summary.json");
    assert!(summary["total_steps"].as_u64().unwrap() < 19_200, "it was stopped before its end: {summary}");
    assert!(!lab.path("runs/arms/dense/s1").exists() && !lab.path("runs/arms/study.json").exists());

    let ran = lab.succeed(&["study", "arms.toml", "--seeds", "1"]);
    assert!(ran.err.contains("routed/s1: resumed") && ran.err.contains("dense/s1: started"), "{}", ran.err);
    lab.succeed(&["study", "arms.toml", "--seeds", "1", "--dir", "whole"]);
    assert_eq!(lab.hash("runs/arms/routed/s1"), lab.hash("whole/routed/s1"));
}
