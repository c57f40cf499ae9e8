//! Saving beside the loop, seen from outside: what is told when, and what a failing disk ends.

use std::fs;
use std::path::{Path, PathBuf};

use gatefold_env::{
    Action, EnvEntry, EnvError, EnvSpec, Environment, NoOptions, ObservationView, StreamRng, Transition,
};
use gatefold_runner::events::{Event, Reporter};
use gatefold_runner::{ExperimentConfig, RunError, RunOptions, Summary, layers, train};
use serde::{Deserialize, Serialize};

/// One decision, one step.
#[derive(Clone, Serialize, Deserialize)]
struct Once;

impl Environment for Once {
    type Config = NoOptions;

    fn new(_: &NoOptions) -> Result<Self, EnvError> {
        Ok(Self)
    }

    fn spec(&self) -> EnvSpec {
        EnvSpec::new(1, 2)
    }

    fn reset(&mut self, _: &mut StreamRng) {}

    fn step(&mut self, action: Action, _: &mut StreamRng) -> Transition {
        let Action::Discrete(action) = action else { panic!("one of two actions") };
        Transition {
            reward: action as f32,
            score: action as f64,
            end: Some(gatefold_env::EpisodeEnd::Terminated),
        }
    }

    fn observe(&self, view: &mut ObservationView<'_>) {
        view.features[0] = 1.0;
    }
}

const ENTRIES: [EnvEntry; 1] = [EnvEntry::new::<Once>("once", "one decision")];

const EXPERIMENT: &str = r#"
    about = "a test"
    preset = "cleanrl"
    [env]
    name = "once"
    [run]
    total_steps = 64
    num_envs = 2
    checkpoint_every = 1
    keep_checkpoints = 9
    [eval]
    episodes = 2
    [policy]
    trunk = [4]
    [ppo]
    num_steps = 8
    minibatch = 8
"#;

fn config() -> ExperimentConfig {
    layers::resolve("test", EXPERIMENT, &[], &ENTRIES).unwrap_or_else(|e| panic!("{e}"))
}

fn trained(run: &Path, reporter: &mut dyn Reporter) -> Result<Summary, RunError> {
    let options = RunOptions { run_dir: Some(run.to_path_buf()), threads: 1, ..RunOptions::default() };
    train(&config(), &options, &ENTRIES, reporter)
}

/// Notes saves, iterations and the evaluation in their order, and looks at each checkpoint told.
struct Notes {
    run: PathBuf,
    told: Vec<String>,
}

impl Reporter for Notes {
    fn event(&mut self, event: &Event) {
        match event {
            Event::CheckpointSaved { path, step, best: false } => {
                assert!(path.join("manifest.json").is_file(), "what is told is on disk");
                let metrics = fs::read_to_string(self.run.join("metrics.jsonl")).unwrap();
                let line = format!("{{\"step\":{step},");
                assert!(*step == 0 || metrics.contains(&line), "its metrics are there: {metrics}");
                self.told.push(format!("saved {step}"));
            }
            Event::Iteration(progress) => self.told.push(format!("at {}", progress.step)),
            Event::Evaluated { .. } => self.told.push("evaluated".to_string()),
            _ => {}
        }
    }
}

#[test]
fn the_loop_goes_on_while_a_checkpoint_is_written_and_every_one_is_told_before_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let mut notes = Notes { run: run.clone(), told: Vec::new() };
    trained(&run, &mut notes).unwrap();
    let expected = "saved 0, at 16, saved 16, at 32, saved 32, at 48, saved 48, at 64, saved 64, evaluated";
    assert_eq!(notes.told.join(", "), expected);
}

/// Takes the folder of checkpoints away once the run is under way.
struct Thief(PathBuf);

impl Reporter for Thief {
    fn event(&mut self, event: &Event) {
        if matches!(event, Event::Iteration(progress) if progress.step == 32) {
            fs::rename(self.0.join("checkpoints"), self.0.join("gone")).unwrap();
        }
    }
}

#[test]
fn a_save_that_fails_beside_the_loop_ends_the_run_with_its_error() {
    let folder = tempfile::tempdir().unwrap();
    let error = trained(folder.path(), &mut Thief(folder.path().to_path_buf())).unwrap_err().to_string();
    assert!(error.contains("checkpoints") && error.contains("cannot"), "{error}");
    assert!(!folder.path().join("summary.json").exists());
    let kept = gatefold_runner::checkpoint::latest(&folder.path().join("gone")).unwrap();
    assert!(kept.snapshot.header.env_steps >= 16, "what was saved before is whole");
}
