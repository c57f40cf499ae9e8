//! Whole runs: collecting, the curriculum, the update and what the run reports, in 20 iterations.

use gatefold_runner::events::Silent;
use gatefold_runner::{RunOptions, layers, train};
use gatefold_tests::copies::metrics_without_time;

use super::curve::Curve;

/// 4 environments of 64 steps, CleanRL's constants.
pub(crate) const CARTPOLE: &str = r#"
    about = "golden curve"
    preset = "cleanrl"
    [env]
    name = "cartpole"
    [run]
    total_steps = 5_120
    num_envs = 4
    seed = 1
    [policy]
    trunk = [32, 32]
    [ppo]
    num_steps = 64
    minibatch = 64
    [eval]
    episodes = 1
"#;

/// All phases of the full method, with every auxiliary loss that a phase weighs.
pub(crate) const DELVE: &str = r#"
    about = "golden curve"
    [env]
    name = "delve"
    [run]
    total_steps = 5_120
    num_envs = 8
    seed = 1
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
    unit = "fraction"
    warmup_until = 0.35
    transition_until = 0.7
    lr_warmup_steps = 5
    [curriculum.optional]
    importance = 0.1
    router_z = 0.001
    attention_gini = 0.01
    [eval]
    episodes = 1
"#;

/// The curve of a run on one thread.
pub(crate) fn curve(text: &str) -> Curve {
    let entries = gatefold_envs::TABLE;
    let config = layers::resolve("test", text, &[], entries).unwrap_or_else(|e| panic!("{e}"));
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let options = RunOptions { run_dir: Some(run.clone()), threads: 1, ..RunOptions::default() };
    train(&config, &options, entries, &mut Silent).unwrap_or_else(|e| panic!("{e}"));
    Curve::new(&metrics_without_time(&run), |line, name| line.get(name)?.as_f64())
}
