//! Settings that no other test moves: changing one changes what a run does.

use gatefold_runner::events::Silent;
use gatefold_runner::{RunOptions, checkpoint, layers, train};

const TINY: &str = r#"
    about = "knob test"
    [env]
    name = "bandit"
    [run]
    total_steps = 512
    num_envs = 8
    [policy]
    trunk = [16]
    expert_hidden = [16]
    router_hidden = [16]
    [policy.gat]
    hidden = 8
    [ppo]
    num_steps = 32
    minibatch = 64
    [curriculum]
    lr_scale = 30.0
    lr_warmup_steps = 0
    [eval]
    episodes = 1
"#;

/// Hash of the final state, optimizer steps taken, and the last value loss.
fn outcome(change: &str) -> (String, f64, f64) {
    let overrides: Vec<String> = (!change.is_empty()).then(|| change.to_string()).into_iter().collect();
    let config = layers::resolve("test", TINY, &overrides, gatefold_envs::TABLE);
    let config = config.unwrap_or_else(|e| panic!("{change}: {e}"));
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let options = RunOptions { run_dir: Some(run.clone()), ..RunOptions::default() };
    train(&config, &options, gatefold_envs::TABLE, &mut Silent).unwrap_or_else(|e| panic!("{change}: {e}"));
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    let number = |name: &str| last[name].as_f64().unwrap();
    (checkpoint::hash(&run).unwrap(), number("train/optimizer_steps"), number("train/value_loss"))
}

#[test]
fn a_tight_target_kl_ends_the_epochs_early() {
    let (_, all, _) = outcome("");
    let (_, some, _) = outcome("ppo.target_kl=1e-9");
    assert_eq!(all, 2.0 * 4.0 * 4.0, "2 iterations of 4 epochs of 4 minibatches");
    assert_eq!(some, 2.0 * 4.0, "one epoch each");
}

#[test]
fn each_setting_of_the_losses_changes_what_is_learned() {
    let (default, _, squared) = outcome("");
    let changes = [
        "losses.compared_rows=8",
        "losses.load_balance=switch",
        "ppo.value_loss=huber",
        "ppo.value_clip=0.01",
        "ppo.value_coef=0.1",
        "ppo.normalize_advantages=false",
        "ppo.max_grad_norm=0.01",
        "ppo.gae_lambda=0.5",
        "ppo.gamma=0.5",
        "ppo.clip=0.01",
        "reward.scaling=standardize",
        "reward.clip=0.1",
        "optimizer.beta1=0.5",
        "optimizer.beta2=0.9",
        "optimizer.eps=0.1",
        "optimizer.weight_decay=0.5",
        "policy.normalize_observations=true",
        "policy.activation=tanh",
        "policy.action_gain=1.0",
        "policy.gat.combine=average",
        "policy.gat.layers=1",
        "policy.gat.heads=2",
    ];
    for change in changes {
        assert_ne!(outcome(change).0, default, "{change} changes nothing");
    }
    assert_ne!(outcome("ppo.value_loss=huber").2, squared, "the value loss reported is the one minimised");
}

#[test]
fn repeating_a_run_repeats_its_hash() {
    assert_eq!(outcome(""), outcome(""));
}

#[test]
fn a_minibatch_of_one_row_is_learned_from_without_harm() {
    let text = TINY.replace("num_steps = 32", "num_steps = 7").replace("minibatch = 64", "minibatch = 2");
    let text = text.replace("num_envs = 8", "num_envs = 1").replace("total_steps = 512", "total_steps = 14");
    let config = layers::resolve("test", &text, &[], gatefold_envs::TABLE).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = RunOptions { run_dir: Some(folder.path().join("run")), ..RunOptions::default() };
    train(&config, &options, gatefold_envs::TABLE, &mut Silent).unwrap();
}
