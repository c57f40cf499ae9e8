//! Runs that move on the ladder, and what is compared of their checkpoints.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use gatefold_runner::checkpoint::{self, NamedTensor};
use gatefold_runner::events::{Event, Reporter, RunEvent};
use gatefold_runner::{ExperimentConfig, RunOptions, layers, train};
use gatefold_tests::camp;

/// Steps of all environments in one iteration.
pub(crate) const STEPS: u64 = 96;

/// Sparse routing at a low temperature, and segments; nothing is judged.
pub(crate) const CALM: &str = r#"
    about = "ladder test"
    [env]
    name = "camp"
    [run]
    total_steps = 384
    num_envs = 6
    checkpoint_every = 1
    keep_checkpoints = 100
    [policy]
    trunk = [16]
    expert_hidden = [16]
    router_hidden = [16]
    action_gain = 1.0
    normalize_observations = true
    [policy.gat]
    hidden = 8
    heads = 2
    [ppo]
    num_steps = 16
    minibatch = 48
    epochs = 2
    [curriculum]
    lr_warmup_steps = 0
    lr_scale = 100.0
    warmup_until = 0.2
    transition_until = 0.4
    [curriculum.fine_tune]
    temperature = 0.02
    [eval]
    episodes = 1
    [monitors]
    enabled = false
"#;

/// Large steps alarm a strict monitor until the rate is 0, and do so again in the last iteration.
pub(crate) const STORMY: &str = r#"
    about = "ladder test"
    [env]
    name = "camp"
    [run]
    total_steps = 2880
    num_envs = 6
    checkpoint_every = 1
    keep_checkpoints = 100
    [policy]
    trunk = [16]
    expert_hidden = [16]
    router_hidden = [16]
    action_gain = 1.0
    [policy.gat]
    hidden = 8
    heads = 2
    [ppo]
    num_steps = 16
    minibatch = 48
    epochs = 2
    [curriculum]
    lr_warmup_steps = 0
    warmup_until = 0.46
    transition_until = 0.96
    [curriculum.warmup]
    lr = 3e-3
    [curriculum.transition]
    lr = 0.0
    [curriculum.fine_tune]
    lr = 3e-3
    [eval]
    episodes = 1
    [monitors]
    grace = 0
    short_window = 2
    approx_kl_warning = 1e-5
    approx_kl_alarm = 1e-5
    [ladder]
    patience = 2
    cooldown = 0
    reversible = true
    recovery = 3
"#;

pub(crate) fn config(text: &str, overrides: &[String]) -> ExperimentConfig {
    layers::resolve("test", text, overrides, &[camp::ENTRY]).unwrap_or_else(|e| panic!("{e}"))
}

pub(crate) fn options(run: &Path) -> RunOptions {
    RunOptions { run_dir: Some(run.to_path_buf()), threads: 1, ..RunOptions::default() }
}

/// Tensors by path.
pub(crate) type Tensors = BTreeMap<String, NamedTensor>;

/// The learned state of one checkpoint.
#[derive(Clone)]
pub(crate) struct Saved {
    pub(crate) policy: Tensors,
    pub(crate) moments: Tensors,
}

pub(crate) struct Ran {
    /// By iterations done.
    pub(crate) saved: Vec<Saved>,
    /// The line of each iteration.
    pub(crate) metrics: Vec<serde_json::Value>,
    pub(crate) happened: Vec<RunEvent>,
}

/// Without what is kept aside: the healthy state and parked experts.
pub(crate) fn present(tensors: Vec<NamedTensor>) -> Tensors {
    tensors.into_iter().filter(|t| !t.path.contains(':')).map(|t| (t.path.clone(), t)).collect()
}

#[derive(Default)]
pub(crate) struct Happenings(pub(crate) Vec<RunEvent>);

impl Reporter for Happenings {
    fn event(&mut self, event: &Event) {
        if let Event::Happened(event) = event {
            self.0.push(event.clone());
        }
    }
}

pub(crate) fn ran(text: &str, overrides: &[String]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let mut happened = Happenings::default();
    train(&config(text, overrides), &options(&run), &[camp::ENTRY], &mut happened).unwrap();
    let mut saved = checkpoint::list(&run.join("checkpoints")).unwrap();
    saved.sort();
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    Ran {
        saved: saved
            .into_iter()
            .enumerate()
            .map(|(i, (step, path))| {
                assert_eq!(step, i as u64 * STEPS, "a checkpoint of every iteration");
                let snapshot = checkpoint::load(&path).unwrap();
                Saved { policy: present(snapshot.policy), moments: present(snapshot.optimizer) }
            })
            .collect(),
        metrics: metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
        happened: happened.0,
    }
}

pub(crate) fn bits(tensor: &NamedTensor) -> (&[usize], Vec<u32>) {
    (&tensor.shape, tensor.data.iter().map(|x| x.to_bits()).collect())
}

/// Paths whose tensors are not the same bit for bit.
pub(crate) fn differing(a: &Tensors, b: &Tensors) -> Vec<String> {
    let same = |path: &String| a.get(path).map(bits) == b.get(path).map(bits);
    let mut paths: Vec<_> = a.keys().chain(b.keys()).filter(|path| !same(path)).cloned().collect();
    paths.dedup();
    paths
}

pub(crate) fn parts(paths: &[String]) -> Vec<&str> {
    let mut parts: Vec<_> = paths.iter().map(|path| path.split('.').next().expect("a name")).collect();
    parts.dedup();
    parts.sort_unstable();
    parts.dedup();
    parts
}

/// Entry `k` of each of `kept` along the first axis of experts, or the last one of a router.
pub(crate) fn kept(tensor: &NamedTensor, kept: &[usize]) -> NamedTensor {
    let data = if tensor.path.starts_with("head.") {
        let each: Vec<&[f32]> = tensor.data.chunks_exact(tensor.data.len() / tensor.shape[0]).collect();
        kept.iter().flat_map(|&k| each[k].to_vec()).collect()
    } else {
        let rows = tensor.data.chunks_exact(*tensor.shape.last().expect("an axis"));
        rows.flat_map(|row| kept.iter().map(|&k| row[k]).collect::<Vec<_>>()).collect()
    };
    let mut shape = tensor.shape.clone();
    let axis = if tensor.path.starts_with("head.") { 0 } else { shape.len() - 1 };
    shape[axis] = kept.len();
    NamedTensor { path: tensor.path.clone(), shape, data }
}

/// Whether a tensor has one entry per expert.
pub(crate) fn is_per_expert(tensor: &NamedTensor) -> bool {
    let experts = tensor.path.starts_with("head.") && !tensor.path.ends_with("/steps");
    experts || tensor.path.starts_with("router.") && tensor.shape.last() == Some(&4)
}

/// `survival` and `general` of the four experts.
pub(crate) const KEPT: [usize; 2] = [0, 3];

/// The policy's tensors as `fewer-experts` leaves them.
pub(crate) fn narrowed(tensors: &Tensors) -> Tensors {
    let one = |t: &NamedTensor| if is_per_expert(t) { kept(t, &KEPT) } else { t.clone() };
    tensors.iter().map(|(path, tensor)| (path.clone(), one(tensor))).collect()
}

pub(crate) fn number(metrics: &serde_json::Value, name: &str) -> f64 {
    metrics[name].as_f64().unwrap_or_else(|| panic!("{name} is {}", metrics[name]))
}
