//! Fused kernels beside their compositions: `cargo bench -p gatefold-ops`.

use burn::backend::{Autodiff, Flex};
use burn::tensor::{Int, Tensor, TensorData, TensorPrimitive};
use divan::{Bencher, black_box};
use gatefold_ops::{
    Activation, ActivePairs, AdamwStep, FlatGradient, FlatMlp, GatEdges, Network, OpsBackend, PpoBatch,
    PpoData, PpoLossConfig, PpoRows, adamw_in_place, adamw_step, composed, entmax15, expert_linear,
    flat_ppo_loss, gat_attention, linear, norm_relu, pack, packed_expert_linear, packed_mix, ppo_loss,
    sparsemax, squared_norm,
};

type Train = Autodiff<Flex>;

/// As in the binary: with large buffers the default allocator spends its time in page faults.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

/// Numbers in [-1, 1) that look random.
fn tensor<B: OpsBackend, const D: usize>(shape: [usize; D]) -> Tensor<B, D> {
    let len = shape.iter().product();
    let values: Vec<f32> = (0..len).map(|i: usize| ((i * 7919) % 1999) as f32 / 1000.0 - 1.0).collect();
    Tensor::from_data(TensorData::new(values, shape), &Default::default())
}

fn leaf<const D: usize>(shape: [usize; D]) -> Tensor<Train, D> {
    tensor(shape).require_grad()
}

mod layer {
    use super::*;

    /// rows, inputs, outputs
    const LAYERS: [[usize; 3]; 7] =
        [[1, 64, 64], [8, 64, 64], [64, 4, 64], [64, 64, 64], [64, 64, 2], [256, 128, 128], [4096, 64, 64]];

    fn run_forward(
        bencher: Bencher<'_, '_>,
        [rows, inputs, outputs]: [usize; 3],
        layer: Layer<Flex>,
        act: Activation,
    ) {
        let (x, w, b) = (tensor([rows, inputs]), tensor([inputs, outputs]), tensor([outputs]));
        bencher.bench_local(|| black_box(layer(x.clone(), w.clone(), b.clone(), act)));
    }

    fn run_backward(bencher: Bencher<'_, '_>, [rows, inputs, outputs]: [usize; 3], layer: Layer<Train>) {
        let (x, w, b) = (leaf([rows, inputs]), leaf([inputs, outputs]), leaf([outputs]));
        let act = Activation::Tanh;
        bencher.bench_local(|| black_box(layer(x.clone(), w.clone(), b.clone(), act).sum().backward()));
    }

    #[divan::bench(args = LAYERS)]
    fn product_fused(bencher: Bencher<'_, '_>, shape: [usize; 3]) {
        run_forward(bencher, shape, linear, Activation::Identity);
    }

    #[divan::bench(args = LAYERS)]
    fn tanh_fused(bencher: Bencher<'_, '_>, shape: [usize; 3]) {
        run_forward(bencher, shape, linear, Activation::Tanh);
    }

    #[divan::bench(args = LAYERS)]
    fn tanh_composed(bencher: Bencher<'_, '_>, shape: [usize; 3]) {
        run_forward(bencher, shape, composed::linear, Activation::Tanh);
    }

    #[divan::bench(args = LAYERS)]
    fn tanh_with_backward_fused(bencher: Bencher<'_, '_>, shape: [usize; 3]) {
        run_backward(bencher, shape, linear);
    }

    #[divan::bench(args = LAYERS)]
    fn tanh_with_backward_composed(bencher: Bencher<'_, '_>, shape: [usize; 3]) {
        run_backward(bencher, shape, composed::linear);
    }
}

mod gat {
    use super::*;

    type Layer = fn(
        Tensor<Train, 3>,
        Tensor<Train, 2>,
        Tensor<Train, 2>,
        Tensor<Train, 2>,
        &GatEdges,
        f32,
    ) -> (Tensor<Train, 3>, Tensor<Train, 3>);

    /// 64 graphs, an 8 x 8 torus with self loops each; 4 heads.
    fn run(bencher: Bencher<'_, '_>, channels: usize, layer: Layer) {
        let (side, nodes) = (8u32, 64u32);
        let sources = (0..nodes).flat_map(|i| {
            let (row, col) = (i / side, i % side);
            let at = |row: u32, col: u32| row % side * side + col % side;
            [i, at(row + 1, col), at(row + side - 1, col), at(row, col + 1), at(row, col + side - 1)]
        });
        let edges = GatEdges::new(
            (0..=nodes).map(|i| 5 * i).collect(),
            sources.collect(),
            (0..nodes).flat_map(|_| [0, 1, 1, 1, 1]).collect(),
            vec![0.0; 320],
            (0..nodes).collect(),
            64,
            2,
        )
        .expect("a torus");
        let h = leaf([64, 64, 4 * channels]);
        let (a_src, a_dst, bias) = (leaf([4, channels]), leaf([4, channels]), leaf([2, 4]));
        bencher.bench_local(|| {
            let (h, a_src, a_dst) = (h.clone(), a_src.clone(), a_dst.clone());
            let (out, _) = layer(h, a_src, a_dst, bias.clone(), &edges, 0.2);
            black_box(out.sum().backward())
        });
    }

    #[divan::bench(args = [8, 16])]
    fn with_backward_fused(bencher: Bencher<'_, '_>, channels: usize) {
        run(bencher, channels, gat_attention);
    }

    #[divan::bench(args = [8, 16])]
    fn with_backward_composed(bencher: Bencher<'_, '_>, channels: usize) {
        run(bencher, channels, composed::gat_attention);
    }
}

mod experts {
    use super::*;

    type Layer = fn(Cube<Train>, Cube<Train>, Matrix<Train>, Activation) -> Cube<Train>;

    /// Four experts of 128 x 128, all on 256 shared rows.
    fn run(bencher: Bencher<'_, '_>, layer: Layer) {
        let (x, w, b) = (leaf([1, 256, 128]), leaf([4, 128, 128]), leaf([4, 128]));
        bencher.bench_local(|| {
            black_box(layer(x.clone(), w.clone(), b.clone(), Activation::Relu).sum().backward())
        });
    }

    #[divan::bench]
    fn with_backward_fused(bencher: Bencher<'_, '_>) {
        run(bencher, expert_linear);
    }

    #[divan::bench]
    fn with_backward_composed(bencher: Bencher<'_, '_>) {
        run(bencher, composed::expert_linear);
    }

    /// Gates of `rows` rows, 1/2 for each of two different experts, spread over the first `used` of `experts`.
    fn two_gates(rows: usize, experts: usize, used: usize) -> Vec<f32> {
        let mut gates = vec![0.0; rows * experts];
        for (row, gates) in gates.chunks_exact_mut(experts).enumerate() {
            gates[row % used] = 0.5;
            gates[(row + 1 + row / used % (used - 1)) % used] = 0.5;
        }
        gates
    }

    /// One layer of `experts` experts of 128 x 128 on some rows, two experts per row, forward and back; the
    /// router apart: who uses whom is known, and gates get no gradient.
    fn run_packed(bencher: Bencher<'_, '_>, rows: usize, experts: usize, used: usize) {
        let (x, w, b) = (leaf([rows, 128]), leaf([experts, 128, 128]), leaf([experts, 128]));
        let gates = two_gates(rows, experts, used);
        let pairs = ActivePairs::from_gates(&gates, experts);
        let alpha: Matrix<Train> =
            Tensor::from_data(TensorData::new(gates, [rows, experts]), &Default::default());
        bencher.bench_local(|| {
            let packed = pack(x.clone(), &pairs);
            let y = packed_expert_linear(packed, w.clone(), b.clone(), Activation::Relu, &pairs);
            black_box(packed_mix(alpha.clone(), y, &pairs).sum().backward())
        });
    }

    /// The rows go to two experts, however many there are.
    #[divan::bench(args = [4, 16, 64, 256])]
    fn packed_two_used(bencher: Bencher<'_, '_>, experts: usize) {
        run_packed(bencher, 256, experts, 2);
    }

    /// Rows and experts: 2, 32 and 128 rows for each of 256, whose weights alone are 16 MiB, beside as many rows
    /// for fewer.
    const SPREAD: [[usize; 2]; 8] = [
        [256, 4],
        [256, 256],
        [4096, 4],
        [4096, 256],
        [16_384, 4],
        [16_384, 16],
        [16_384, 64],
        [16_384, 256],
    ];

    /// The rows go to all experts.
    #[divan::bench(args = SPREAD)]
    fn packed_spread(bencher: Bencher<'_, '_>, [rows, experts]: [usize; 2]) {
        run_packed(bencher, rows, experts, experts);
    }
}

mod block {
    use super::*;

    type Block = fn(Matrix<Train>, Scalar<Train>, Scalar<Train>, Option<Matrix<Train>>) -> Matrix<Train>;

    fn run(bencher: Bencher<'_, '_>, rows: usize, block: Block) {
        let (x, gamma, beta) = (leaf([rows, 64]), leaf([64]), leaf([64]));
        bencher.bench_local(|| {
            let y = block(x.clone(), gamma.clone(), beta.clone(), Some(x.clone()));
            black_box(y.sum().backward())
        });
    }

    #[divan::bench(args = [64, 4096])]
    fn norm_relu_fused(bencher: Bencher<'_, '_>, rows: usize) {
        run(bencher, rows, norm_relu);
    }

    #[divan::bench(args = [64, 4096])]
    fn norm_relu_composed(bencher: Bencher<'_, '_>, rows: usize) {
        run(bencher, rows, composed::norm_relu);
    }
}

mod projection {
    use super::*;

    #[divan::bench(args = [4, 8])]
    fn sparsemax_fused(bencher: Bencher<'_, '_>, k: usize) {
        let z = leaf([4096, k]);
        bencher.bench_local(|| black_box(sparsemax(z.clone(), 0.5).expect("no mask").sum().backward()));
    }

    #[divan::bench(args = [4, 8])]
    fn sparsemax_composed(bencher: Bencher<'_, '_>, k: usize) {
        let z = leaf([4096, k]);
        bencher.bench_local(|| black_box(composed::sparsemax(z.clone(), 0.5).sum().backward()));
    }

    #[divan::bench(args = [4, 8])]
    fn entmax15_fused(bencher: Bencher<'_, '_>, k: usize) {
        let z = leaf([4096, k]);
        bencher.bench_local(|| black_box(entmax15(z.clone(), 0.5).expect("no mask").sum().backward()));
    }

    #[divan::bench(args = [4, 8])]
    fn entmax15_composed(bencher: Bencher<'_, '_>, k: usize) {
        let z = leaf([4096, k]);
        bencher.bench_local(|| black_box(composed::entmax15(z.clone(), 0.5).sum().backward()));
    }
}

const STEP: AdamwStep = AdamwStep {
    lr: 3e-4,
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-5,
    weight_decay: 0.0,
    grad_scale: 0.5,
    bias_correction1: 0.5,
    bias_correction2: 0.1,
};

mod optimizer {
    use super::*;

    fn run(bencher: Bencher<'_, '_>, size: usize, step: Step) {
        let g = tensor([size, 64]);
        let mut state = Some((tensor([size, 64]), tensor([size, 64]), tensor([size, 64]).abs()));
        bencher.bench_local(|| {
            let (p, m, v) = state.take().expect("the last step's");
            state = Some(step(p, g.clone(), m, v, &STEP));
        });
    }

    #[divan::bench(args = [4, 64, 4096])]
    fn adamw_fused(bencher: Bencher<'_, '_>, size: usize) {
        run(bencher, size, adamw_step);
    }

    #[divan::bench(args = [4, 64, 4096])]
    fn adamw_composed(bencher: Bencher<'_, '_>, size: usize) {
        run(bencher, size, composed::adamw_step);
    }

    #[divan::bench]
    fn squared_norm_fused(bencher: Bencher<'_, '_>) {
        let g: Tensor<Flex, 2> = tensor([64, 64]);
        bencher.bench_local(|| black_box(squared_norm(g.clone())));
    }
}

type Scalar<B> = Tensor<B, 1>;
type Matrix<B> = Tensor<B, 2>;
type Cube<B> = Tensor<B, 3>;
type Moments = (Matrix<Flex>, Matrix<Flex>, Matrix<Flex>);
type Layer<B> = fn(Matrix<B>, Matrix<B>, Scalar<B>, Activation) -> Matrix<B>;
type Loss =
    fn(Matrix<Train>, Scalar<Train>, PpoBatch<Train>, &PpoLossConfig) -> (Scalar<Train>, Scalar<Train>);
type Step = fn(Matrix<Flex>, Matrix<Flex>, Matrix<Flex>, Matrix<Flex>, &AdamwStep) -> Moments;

fn minibatch(rows: usize) -> PpoBatch<Train> {
    let actions = TensorData::new((0..rows as i32).map(|i| i % 2).collect(), [rows]);
    PpoBatch {
        actions: Tensor::<Train, 1, Int>::from_data(actions, &Default::default()),
        mask: None,
        old_log_probs: tensor([rows]) * 0.1 - 0.7,
        advantages: tensor([rows]),
        returns: tensor([rows]),
        old_values: tensor([rows]),
    }
}

const LOSS: PpoLossConfig =
    PpoLossConfig { clip: 0.2, value_clip: None, value_coef: 0.5, entropy_coef: 0.01 };

mod ppo {
    use super::*;

    fn run_head(bencher: Bencher<'_, '_>, rows: usize, loss: Loss) {
        let (logits, values, batch) = (leaf([rows, 2]), leaf([rows]), minibatch(rows));
        bencher.bench_local(|| {
            let (loss, _) = loss(logits.clone(), values.clone(), batch.clone(), &LOSS);
            black_box(loss.backward())
        });
    }

    #[divan::bench(args = [64, 4096])]
    fn head_fused(bencher: Bencher<'_, '_>, rows: usize) {
        run_head(bencher, rows, ppo_loss);
    }

    #[divan::bench(args = [64, 4096])]
    fn head_composed(bencher: Bencher<'_, '_>, rows: usize) {
        run_head(bencher, rows, composed::ppo_loss);
    }

    /// Actor and critic of a step: 4-64-64-{2, 1}, tanh.
    fn networks() -> [FlatMlp; 2] {
        [2, 1].map(|outputs| {
            let layers = [(64, Activation::Tanh), (64, Activation::Tanh), (outputs, Activation::Identity)];
            FlatMlp::new(4, layers.to_vec())
        })
    }

    fn scale(squares: f64) -> AdamwStep {
        AdamwStep { grad_scale: 0.5 / squares.sqrt().max(0.5) as f32, ..STEP }
    }

    /// One step as the update takes it: forward, loss, backward, global norm, AdamW.
    #[divan::bench(args = [1, 64, 128, 1024, 4096])]
    fn step_fused(bencher: Bencher<'_, '_>, rows: usize) {
        let (data, mlps) = (PpoData::new(tensor([rows, 4]), minibatch(rows).inner()), networks());
        let counts = mlps.each_ref().map(|mlp| mlp.sizes().sum());
        let mut parameters = counts.map(|count| (tensor::<Flex, 1>([count]) * 0.2).into_primitive().tensor());
        let zeros = |count| Tensor::<Flex, 1>::zeros([count], &Default::default()).into_primitive().tensor();
        let mut moments = counts.map(|count| [zeros(count), zeros(count)]);
        let places: Vec<usize> = (0..rows).collect();
        let minibatch = PpoRows { rows: &places, mean: 0.0, deviation: 1.0 };
        bencher.bench_local(|| {
            let [actor, critic] = &mut parameters;
            let actor = Network { mlp: &mlps[0], parameters: actor, step: None };
            let critic = Network { mlp: &mlps[1], parameters: critic, step: None };
            let seen = flat_ppo_loss::<Train>(&data, &minibatch, actor, critic, &LOSS);
            let step = scale(seen.gradients.iter().flat_map(|grad| &grad.squares).sum());
            for ((all, grad), [m, v]) in parameters.iter_mut().zip(seen.gradients).zip(&mut moments) {
                adamw_in_place::<Flex>(all, grad.values, [m, v], &step);
            }
            black_box((seen.loss, seen.stats))
        });
    }

    /// The same by plain tensor operations.
    #[divan::bench(args = [1, 64, 128, 1024])]
    fn step_composed(bencher: Bencher<'_, '_>, rows: usize) {
        let (data, mlps) = (PpoData::new(tensor([rows, 4]), minibatch(rows).inner()), networks());
        let places: Vec<usize> = (0..rows).collect();
        let minibatch = PpoRows { rows: &places, mean: 0.0, deviation: 1.0 };
        let mut learned = mlps.each_ref().map(|mlp| {
            let count = mlp.sizes().sum();
            let zeros = Tensor::<Flex, 1>::zeros([count], &Default::default());
            (tensor::<Flex, 1>([count]) * 0.2, zeros.clone(), zeros)
        });
        bencher.bench_local(|| {
            let [mut actor, mut critic] =
                learned.each_ref().map(|(p, ..)| p.clone().into_primitive().tensor());
            let actor = Network { mlp: &mlps[0], parameters: &mut actor, step: None };
            let critic = Network { mlp: &mlps[1], parameters: &mut critic, step: None };
            let seen = composed::flat_ppo_loss::<Train>(&data, &minibatch, [actor, critic], &LOSS);
            let primitive = |grad: FlatGradient<Flex>| {
                Tensor::<Flex, 1>::from_primitive(TensorPrimitive::Float(grad.values))
            };
            let grads = seen.gradients.map(primitive);
            let squares = grads.iter().map(|g| composed::squared_norm(g.clone()).into_scalar()).sum::<f32>();
            let step = scale(f64::from(squares));
            for ((p, m, v), grad) in learned.iter_mut().zip(grads) {
                (*p, *m, *v) = composed::adamw_step(p.clone(), grad, m.clone(), v.clone(), &step);
            }
            black_box((seen.loss, seen.stats))
        });
    }
}
