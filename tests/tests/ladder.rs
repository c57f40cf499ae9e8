//! The fallback ladder in whole runs: what each rung does to a policy, and that nothing else happens.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use gatefold_curriculum::Rung;
use gatefold_runner::checkpoint::{self, NamedTensor};
use gatefold_runner::events::{Event, Happening, Reporter, RunEvent, Silent};
use gatefold_runner::{ExperimentConfig, RunOptions, StepFrom, apply_rung, layers, resume, train};
use gatefold_tests::camp;

/// Steps of all environments in one iteration.
const STEPS: u64 = 96;

/// Sparse routing at a low temperature, and segments; nothing is judged.
const CALM: &str = r#"
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
const STORMY: &str = r#"
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

fn config(text: &str, overrides: &[String]) -> ExperimentConfig {
    layers::resolve("test", text, overrides, &[camp::ENTRY]).unwrap_or_else(|e| panic!("{e}"))
}

fn options(run: &Path) -> RunOptions {
    RunOptions { run_dir: Some(run.to_path_buf()), threads: 1, ..RunOptions::default() }
}

/// Tensors by path.
type Tensors = BTreeMap<String, NamedTensor>;

/// The learned state of one checkpoint.
#[derive(Clone)]
struct Saved {
    policy: Tensors,
    moments: Tensors,
}

struct Ran {
    /// By iterations done.
    saved: Vec<Saved>,
    /// The line of each iteration.
    metrics: Vec<serde_json::Value>,
    happened: Vec<RunEvent>,
}

/// Without what is kept aside: the healthy state and parked experts.
fn present(tensors: Vec<NamedTensor>) -> Tensors {
    tensors.into_iter().filter(|t| !t.path.contains(':')).map(|t| (t.path.clone(), t)).collect()
}

#[derive(Default)]
struct Happenings(Vec<RunEvent>);

impl Reporter for Happenings {
    fn event(&mut self, event: &Event) {
        if let Event::Happened(event) = event {
            self.0.push(event.clone());
        }
    }
}

fn ran(text: &str, overrides: &[String]) -> Ran {
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

fn bits(tensor: &NamedTensor) -> (&[usize], Vec<u32>) {
    (&tensor.shape, tensor.data.iter().map(|x| x.to_bits()).collect())
}

/// Paths whose tensors are not the same bit for bit.
fn differing(a: &Tensors, b: &Tensors) -> Vec<String> {
    let same = |path: &String| a.get(path).map(bits) == b.get(path).map(bits);
    let mut paths: Vec<_> = a.keys().chain(b.keys()).filter(|path| !same(path)).cloned().collect();
    paths.dedup();
    paths
}

fn parts(paths: &[String]) -> Vec<&str> {
    let mut parts: Vec<_> = paths.iter().map(|path| path.split('.').next().expect("a name")).collect();
    parts.dedup();
    parts.sort_unstable();
    parts.dedup();
    parts
}

/// Entry `k` of each of `kept` along the first axis of experts, or the last one of a router.
fn kept(tensor: &NamedTensor, kept: &[usize]) -> NamedTensor {
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
fn is_per_expert(tensor: &NamedTensor) -> bool {
    let experts = tensor.path.starts_with("head.") && !tensor.path.ends_with("/steps");
    experts || tensor.path.starts_with("router.") && tensor.shape.last() == Some(&4)
}

/// `survival` and `general` of the four experts.
const KEPT: [usize; 2] = [0, 3];

/// The policy's tensors as `fewer-experts` leaves them.
fn narrowed(tensors: &Tensors) -> Tensors {
    let one = |t: &NamedTensor| if is_per_expert(t) { kept(t, &KEPT) } else { t.clone() };
    tensors.iter().map(|(path, tensor)| (path.clone(), one(tensor))).collect()
}

fn number(metrics: &serde_json::Value, name: &str) -> f64 {
    metrics[name].as_f64().unwrap_or_else(|| panic!("{name} is {}", metrics[name]))
}

fn at_start(rung: Rung) -> Ran {
    ran(CALM, &[format!("ladder.start={rung}")])
}

#[test]
fn each_rung_set_by_hand_has_its_effects_and_those_of_the_rungs_above() {
    let full = at_start(Rung::Full);
    for rung in Rung::ALL {
        let run = at_start(rung);
        let (first, last) = (&run.saved[0], run.saved.last().expect("checkpoints"));
        let moved = parts(&differing(&first.policy, &last.policy)).join(" ");
        let graph = if rung >= Rung::FreezeGat { "" } else { "graph " };
        assert_eq!(moved, format!("actor_trunk critic_trunk {graph}head router value"), "{rung}");
        assert!(run.metrics.iter().all(|line| number(line, "ladder/rung") == rung.index() as f64));

        let line = run.metrics.last().expect("iterations");
        let support = number(line, "router/support");
        match rung {
            Rung::Full | Rung::FreezeGat => assert!(support < 3.0, "{rung}: sparsemax at {support}"),
            Rung::SoftmaxOnly => assert_eq!(support, 4.0, "{rung}"),
            Rung::FewerExperts => assert_eq!(support, 2.0, "{rung}"),
            Rung::V2Routing => assert_eq!(support, 1.0, "{rung}"),
        }
        let usage = |expert: &str| line[format!("router/usage/{expert}")].as_f64();
        let all = ["survival", "combat", "exploration", "general"].map(usage);
        assert_eq!(all[1].is_some() && all[2].is_some(), rung < Rung::FewerExperts, "{rung}: {all:?}");
        let sum: f64 = all.iter().flatten().sum();
        assert!((sum - 1.0).abs() < 1e-6, "{rung}: gates sum to {sum}");
        for line in &run.metrics {
            assert!(number(line, "train/ratio_deviation_first") <= 1e-5, "{rung}");
        }

        let start = &full.saved[0];
        let expected =
            if rung >= Rung::FewerExperts { narrowed(&start.policy) } else { start.policy.clone() };
        let fresh = parts(&differing(&first.policy, &expected)).join(" ");
        assert_eq!(fresh, if rung == Rung::V2Routing { "router" } else { "" }, "{rung}");
    }
}

#[test]
fn a_rung_that_changes_nothing_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let overrides = ["ladder.start=fewer-experts", "policy.experts=[\"survival\", \"general\"]"];
    let config = config(CALM, &overrides.map(String::from));
    let error = train(&config, &options(&run), &[camp::ENTRY], &mut Silent).unwrap_err().to_string();
    assert!(error.contains("fewer-experts") && error.contains("softmax-only"), "{error}");
    assert!(!run.exists());
}

#[test]
fn rungs_set_by_hand_take_and_give_back_whatever_the_way() {
    use Rung::{FewerExperts, FreezeGat, Full, V2Routing};
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let entries = [camp::ENTRY];
    let overrides = ["losses.load_balance=bias", "curriculum.routing=top-k"].map(String::from);
    train(&config(CALM, &overrides), &options(&run), &entries, &mut Silent).unwrap();
    let newest = |run: &Path| present(checkpoint::open(run).unwrap().snapshot.policy);
    let whole = newest(&run);
    let ways: [&[Rung]; 6] = [
        &[FewerExperts, Full],
        &[V2Routing, Full],
        &[FewerExperts, V2Routing, Full],
        &[FewerExperts, V2Routing, FewerExperts, Full],
        &[V2Routing, FewerExperts, FreezeGat, Full],
        &[FewerExperts, Full, V2Routing, FewerExperts, Full],
    ];
    for (i, way) in ways.into_iter().enumerate() {
        let copy = folder.path().join(format!("copy{i}"));
        copy_folder(&run, &copy);
        for &rung in way {
            apply_rung(&copy, rung, StepFrom::Present, None, &options(&copy), &entries, &mut Silent).unwrap();
            let now = newest(&copy);
            let expected = if rung >= FewerExperts { narrowed(&whole) } else { whole.clone() };
            let fresh = parts(&differing(&now, &expected)).join(" ");
            assert_eq!(fresh, if rung == V2Routing { "router" } else { "" }, "{rung} of {way:?}");
        }
        let more = ["run.total_steps=480".to_string()];
        resume(&copy, &more, &options(&copy), &entries, &mut Silent).unwrap();
        assert!(parts(&differing(&newest(&copy), &whole)).contains(&"graph"), "{way:?}: it learns again");
    }
}

#[test]
fn a_step_by_hand_begins_with_the_present_weights_or_with_the_last_healthy_ones() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let entries = [camp::ENTRY];
    let overrides = [
        "run.total_steps=384",
        "ladder.automatic=false",
        "curriculum.warmup_until=1.0",
        "curriculum.transition_until=1.0",
    ];
    train(&config(STORMY, &overrides.map(String::from)), &options(&run), &entries, &mut Silent).unwrap();
    // The first window is full after the second iteration, which is unhealthy already.
    for (from, iteration) in [(StepFrom::Present, 4), (StepFrom::LastHealthy, 1)] {
        let copy = folder.path().join(format!("from-{iteration}"));
        let mut told = Happenings::default();
        let change =
            apply_rung(&run, Rung::FreezeGat, from, Some(&copy), &options(&copy), &entries, &mut told);
        assert_eq!(change.unwrap().env_steps, 384, "counters are those of the checkpoint");
        let expected = checkpoint::open(&run.join(format!("checkpoints/step-{:012}", STEPS * iteration)));
        let now = checkpoint::open(&copy).unwrap().snapshot;
        let expected = expected.unwrap().snapshot;
        assert_eq!(differing(&present(expected.policy), &present(now.policy)), Vec::<String>::new());
        assert_eq!(differing(&present(expected.optimizer), &present(now.optimizer)), Vec::<String>::new());
        let back = told.0.iter().filter_map(|event| match event.what {
            Happening::RolledBack { to_env_step, .. } => Some(to_env_step),
            _ => None,
        });
        let expected = if from == StepFrom::LastHealthy { vec![STEPS] } else { vec![] };
        assert_eq!(back.collect::<Vec<_>>(), expected);
    }
}

/// A step of the ladder: iterations done when it was made, the rungs, and the iteration of the state
/// that it started from.
struct Step {
    at: usize,
    from: String,
    to: String,
    by: String,
    evidence: String,
    base: usize,
}

fn steps(run: &Ran) -> Vec<Step> {
    let mut base = None;
    let mut steps = Vec::new();
    for RunEvent { iteration, what, .. } in &run.happened {
        match what {
            Happening::RolledBack { to_env_step, .. } => base = Some((to_env_step / STEPS) as usize),
            Happening::LadderStep { from, to, by, evidence } => {
                let (from, to, by, evidence) = (from.clone(), to.clone(), by.clone(), evidence.clone());
                let at = *iteration as usize;
                steps.push(Step { at, from, to, by, evidence, base: base.take().unwrap_or(at) });
            }
            _ => (),
        }
    }
    steps
}

#[test]
fn lasting_trouble_leads_down_every_rung_from_the_last_healthy_state_and_lasting_health_back_up() {
    let run = ran(STORMY, &[]);
    let steps = steps(&run);
    let names: Vec<String> = Rung::ALL.iter().map(ToString::to_string).collect();
    let down = names.windows(2).map(|pair| (pair[0].as_str(), pair[1].as_str(), "monitors"));
    let up = names.windows(2).rev().map(|pair| (pair[1].as_str(), pair[0].as_str(), "recovery"));
    let expected: Vec<_> = down.chain(up).collect();
    let told: Vec<_> = steps.iter().map(|s| (s.from.as_str(), s.to.as_str(), s.by.as_str())).collect();
    assert_eq!(told, expected);
    for step in &steps[..4] {
        assert!(step.evidence.starts_with("2 unhealthy iterations in a row"), "{}", step.evidence);
        assert!(step.evidence.contains("approx-kl"), "{}", step.evidence);
        assert_eq!(step.base, step.at - 2, "the last healthy state is from before two unhealthy ones");
    }
    for step in &steps[4..] {
        assert_eq!(step.evidence, "3 healthy iterations in a row");
    }
    let [freeze, softmax, fewer, v2, to_fewer, to_softmax, to_freeze, to_full] = &steps[..] else {
        panic!("eight steps")
    };

    // Steps that change no shape return to the healthy state, whole.
    for step in [freeze, softmax] {
        let (base, after) = (&run.saved[step.base], &run.saved[step.at]);
        assert_eq!(differing(&base.policy, &after.policy), Vec::<String>::new(), "{}", step.to);
        assert_eq!(differing(&base.moments, &after.moments), Vec::<String>::new(), "{}", step.to);
    }
    let graph = |saved: &Saved| -> Vec<NamedTensor> {
        saved.policy.values().filter(|t| t.path.starts_with("graph.")).cloned().collect()
    };
    for saved in &run.saved[freeze.at..=to_full.at] {
        assert_eq!(graph(saved), graph(&run.saved[freeze.base]), "held fixed");
    }
    assert_ne!(graph(&run.saved[0]), graph(&run.saved[1]), "it learned before");
    assert_ne!(graph(run.saved.last().unwrap()), graph(&run.saved[to_full.at]), "and learns again");

    // Two experts stay, with weights and moments; the router's moments start anew.
    let (base, after) = (&run.saved[fewer.base], &run.saved[fewer.at]);
    assert_eq!(differing(&narrowed(&base.policy), &after.policy), Vec::<String>::new());
    let fresh = differing(&narrowed(&base.moments), &after.moments);
    assert_eq!(parts(&fresh), ["router"]);
    let router = after.moments.values().filter(|t| t.path.starts_with("router."));
    assert!(router.flat_map(|t| &t.data).all(|&x| x == 0.0), "fresh moments are 0");
    let told = run.metrics[fewer.at..v2.at].iter();
    for line in told.chain(&run.metrics[to_fewer.at..to_softmax.at]) {
        let sum = number(line, "router/usage/survival") + number(line, "router/usage/general");
        assert!((sum - 1.0).abs() < 1e-6, "gates of the two sum to {sum}");
        assert_eq!(number(line, "router/support"), 2.0, "softmax routes");
    }

    // A fresh router reads two features and h_graph, and one expert acts.
    let (base, after) = (&run.saved[v2.base], &run.saved[v2.at]);
    assert_eq!(parts(&differing(&base.policy, &after.policy)), ["router"]);
    assert_eq!(parts(&differing(&base.moments, &after.moments)), ["router"]);
    let widest = after.policy.values().filter(|t| t.path.starts_with("router.")).map(|t| t.shape[0]).max();
    let before = base.policy.values().filter(|t| t.path.starts_with("router.")).map(|t| t.shape[0]).max();
    assert_eq!((before, widest), (Some(16 + 8), Some(16)), "2 + 8 are read, into 16");
    for line in &run.metrics[v2.at..to_fewer.at] {
        assert_eq!((number(line, "router/entropy"), number(line, "router/support")), (0.0, 1.0));
    }

    // On the way back the rate is 0: what is not put back stays as it is.
    let router = |saved: &Saved| -> Vec<NamedTensor> {
        saved.policy.values().filter(|t| t.path.starts_with("router.")).cloned().collect()
    };
    let (before, after) = (&run.saved[to_fewer.at - 1], &run.saved[to_fewer.at]);
    assert_eq!(parts(&differing(&before.policy, &after.policy)), ["router"]);
    assert_eq!(router(after), router(&run.saved[v2.base]), "the router that was taken away");

    let (before, after) = (&run.saved[to_softmax.at - 1], &run.saved[to_softmax.at]);
    assert_eq!(differing(&narrowed(&after.policy), &before.policy), Vec::<String>::new());
    let taken = &run.saved[fewer.base].policy;
    for tensor in after.policy.values().filter(|t| is_per_expert(t)) {
        let (back, parked) = (kept(tensor, &[1, 2]), kept(&taken[&tensor.path], &[1, 2]));
        assert_eq!(bits(&back), bits(&parked), "{} of the experts that were taken away", tensor.path);
    }
    for step in [to_freeze, to_full] {
        let (before, after) = (&run.saved[step.at - 1], &run.saved[step.at]);
        assert_eq!(differing(&before.policy, &after.policy), Vec::<String>::new(), "{}", step.to);
    }
}

/// Hash of the final state and the metrics without the clock's.
fn outcome(run: &Path) -> (String, Vec<serde_json::Map<String, serde_json::Value>>) {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| {
        let mut metrics: serde_json::Map<_, _> = serde_json::from_str(line).unwrap();
        metrics.retain(|name, _| !name.starts_with("time/"));
        metrics
    });
    (checkpoint::hash(run).unwrap(), lines.collect())
}

/// Copies the run directory at every checkpoint: what a SIGKILL at that moment leaves behind.
struct Copies {
    run: PathBuf,
    to: PathBuf,
    taken: Vec<(u64, PathBuf)>,
}

impl Reporter for Copies {
    fn event(&mut self, event: &Event) {
        if let Event::CheckpointSaved { step, best: false, .. } = event {
            let copy = self.to.join(format!("at-{step}"));
            copy_folder(&self.run, &copy);
            self.taken.push((*step, copy));
        }
    }
}

/// The writer goes on meanwhile: a folder that it renames has vanished, as it would for the kill.
fn copy_folder(from: &Path, to: &Path) {
    let vanished = |e: std::io::Error| assert_eq!(e.kind(), std::io::ErrorKind::NotFound, "{e}");
    fs::create_dir_all(to).unwrap();
    let entries = fs::read_dir(from).map(|entries| entries.map(Result::unwrap).collect::<Vec<_>>());
    for entry in entries.map_err(vanished).unwrap_or_default() {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_folder(&source, &target);
        } else {
            fs::copy(source, target).map(drop).unwrap_or_else(vanished);
        }
    }
}

#[test]
fn a_run_resumed_before_at_or_after_any_step_equals_one_that_never_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("whole");
    let mut copies = Copies { run: run.clone(), to: folder.path().join("copies"), taken: Vec::new() };
    train(&config(STORMY, &[]), &options(&run), &[camp::ENTRY], &mut copies).unwrap();
    let whole = outcome(&run);
    let rungs: Vec<f64> = whole.1.iter().map(|line| line["ladder/rung"].as_f64().unwrap()).collect();
    let changes = rungs.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert_eq!(changes, 8, "{rungs:?}");
    assert_eq!(copies.taken.len(), rungs.len() + 1, "before, at and after every step");
    for (step, copy) in &copies.taken {
        resume(copy, &["run.checkpoint_every=1000".to_string()], &options(copy), &[camp::ENTRY], &mut Silent)
            .unwrap();
        assert_eq!(outcome(copy), whole, "resumed from step {step}");
    }
}
