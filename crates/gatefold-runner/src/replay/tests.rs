//! An update that explodes by itself, dumped and run again.

use std::fs;
use std::path::Path;

use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use gatefold_curriculum::Progress;
use gatefold_env::{
    Action, EnvError, EnvSpec, Environment, EpisodeEnd, NoOptions, ObservationView, StreamRng, Transition,
};
use gatefold_policy::Shape;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::*;
use crate::assembly::Parts;
use crate::dump::{Dump, write_dump};
use crate::layers;

type B = Autodiff<Flex>;

/// A number is shown; naming its sign pays.
#[derive(Clone, Serialize, Deserialize)]
struct Sign {
    shown: f32,
}

impl Environment for Sign {
    type Config = NoOptions;

    fn new(_: &NoOptions) -> Result<Self, EnvError> {
        Ok(Self { shown: 1.0 })
    }

    fn spec(&self) -> EnvSpec {
        EnvSpec::new(1, 3)
    }

    fn reset(&mut self, rng: &mut StreamRng) {
        self.shown = rng.random_range(-1.0..1.0);
    }

    fn step(&mut self, action: Action, rng: &mut StreamRng) -> Transition {
        let right = (action.index() == 1) == (self.shown > 0.0);
        self.reset(rng);
        let end = (self.shown > 0.5).then_some(EpisodeEnd::Terminated);
        Transition { reward: f32::from(u8::from(right)), score: 0.0, end }
    }

    fn observe(&self, view: &mut ObservationView<'_>) {
        view.features[0] = self.shown;
    }
}

const ENTRIES: [EnvEntry; 1] = [EnvEntry::new::<Sign>("sign", "name a sign")];

/// A learning rate of 1000 through deep trunks: the second or third step leaves single precision.
const EXPLOSIVE: &str = r#"
    about = "a test"
    [env]
    name = "sign"
    [run]
    num_envs = 4
    total_steps = 512
    [policy]
    trunk = [8, 8, 8, 8, 8, 8]
    expert_hidden = [8]
    router_hidden = [8]
    [ppo]
    num_steps = 16
    minibatch = 16
    [curriculum]
    lr_scale = 1000.0
    lr_warmup_steps = 0
    [curriculum.warmup]
    lr = 1.0
"#;

fn on(threads: usize) -> RunOptions {
    RunOptions { threads, ..RunOptions::default() }
}

/// Trains until an update fails, and dumps it: with the first seed whose trunks do not die before.
fn exploded(run: &Path, shape: Shape, fault: Option<&str>) -> (PathBuf, UpdateError) {
    let failed = (1..20).find_map(|seed| explode(run, seed, &shape, fault));
    failed.expect("a learning rate of 1000 does harm")
}

fn explode(run: &Path, seed: u64, shape: &Shape, fault: Option<&str>) -> Option<(PathBuf, UpdateError)> {
    let overrides = [format!("run.seed={seed}")];
    let config = layers::resolve("test", EXPLOSIVE, &overrides, &ENTRIES).unwrap_or_else(|e| panic!("{e}"));
    let device = Default::default();
    let mut parts = Parts::<B>::new(&config, &ENTRIES, &device).unwrap();
    let settings = shape.apply(&config.policy);
    let spec = parts.collector.spec().clone();
    let mut rng = stream(config.run.seed, Purpose::Initialisation, 0);
    let mut policy = ActorCritic::<B>::new(&settings, &spec, &mut rng, &device).unwrap();
    let mut optimizer = AdamW::new::<B, _>(config.optimizer.clone(), &policy);
    parts.learner.experts = settings.experts;
    let (mut env_steps, mut optimizer_steps) = (0, 0);
    for iteration in 0..20 {
        let plan = parts.curriculum.plan(Progress { env_steps, total_steps: 512, episodes: 0 });
        let mut rng = stream(config.run.seed, Purpose::Actions, iteration);
        let rollout = parts.collector.collect(&policy.valid(), &plan, &[], &mut rng, &device).unwrap();
        env_steps += rollout.rewards.len() as u64;
        let rewards = rollout.rewards.clone();
        let batch = rollout.into_batch(&rewards, config.ppo.gamma, config.ppo.gae_lambda);
        let before = (optim::export::<B, _>(&policy), optimizer.export(), optimizer_steps);
        let mut rng = stream(config.run.seed, Purpose::Shuffle, iteration);
        let learner = &parts.learner;
        match learner.update(policy, &mut optimizer, &batch, &plan, &mut optimizer_steps, &mut rng, &device) {
            Ok(updated) => policy = updated.policy,
            Err(failure) => {
                let dump = Dump {
                    config: &config,
                    shape,
                    iterations_before: iteration,
                    env_steps,
                    optimizer_steps: before.2,
                    plan: &plan,
                    policy: before.0,
                    optimizer: before.1,
                    batch: &batch,
                    failure: &failure,
                    fault: fault.map(String::from),
                };
                return Some((write_dump(run, &dump).unwrap(), failure));
            }
        }
    }
    None
}

#[test]
fn an_explosion_is_reproduced_bit_for_bit_on_any_number_of_threads_and_at_any_rung() {
    let lower = Shape { kept: Some(vec![0, 3]), routes_anew: true, ..Shape::default() };
    for shape in [Shape::default(), lower] {
        let run = tempfile::tempdir().unwrap();
        let (path, failure) = exploded(run.path(), shape, None);
        for threads in [1, 2] {
            let replay = replay_update(&path, &on(threads), &ENTRIES).unwrap_or_else(|e| panic!("{e}"));
            assert!(replay.reproduced(), "{failure:?}\n{replay:?}");
            assert!(same_bits(&replay.recorded, &failure), "the dump tells what happened");
            let text = replay.to_string();
            assert!(
                text.ends_with("Reproduced bit for bit.") && text.contains(&failure.to_string()),
                "{text}"
            );

            let at = |error: &UpdateError| {
                let UpdateError::NonFinite { epoch, minibatch, .. } = error;
                (*epoch, *minibatch)
            };
            let first = replay.first.expect("looking harder finds something, too");
            assert!(at(&first) <= at(&failure), "{first} comes after {failure}");
        }
    }
}

#[test]
fn the_dump_tells_a_person_which_rows_failed() {
    let run = tempfile::tempdir().unwrap();
    let (path, failure) = exploded(run.path(), Shape::default(), None);
    let text = fs::read_to_string(path.join("dump.json")).unwrap();
    let sheet: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(sheet["what_happened"], failure.to_string());
    let UpdateError::NonFinite { rows, .. } = failure;
    assert_eq!(rows.len(), 16, "a minibatch of 16 rows");
    let told = sheet["minibatch_rows_as_step_and_environment"].as_str().unwrap();
    let told: Vec<usize> = told
        .split(' ')
        .map(|place| {
            let (step, env) = place.split_once('/').unwrap();
            step.parse::<usize>().unwrap() * 4 + env.parse::<usize>().unwrap()
        })
        .collect();
    assert_eq!(told, rows);
    assert!(sheet["plan"]["temperature"].is_number() && sheet["injected_fault"].is_null(), "{text}");
}

#[test]
fn a_replay_that_does_not_reproduce_says_so_and_why() {
    let run = tempfile::tempdir().unwrap();
    let (path, failure) = exploded(run.path(), Shape::default(), Some("NaN at loss/ppo"));
    // A dump of another moment, as if the fault had made a harmless update fail.
    let loaded = dump::load(&path, &ENTRIES).unwrap();
    let mut plan = loaded.state.plan;
    plan.learning_rate.phase_rate = 0.0;
    let calm = Dump {
        config: &loaded.config,
        shape: &loaded.state.shape,
        iterations_before: loaded.header.iterations_before,
        env_steps: loaded.header.env_steps,
        optimizer_steps: loaded.header.optimizer_steps,
        plan: &plan,
        policy: loaded.policy,
        optimizer: loaded.optimizer,
        batch: &loaded.batch,
        failure: &failure,
        fault: loaded.state.fault,
    };
    let path = write_dump(run.path(), &calm).unwrap();
    let replay = replay_update(&path, &on(1), &ENTRIES).unwrap();
    assert!(!replay.reproduced());
    let text = replay.to_string();
    assert!(text.contains("NOT reproduced") && text.contains("NaN at loss/ppo"), "{text}");
}

#[test]
fn only_the_newest_five_dumps_are_kept_and_damage_is_found() {
    let run = tempfile::tempdir().unwrap();
    let (path, failure) = exploded(run.path(), Shape::default(), None);
    let loaded = dump::load(&path, &ENTRIES).unwrap();
    for iteration in 99..106 {
        let dump = Dump {
            config: &loaded.config,
            shape: &loaded.state.shape,
            iterations_before: iteration,
            env_steps: 1,
            optimizer_steps: 1,
            plan: &loaded.state.plan,
            policy: Vec::new(),
            optimizer: Vec::new(),
            batch: &loaded.batch,
            failure: &failure,
            fault: None,
        };
        write_dump(run.path(), &dump).unwrap();
    }
    let folder = run.path().join("dumps");
    let names: Vec<_> = dump::list(&folder).unwrap();
    let names: Vec<_> = names.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, [106, 105, 104, 103, 102].map(|i| format!("iteration-000{i}")));

    let newest = folder.join("iteration-000106");
    let error = replay_update(&newest, &on(1), &ENTRIES).unwrap_err().to_string();
    assert!(error.contains("policy: the saved state lacks"), "{error}");
    let bytes = fs::read(newest.join("batch.safetensors")).unwrap();
    fs::write(newest.join("batch.safetensors"), &bytes[1..]).unwrap();
    let error = replay_update(&newest, &on(1), &ENTRIES).unwrap_err().to_string();
    assert!(error.contains("batch.safetensors has"), "{error}");

    let error = replay_update(run.path(), &on(1), &ENTRIES).unwrap_err().to_string();
    assert!(error.contains("not a dump") && error.contains("iteration-000106"), "{error}");
}
