//! Same seed, same bits; and a resumed run equals one that never stopped.

use std::fs;
use std::path::Path;

use gatefold_runner::events::{Event, Reporter, Silent};
use gatefold_runner::{ExperimentConfig, RunOptions, checkpoint, layers, resume, train};
use gatefold_tests::copies::{Copies, metrics_without_time};

const CARTPOLE: &str = r#"
    about = "resume test"
    preset = "cleanrl"
    [env]
    name = "cartpole"
    [run]
    total_steps = 4_096
    checkpoint_every = 2
    keep_checkpoints = 100
    [eval]
    every = 3
    episodes = 4
"#;

/// Six iterations through all three phases, with scaled observations.
const DELVE: &str = r#"
    about = "resume test"
    [env]
    name = "delve"
    [run]
    total_steps = 1_536
    num_envs = 8
    checkpoint_every = 1
    keep_checkpoints = 100
    [policy]
    trunk = [32]
    expert_hidden = [16]
    router_hidden = [16]
    normalize_observations = true
    [policy.gat]
    hidden = 16
    [ppo]
    num_steps = 32
    minibatch = 64
    epochs = 2
    [curriculum]
    warmup_until = 0.3
    transition_until = 0.7
    lr_warmup_steps = 5
    [eval]
    episodes = 2
"#;

fn config(text: &str) -> ExperimentConfig {
    layers::resolve("test", text, &[], gatefold_envs::TABLE).unwrap_or_else(|e| panic!("{e}"))
}

fn options(path: &Path, threads: usize) -> RunOptions {
    RunOptions { run_dir: Some(path.to_path_buf()), threads, ..RunOptions::default() }
}

/// Hash of the final state, the metrics without the clock's, and which checkpoint is the best.
fn outcome(run: &Path) -> (String, Vec<serde_json::Map<String, serde_json::Value>>, checkpoint::Best) {
    let best = checkpoint::best(&run.join("checkpoints")).unwrap().expect("every run is evaluated");
    (checkpoint::hash(run).unwrap(), metrics_without_time(run), best)
}

fn resumed_from_anywhere_equals_never_stopped(text: &str) {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("whole");
    let mut copies = Copies::new(&run, &folder.path().join("copies"));
    train(&config(text), &options(&run, 2), gatefold_envs::TABLE, &mut copies).unwrap();
    let whole = outcome(&run);
    assert!(copies.taken.len() >= 4, "checkpoints at {:?}", copies.taken);
    for (step, copy) in &copies.taken {
        resume(copy, &[], &options(copy, 1), gatefold_envs::TABLE, &mut Silent).unwrap();
        assert_eq!(outcome(copy), whole, "resumed from step {step}");
    }
}

#[test]
fn cartpole_resumed_from_any_checkpoint_equals_never_having_stopped() {
    resumed_from_anywhere_equals_never_stopped(CARTPOLE);
}

#[test]
fn delve_resumed_across_phase_boundaries_equals_never_having_stopped() {
    resumed_from_anywhere_equals_never_stopped(DELVE);
}

#[test]
fn one_and_two_threads_give_the_same_bits_and_another_seed_gives_others() {
    for text in [CARTPOLE, DELVE] {
        let folder = tempfile::tempdir().unwrap();
        let trained = |name: &str, threads, seed| {
            let run = folder.path().join(name);
            let mut config = config(text);
            config.run.seed = seed;
            train(&config, &options(&run, threads), gatefold_envs::TABLE, &mut Silent).unwrap();
            outcome(&run)
        };
        let one = trained("one", 1, 1);
        assert_eq!(one, trained("two", 2, 1));
        assert_ne!(one.0, trained("other-seed", 2, 2).0);
    }
}

#[test]
fn a_damaged_newest_checkpoint_is_passed_over_and_the_result_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    train(&config(CARTPOLE), &options(&run, 1), gatefold_envs::TABLE, &mut Silent).unwrap();
    let whole = outcome(&run);
    let (_, newest) = checkpoint::list(&run.join("checkpoints")).unwrap().remove(0);
    let tensors = newest.join("policy.safetensors");
    let mut bytes = fs::read(&tensors).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&tensors, bytes).unwrap();

    struct Warnings(Vec<String>);
    impl Reporter for Warnings {
        fn event(&mut self, event: &Event) {
            if let Event::Warning(text) = event {
                self.0.push(text.clone());
            }
        }
    }
    let mut warnings = Warnings(Vec::new());
    resume(&run, &[], &options(&run, 1), gatefold_envs::TABLE, &mut warnings).unwrap();
    assert!(warnings.0.iter().any(|w| w.contains("policy.safetensors")), "{:?}", warnings.0);
    assert_eq!(outcome(&run), whole);
}
