//! Learning, on environments whose best return is known, against a random policy too.

use gatefold_runner::events::{Evaluation, Event, Reporter};
use gatefold_runner::{RunOptions, Summary, layers, train};
use serde_json::Value;

/// Keeps the last evaluation.
#[derive(Default)]
struct Last(Option<Evaluation>);

impl Reporter for Last {
    fn event(&mut self, event: &Event) {
        if let Event::Evaluated { evaluation, .. } = event {
            self.0 = Some(evaluation.clone());
        }
    }
}

struct Outcome {
    summary: Summary,
    evaluation: Evaluation,
    /// The metrics of the last iteration.
    last: Value,
}

fn run(text: &str) -> Outcome {
    let entries = gatefold_envs::TABLE;
    let config = layers::resolve("test", text, &[], entries).unwrap_or_else(|e| panic!("{e}"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let options = RunOptions { run_dir: Some(path.clone()), ..RunOptions::default() };
    let mut reporter = Last::default();
    let summary = train(&config, &options, entries, &mut reporter).unwrap_or_else(|e| panic!("{e}"));
    let metrics = std::fs::read_to_string(path.join("metrics.jsonl")).unwrap();
    let last = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    Outcome { summary, evaluation: reporter.0.unwrap(), last }
}

#[test]
fn identity_is_learned_to_its_best_return() {
    let outcome = run(r#"
        about = "learning test"
        [env]
        name = "identity"
        [run]
        total_steps = 24_576
        num_envs = 16
        [policy]
        architecture = "mlp"
        trunk = [32]
        [ppo]
        num_steps = 64
        minibatch = 128
        [curriculum]
        schedule = "constant"
        lr_warmup_steps = 0
        [curriculum.constant]
        lr = 3e-3
        entropy = 0.0
        routing = "dense"
        [eval]
        deterministic = true
    "#);
    let random = outcome.evaluation.random.unwrap().return_mean;
    assert_eq!(outcome.summary.eval_return_mean, Some(16.0), "the best return");
    assert!(random < 8.0, "a random policy gets {random}");
}

#[test]
fn the_bandit_is_learned_only_by_a_policy_that_reads_the_graph() {
    let text = |architecture: &str| {
        format!(
            r#"
            about = "learning test"
            [env]
            name = "bandit"
            [run]
            total_steps = 65_536
            num_envs = 16
            [policy]
            architecture = "{architecture}"
            trunk = [32]
            expert_hidden = [32]
            router_hidden = [32]
            [policy.gat]
            hidden = 16
            [ppo]
            num_steps = 64
            minibatch = 128
            [curriculum]
            lr_scale = 30.0
            lr_warmup_steps = 0
            [eval]
            deterministic = true
            "#
        )
    };
    let routed = run(&text("routed"));
    let blind = run(&text("mlp"));
    let reached = routed.summary.eval_return_mean.unwrap();
    let without = blind.summary.eval_return_mean.unwrap();
    assert!(reached >= 15.0, "the full method reaches {reached} of 16");
    assert!(without <= 8.0, "without the graph no policy can do well, this one got {without}");
    assert_eq!(routed.last["curriculum/phase"], 2.0, "all phases were entered");
    let support = routed.last["router/support"].as_f64().unwrap();
    assert!(support < 4.0, "sparse routing at the end, {support} experts on average");
}

#[test]
fn a_truncated_episode_is_worth_what_would_have_come_after() {
    // Always reward 1, cut at 8 steps: V must approach 1 / (1 - 0.9) = 10, not the 5.7 of 8 steps.
    let outcome = run(r#"
        about = "learning test"
        [env]
        name = "corridor"
        [run]
        total_steps = 40_960
        num_envs = 16
        [policy]
        architecture = "mlp"
        trunk = [32]
        [ppo]
        num_steps = 32
        minibatch = 128
        gamma = 0.9
        gae_lambda = 0.95
        [reward]
        scaling = "off"
        [curriculum]
        schedule = "constant"
        lr_warmup_steps = 0
        [curriculum.constant]
        lr = 3e-3
        routing = "dense"
    "#);
    let value = outcome.last["rollout/value_mean"].as_f64().unwrap();
    assert!((value - 10.0).abs() < 0.3, "V = {value}");
}

#[test]
fn cartpole_is_solved_within_a_short_budget() {
    let outcome = run(r#"
        about = "learning test"
        preset = "sb3-fast"
        [env]
        name = "cartpole"
        [run]
        total_steps = 102_400
        target_return = 475.0
        [eval]
        episodes = 50
        deterministic = true
    "#);
    assert!(outcome.summary.steps_to_target.is_some(), "475 was not reached: {:?}", outcome.summary);
    assert!(outcome.summary.eval_return_mean.unwrap() >= 490.0, "{:?}", outcome.summary);
}
