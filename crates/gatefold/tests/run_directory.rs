//! Whole runs through the built binary: what they leave, how they go on, how they are protected.

mod lab;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lab::Lab;

const SMALL: &str = include_str!("lab/corridor.toml");

impl Lab {
    fn new() -> Self {
        Self::with(&[("small.toml", SMALL)])
    }

    /// Starts a run too long to end by itself and waits for a checkpoint after its first.
    fn start_long(&self, run: &str) -> Child {
        let arguments = ["train", "small.toml", "run.total_steps=100000000", "--run-dir", run];
        let child = self.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let begun = Instant::now();
        while self.newest_step(run) == 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "no checkpoint within a minute");
            std::thread::sleep(Duration::from_millis(20));
        }
        child.expect("the binary starts")
    }

    /// Environment steps of the run's checkpoints, ascending.
    fn steps(&self, run: &str) -> Vec<u64> {
        let entries = fs::read_dir(self.path(run).join("checkpoints")).into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut steps: Vec<_> = names.filter_map(|name| name.strip_prefix("step-")?.parse().ok()).collect();
        steps.sort_unstable();
        steps
    }

    /// Environment steps of the newest checkpoint, 0 without one.
    fn newest_step(&self, run: &str) -> u64 {
        self.steps(run).pop().unwrap_or(0)
    }

    fn summary(&self, run: &str) -> serde_json::Value {
        let text = fs::read_to_string(self.path(run).join("summary.json")).unwrap();
        serde_json::from_str(&text).expect("the summary is JSON")
    }
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).expect("every line is JSON")).collect()
}

#[test]
fn a_run_leaves_configuration_metrics_checkpoints_and_summary() {
    let lab = Lab::new();
    let ran = lab.succeed(&["train", "small.toml", "--run-dir", "run", "--seed", "5", "--threads", "1"]);
    assert!(ran.out.contains("run/summary.json") && ran.out.contains("gatefold eval run"), "{}", ran.out);
    assert!(ran.err.contains("step 64/64") && ran.err.contains("policy"), "{}", ran.err);

    let config = fs::read_to_string(lab.path("run/config.toml")).unwrap();
    assert!(config.contains("seed = 5\n") && config.contains("source revision"), "{config}");
    let metrics = lines(&lab.path("run/metrics.jsonl"));
    let steps: Vec<_> = metrics.iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [16, 32, 48, 64]);
    let summary = lab.summary("run");
    assert_eq!((&summary["env"], &summary["seed"]), (&"corridor".into(), &5.into()));
    assert_eq!((&summary["total_steps"], &summary["eval_episodes"]), (&64.into(), &4.into()));
    assert_eq!(summary["eval_return_mean"], 8.0, "every step of the corridor earns 1, eight steps long");

    let verified = lab.succeed(&["checkpoint", "verify", "run"]);
    assert!(verified.out.lines().count() >= 3 && !verified.out.contains("damaged"), "{}", verified.out);
    let evaluated = lab.succeed(&["eval", "run", "--episodes", "3"]);
    assert!(evaluated.out.contains("policy") && evaluated.out.contains("random"), "{}", evaluated.out);
}

#[test]
fn the_device_may_be_left_to_the_program_which_says_what_it_chose_and_why() {
    let lab = Lab::new();
    let trained = lab.succeed(&["train", "small.toml", "--run-dir", "run", "--device", "auto"]);
    let chosen = lab.summary("run")["device"].as_str().expect("a name").to_string();
    assert!(trained.err.contains(&format!("device: {chosen} (")), "{}", trained.err);
    #[cfg(not(feature = "cuda"))]
    assert!(trained.err.contains("device: cpu (this build has no CUDA; build with"), "{}", trained.err);
    let resumed = lab.succeed(&["resume", "run", "run.total_steps=80", "--device", "auto"]);
    assert!(resumed.err.contains("device: ") && lab.summary("run")["total_steps"] == 80, "{}", resumed.err);
    let measured = lab.succeed(&["bench", "train", "small.toml", "--steps", "1", "--device", "auto"]);
    assert!(measured.err.contains("device: ") && measured.out.contains("RESULT"), "{}", measured.err);
}

#[test]
fn without_a_run_directory_the_run_names_its_own() {
    let lab = Lab::new();
    lab.succeed(&["train", "small.toml", "run.total_steps=16"]);
    let runs: Vec<_> =
        fs::read_dir(lab.path("runs/small")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(runs.len(), 1);
    assert!(runs[0].to_string_lossy().ends_with("-s1"), "{runs:?}");
}

#[test]
fn every_key_of_the_run_does_what_it_says() {
    let lab = Lab::new();
    let train = |run: &str, overrides: &[&str]| {
        lab.succeed(&[&["train", "small.toml", "--run-dir", run], overrides].concat());
        lab.summary(run)
    };
    train("seldom", &["run.checkpoint_every=2", "run.keep_checkpoints=9"]);
    assert_eq!(lab.steps("seldom"), [0, 32, 64]);
    train("few", &["run.keep_checkpoints=1"]);
    assert_eq!(lab.steps("few"), [64]);
    train("wide", &["run.num_envs=4"]);
    assert_eq!(lines(&lab.path("wide/metrics.jsonl"))[0]["step"], 32);

    let target = ["run.total_steps=1600", "run.target_return=7.5"];
    let summary = train("target", &target);
    let reached = summary["steps_to_target"].as_u64().expect("every episode returns 8");
    assert!(reached < 1600 && summary["total_steps"] == 1600, "{summary}");
    let summary = train("stop", &[&target[..], &["run.stop_at_target=true"]].concat());
    assert_eq!(summary["steps_to_target"], reached);
    assert!(summary["total_steps"].as_u64().unwrap() < 1600, "{summary}");

    train("one", &[]);
    train("other", &["run.seed=2"]);
    let hash = |run: &str| lab.succeed(&["checkpoint", "hash", run]).out;
    assert_ne!(hash("one"), hash("other"));
    lab.succeed(&["train", "small.toml", "run.name=renamed", "run.total_steps=16"]);
    assert!(lab.path("runs/renamed").is_dir());
}

#[test]
fn every_key_of_the_evaluation_does_what_it_says() {
    let lab = Lab::new();
    let train = |run: &str, overrides: &[&str]| {
        lab.succeed(&[&["train", "small.toml", "env.name=identity", "--run-dir", run], overrides].concat());
        lab.summary(run)["eval_return_mean"].clone()
    };
    let usual = train("usual", &[]);
    assert_ne!(usual, train("seed", &["eval.seed=4321"]));
    assert_ne!(usual, train("mode", &["eval.deterministic=true"]));
    train("often", &["eval.every=2", "eval.episodes=7"]);
    let metrics = lines(&lab.path("often/metrics.jsonl"));
    let evaluated: Vec<_> = metrics.iter().map(|line| line.get("eval/return_mean").is_some()).collect();
    assert_eq!(evaluated, [false, true, false, true]);
    assert_eq!(lab.summary("often")["eval_episodes"], 7);
    let best = fs::read_to_string(lab.path("often/checkpoints/best.json")).unwrap();
    assert!(best.contains("return_mean"), "{best}");
}

#[test]
fn a_resumed_run_equals_one_that_never_stopped() {
    let lab = Lab::new();
    let train = ["train", "small.toml", "run.total_steps=160", "run.keep_checkpoints=99", "--run-dir"];
    lab.succeed(&[&train[..], &["whole"]].concat());
    lab.succeed(&[&train[..], &["parts", "--threads", "1"]].concat());
    // As after a kill at step 64, in the second of the three phases: what came later is lost.
    for step in (80..=160).step_by(16) {
        fs::remove_dir_all(lab.path(&format!("parts/checkpoints/step-{step:012}"))).unwrap();
    }
    lab.succeed(&["resume", "parts"]);
    let hash = |run: &str| lab.succeed(&["checkpoint", "hash", run]).out;
    assert_eq!(hash("whole"), hash("parts"));
    assert_eq!(hash("whole").trim().len(), 64);
    let without_times = |run: &str| -> Vec<serde_json::Value> {
        let mut metrics = lines(&lab.path(run).join("metrics.jsonl"));
        for line in &mut metrics {
            line.as_object_mut().unwrap().retain(|key, _| !key.starts_with("time/"));
        }
        metrics
    };
    assert_eq!(without_times("whole"), without_times("parts"));
}

#[test]
fn a_finished_run_can_be_made_longer() {
    let lab = Lab::new();
    lab.succeed(&["train", "small.toml", "--run-dir", "run"]);
    lab.succeed(&["resume", "run", "run.total_steps=96"]);
    assert_eq!((lab.newest_step("run"), lines(&lab.path("run/metrics.jsonl")).len()), (96, 6));
    let config = fs::read_to_string(lab.path("run/config.toml")).unwrap();
    assert!(config.contains("total_steps = 96\n"), "{config}");
}

#[test]
fn a_run_is_neither_written_over_nor_resumed_as_another() {
    let lab = Lab::new();
    lab.succeed(&["train", "small.toml", "run.total_steps=16", "--run-dir", "run"]);
    lab.refuse(&["train", "small.toml", "--run-dir", "run"], &["run: not empty", "gatefold resume run"]);
    let cases = [
        ("ppo.clip=0.3", "ppo.clip = 0.3: the checkpoint was trained with ppo.clip = 0.15"),
        ("env.name=delve", "env.name = \"delve\": the checkpoint was trained with env.name = \"corridor\""),
        ("env={name=\"delve\"}", "env.name = \"delve\": the checkpoint"),
        ("policy.architecture=mlp", "policy.architecture = \"mlp\": the checkpoint"),
    ];
    for (change, expected) in cases {
        lab.refuse(&["resume", "run", change], &[expected, "may change only", "run.total_steps", "eval"]);
    }
    lab.refuse(&["resume", "run", "ppo.clpi=0.3"], &["unknown key `clpi`", "did you mean `clip`?"]);
    lab.succeed(&["resume", "run", "ppo.clip=0.15", "eval.episodes=2"]);
}

#[test]
fn an_evaluation_says_which_checkpoint_it_takes() {
    let lab = Lab::new();
    lab.succeed(&["train", "small.toml", "--run-dir", "run"]);
    // The corridor returns 8 whatever one does, so the first evaluation, at the end, stays the best.
    lab.succeed(&["resume", "run", "run.total_steps=96"]);
    let (newest, best) = ("run/checkpoints/step-000000000096", "run/checkpoints/step-000000000064");
    let cases: [(&[&str], String); 3] = [
        (&["run"], format!("checkpoint {newest}: step 96, the newest")),
        (&["run", "--best"], format!("checkpoint {best}: step 64, the best by evaluation")),
        (&[newest], format!("checkpoint {newest}: step 96, as named")),
    ];
    for (arguments, expected) in cases {
        let ran = lab.succeed(&[&["eval", "--episodes", "1"], arguments].concat());
        assert!(ran.err.contains(&expected) && ran.out.contains("policy"), "{}", ran.err);
    }
    lab.refuse(&["eval", best, "--best"], &[best, "it is a single one"]);
    fs::remove_file(lab.path("run/checkpoints/best.json")).unwrap();
    lab.refuse(&["eval", "run", "--best"], &["no evaluation has named a best one"]);
}

#[test]
fn a_file_whose_name_names_no_folder_gives_its_run_a_name_that_stays() {
    let lab = Lab::new();
    fs::copy(lab.path("small.toml"), lab.path("\u{e4} b.toml")).unwrap();
    lab.succeed(&["train", "\u{e4} b.toml", "--run-dir", "run"]);
    let named = || fs::read_to_string(lab.path("run/config.toml")).unwrap().contains("name = \"b\"\n");
    assert!(named());
    lab.succeed(&["resume", "run", "run.total_steps=80"]);
    assert!(named(), "a resumed run keeps its name");
}

#[test]
fn a_damaged_checkpoint_is_told_and_the_one_before_is_used() {
    let lab = Lab::new();
    lab.succeed(&["train", "small.toml", "--run-dir", "run"]);
    fs::write(lab.path("run/checkpoints/step-000000000064/state.msgpack"), b"torn").unwrap();
    lab.refuse(&["checkpoint", "verify", "run"], &["step-000000000064: damaged checkpoint", "state.msgpack"]);
    lab.refuse(&["eval", "run/checkpoints/step-000000000064", "--episodes", "1"], &["damaged checkpoint"]);
    let ran = lab.succeed(&["resume", "run"]);
    assert!(ran.err.contains("warning") && ran.err.contains("using the one before"), "{}", ran.err);
    assert_eq!(lab.newest_step("run"), 64);
    lab.succeed(&["checkpoint", "verify", "run"]);
}

#[cfg(unix)]
#[test]
fn sigterm_saves_and_ends_cleanly_and_a_killed_run_leaves_no_lock() {
    let lab = Lab::new();
    let mut child = lab.start_long("run");
    lab.refuse(&["resume", "run"], &["run: another process is writing into this run"]);
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let saved = lab.newest_step("run");
    let last = lines(&lab.path("run/metrics.jsonl")).pop().unwrap();
    assert_eq!(last["step"], saved, "the last iteration is saved");

    let mut child = lab.start_long("killed");
    child.kill().unwrap();
    child.wait().unwrap();
    let step = lab.newest_step("killed") + 64;
    lab.succeed(&["resume", "killed", &format!("run.total_steps={step}")]);
    let metrics = lines(&lab.path("killed/metrics.jsonl"));
    let steps: Vec<_> = metrics.iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert!(steps.windows(2).all(|pair| pair[1] == pair[0] + 16), "no step twice and none left out");
}
