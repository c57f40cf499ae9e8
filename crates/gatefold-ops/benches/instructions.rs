//! Instructions of the hot kernels, counted by valgrind: `cargo bench -p gatefold-ops --bench instructions`.
//!
//! A count does not depend on what else a machine does, so that a change of one in a hundred shows where
//! clocks are noise. It is no time: misses of the cache and the width of vectors do not show. Each kernel
//! runs in a process of its own, once to warm up and then one or three times more; half the difference is
//! one call.
//!
//! | argument after `--` | does |
//! |---|---|
//! | a word | counts only kernels whose name has it |
//! | `--save FILE` | writes the counts |
//! | `--baseline FILE` | tells the change from saved counts; exit code 1 if one rose by more than 1 % |
//!
//! valgrind knows no AVX-512, so counts are of the AVX2 level at most, or of what `GATEFOLD_SIMD` names.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::collections::HashMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use burn::backend::{Autodiff, Flex};
use burn::tensor::{Int, Tensor, TensorData};
use gatefold_ops::{
    Activation, ActivePairs, AdamwStep, FlatMlp, GatEdges, GatHeads, GatRows, GatScoring, MlpLayer, Network,
    OpsBackend, PpoBatch, PpoData, PpoLossConfig, PpoRows, adamw_step, flat_ppo_loss, gat_layer, mlp, pack,
    packed_expert_linear, packed_mix, ppo_loss, simd_level, sparsemax,
};

type Train = Autodiff<Flex>;

/// A rise above this, in percent, fails a comparison.
const LIMIT: f64 = 1.0;

/// A kernel ready to be called.
type Kernel = Box<dyn FnMut()>;

/// Makes a kernel and its inputs.
type Make = fn() -> Kernel;

const KERNELS: [(&str, Make); 9] = [
    ("mlp 64 x 4-64-64-2, forward and back", mlp_of_cartpole),
    ("ppo_loss 64 x 2, forward and back", ppo_loss_of_64),
    ("flat_ppo_loss 64 x 4-64-64-{2, 1}, forward and back", flat_ppo_loss_of_64),
    ("adamw 64 x 64", adamw_of_4096),
    ("sparsemax 4096 x 4, forward and back", sparsemax_of_four),
    ("gat_layer 8 grids of 8 x 8, forward and back", || gat(64)),
    ("gatv2 8 grids of 8 x 8, forward and back", || gat(128)),
    ("experts 256 x 128-128, 2 of 4, forward and back", || experts(4)),
    ("experts 256 x 128-128, 2 of 64, forward and back", || experts(64)),
];

fn main() -> ExitCode {
    let asked = Asked::from_arguments();
    if let Some((kernel, calls)) = &asked.run {
        run(kernel, *calls);
        return ExitCode::SUCCESS;
    }
    asked.count().unwrap_or_else(|message| {
        eprintln!("{message}");
        ExitCode::FAILURE
    })
}

/// The process that valgrind watches. Its only thread is rayon's only worker: nobody waits for another.
fn run(name: &str, calls: usize) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread();
    pool.build_global().expect("nothing has used the pool yet");
    let (_, kernel) = KERNELS.iter().find(|(kernel, _)| *kernel == name).expect("a kernel of the table");
    let mut kernel = kernel();
    for _ in 0..=calls {
        kernel();
    }
    println!("{}", simd_level());
}

#[derive(Default)]
struct Asked {
    /// Of the process that valgrind watches: kernel, and calls beside the one that warms up.
    run: Option<(String, usize)>,
    word: String,
    save: Option<PathBuf>,
    baseline: Option<PathBuf>,
}

impl Asked {
    fn from_arguments() -> Self {
        let (mut asked, mut arguments) = (Self::default(), env::args().skip(1));
        while let Some(argument) = arguments.next() {
            let mut next = || arguments.next().unwrap_or_else(|| panic!("{argument}: its value is missing"));
            match argument.as_str() {
                "--bench" => {} // from cargo
                "--save" => asked.save = Some(next().into()),
                "--baseline" => asked.baseline = Some(next().into()),
                "--run" => asked.run = Some((next(), next().parse().expect("a number of calls"))),
                _ => asked.word = argument,
            }
        }
        asked
    }

    fn count(&self) -> Result<ExitCode, String> {
        let before = self.baseline.as_deref().map(read).transpose()?;
        let (mut saved, mut risen) = (String::new(), false);
        for (name, _) in KERNELS.iter().filter(|(name, _)| name.contains(&self.word)) {
            let ((one, level), (three, _)) = (under_valgrind(name, 1)?, under_valgrind(name, 3)?);
            let count = (three - one) / 2;
            saved += &format!("{count}\t{level}\t{name}\n");
            let key = format!("{level}\t{name}");
            let change = match before.as_ref().map(|counts| counts.get(&key)) {
                None => String::new(),
                Some(None) => "  not in the baseline".to_string(),
                Some(Some(&then)) => {
                    let percent = 100.0 * (count as f64 / then as f64 - 1.0);
                    risen |= percent > LIMIT;
                    format!("  {percent:+.2} %")
                }
            };
            println!("{count:>12}  {level:8}  {name}{change}");
        }
        if let Some(path) = &self.save {
            fs::write(path, saved).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        if risen {
            return Err(format!("a count rose by more than {LIMIT} %"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Counts by level and kernel, as `--save` wrote them.
fn read(path: &Path) -> Result<HashMap<String, u64>, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let line = |line: &str| {
        let (count, key) = line.split_once('\t')?;
        Some((key.to_string(), count.parse().ok()?))
    };
    let counts: Option<_> = text.lines().map(line).collect();
    counts.ok_or_else(|| format!("{}: need lines of a count, a level and a kernel", path.display()))
}

/// Instructions of a whole process, and its SIMD level.
fn under_valgrind(kernel: &str, calls: usize) -> Result<(u64, String), String> {
    let own = env::current_exe().map_err(|e| e.to_string())?;
    let found = env::temp_dir().join(format!("gatefold-callgrind-{}", std::process::id()));
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", found.display()))
        .arg(own)
        .args(["--run", kernel, &calls.to_string()])
        .output()
        .map_err(|e| {
            format!("valgrind: {e}. Instructions are counted by it: install it, as by `apt install valgrind`")
        })?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{kernel}: valgrind ended with {}\n{told}", output.status));
    }
    let profile = fs::read_to_string(&found).map_err(|e| format!("{}: {e}", found.display()))?;
    let _ = fs::remove_file(&found);
    let total =
        profile.lines().find_map(|line| line.strip_prefix("summary: ").or(line.strip_prefix("totals: ")));
    let total = total.and_then(|total| total.trim().parse().ok());
    let total = total.ok_or_else(|| format!("{kernel}: callgrind's output has no total\n{told}"))?;
    Ok((total, String::from_utf8_lossy(&output.stdout).trim().to_string()))
}

/// Numbers in [-1, 1) that look random, scaled.
fn tensor<B: OpsBackend, const D: usize>(shape: [usize; D], scale: f32) -> Tensor<B, D> {
    let number = |i: usize| scale * (((i * 7919) % 1999) as f32 / 1000.0 - 1.0);
    let data = TensorData::new((0..shape.iter().product()).map(number).collect(), shape);
    Tensor::from_data(data, &Default::default())
}

fn leaf<const D: usize>(shape: [usize; D], scale: f32) -> Tensor<Train, D> {
    tensor(shape, scale).require_grad()
}

fn mlp_of_cartpole() -> Kernel {
    let x: Tensor<Train, 2> = tensor([64, 4], 1.0);
    let widths = [4, 64, 64, 2];
    let layers: Vec<_> = (0..3)
        .map(|i| MlpLayer {
            weight: leaf([widths[i], widths[i + 1]], 0.2),
            bias: leaf([widths[i + 1]], 0.1),
            activation: if i < 2 { Activation::Tanh } else { Activation::Identity },
        })
        .collect();
    Box::new(move || drop(black_box(mlp(x.clone(), layers.clone()).sum().backward())))
}

/// The recorded side of 64 rows of two actions.
fn minibatch() -> PpoBatch<Train> {
    let rows = 64;
    let actions = TensorData::new((0..rows as i32).map(|i| i % 2).collect(), [rows]);
    PpoBatch {
        actions: Tensor::<Train, 1, Int>::from_data(actions, &Default::default()),
        mask: None,
        old_log_probs: tensor([rows], 0.1) - 0.7,
        advantages: tensor([rows], 1.0),
        returns: tensor([rows], 1.0),
        old_values: tensor([rows], 1.0),
    }
}

const LOSS: PpoLossConfig =
    PpoLossConfig { clip: 0.2, value_clip: None, value_coef: 0.5, entropy_coef: 0.01 };

fn ppo_loss_of_64() -> Kernel {
    let (logits, values, batch) = (leaf([64, 2], 1.0), leaf([64], 1.0), minibatch());
    Box::new(move || {
        let (loss, _) = ppo_loss(logits.clone(), values.clone(), batch.clone(), &LOSS);
        drop(black_box(loss.backward()));
    })
}

fn flat_ppo_loss_of_64() -> Kernel {
    let mlps = [2, 1].map(|outputs| {
        let layers = [(64, Activation::Tanh), (64, Activation::Tanh), (outputs, Activation::Identity)];
        FlatMlp::new(4, layers.to_vec())
    });
    let mut parameters =
        mlps.each_ref().map(|mlp| tensor::<Flex, 1>([mlp.sizes().sum()], 0.2).into_primitive().tensor());
    let (data, places) = (PpoData::new(tensor([64, 4], 1.0), minibatch().inner()), Vec::from_iter(0..64));
    Box::new(move || {
        let [actor, critic] = &mut parameters;
        let actor = Network { mlp: &mlps[0], parameters: actor, step: None };
        let critic = Network { mlp: &mlps[1], parameters: critic, step: None };
        let minibatch = PpoRows { rows: &places, mean: 0.0, deviation: 1.0 };
        drop(black_box(flat_ppo_loss::<Train>(&data, &minibatch, actor, critic, &LOSS)));
    })
}

fn adamw_of_4096() -> Kernel {
    let gradient: Tensor<Flex, 2> = tensor([64, 64], 1.0);
    let zeros = Tensor::zeros([64, 64], &Default::default());
    let mut state = Some((tensor([64, 64], 1.0), zeros.clone(), zeros));
    let step = AdamwStep {
        lr: 3e-4,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-5,
        weight_decay: 0.0,
        grad_scale: 0.5,
        bias_correction1: 0.5,
        bias_correction2: 0.1,
    };
    Box::new(move || {
        let (parameter, first, second) = state.take().expect("the last step's");
        state = Some(adamw_step(parameter, gradient.clone(), first, second, &step));
    })
}

fn sparsemax_of_four() -> Kernel {
    let scores = leaf([4096, 4], 1.0);
    Box::new(move || {
        let gates = sparsemax(scores.clone(), 0.5).expect("no mask");
        drop(black_box(gates.sum().backward()));
    })
}

/// A grid of 8 x 8: self loops, and neighbours of four directions.
fn grid() -> GatEdges {
    let (mut offsets, mut sources, mut relations) = (vec![0], Vec::new(), Vec::new());
    for cell in 0..64i32 {
        for (relation, (down, right)) in [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)].into_iter().enumerate() {
            let (row, column) = (cell / 8 + down, cell % 8 + right);
            if (0..8).contains(&row) && (0..8).contains(&column) {
                sources.push((row * 8 + column) as u32);
                relations.push(u32::from(relation > 0));
            }
        }
        offsets.push(sources.len() as u32);
    }
    let count = sources.len();
    GatEdges::new(offsets, sources, relations, vec![0.0; count], (0..64).collect(), 64, 2).expect("a grid")
}

/// One layer of 4 heads of 16 on 8 grids, with norm and residual: GATv2 projects to twice the width.
fn gat(projected: usize) -> Kernel {
    let edges = grid();
    let (x, weight) = (leaf([8, 64, 64], 1.0), leaf([64, projected], 0.125));
    let [source, target, relation_bias] = [leaf([4, 16], 0.3), leaf([4, 16], 0.3), leaf([2, 4], 0.1)];
    let scoring = if projected == 64 {
        GatScoring::Gat { source, target, relation_bias }
    } else {
        GatScoring::Gatv2 { weight: source, relation_bias }
    };
    let norm = [leaf([64], 1.0), leaf([64], 0.1)];
    Box::new(move || {
        let rows = GatRows::Project { x: x.clone(), weight: weight.clone() };
        let (out, _) = gat_layer(rows, scoring.clone(), GatHeads::Concatenate, norm.clone(), &edges, 0.2);
        drop(black_box(out.square().mean().backward()));
    })
}

/// One layer of experts on packed pairs, two experts a row.
fn experts(count: usize) -> Kernel {
    let (x, weight, bias) = (leaf([256, 128], 1.0), leaf([count, 128, 128], 0.1), leaf([count, 128], 0.1));
    let mut gates = vec![0.0; 256 * count];
    for (row, gates) in gates.chunks_exact_mut(count).enumerate() {
        gates[row % count] = 0.5;
        gates[(row + 1) % count] = 0.5;
    }
    let data = TensorData::new(gates.clone(), [256, count]);
    let alpha = Tensor::<Train, 2>::from_data(data, &Default::default()).require_grad();
    Box::new(move || {
        let pairs = ActivePairs::from_gates(&gates, count);
        let packed = pack(x.clone(), &pairs);
        let y = packed_expert_linear(packed, weight.clone(), bias.clone(), Activation::Relu, &pairs);
        drop(black_box(packed_mix(alpha.clone(), y, &pairs).sum().backward()));
    })
}
