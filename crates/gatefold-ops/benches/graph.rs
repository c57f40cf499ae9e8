//! Graph attention and gates at the sizes that other implementations are measured at:
//! `cargo bench -p gatefold-ops --bench graph`, one thread with `RAYON_NUM_THREADS=1`.

use burn::backend::{Autodiff, Flex};
use burn::tensor::{Tensor, TensorData};
use divan::{Bencher, black_box};
use gatefold_ops::{
    Activation, GatEdges, GatHeads, GatRows, GatScoring, OpsBackend, embed_nodes, gat_attention,
    gat_layer_rows, linear, mix, sparsemax,
};

type Train = Autodiff<Flex>;

/// As in the binary: with large buffers the default allocator spends its time in page faults.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

/// Numbers in [-1, 1) that look random.
fn tensor<B: OpsBackend, const D: usize>(shape: [usize; D], scale: f32) -> Tensor<B, D> {
    let len = shape.iter().product();
    let number = |i: usize| scale * (((i * 7919) % 1999) as f32 / 1000.0 - 1.0);
    Tensor::from_data(TensorData::new((0..len).map(number).collect(), shape), &Default::default())
}

fn leaf<const D: usize>(shape: [usize; D], scale: f32) -> Tensor<Train, D> {
    tensor(shape, scale).require_grad()
}

/// A grid of 8 x 8 with self loops, and its neighbours of four directions; a torus wraps around.
fn grid(torus: bool) -> GatEdges {
    let side = 8i32;
    let (mut offsets, mut sources, mut relations) = (vec![0], Vec::new(), Vec::new());
    for cell in 0..side * side {
        for (relation, (down, right)) in [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)].into_iter().enumerate() {
            let (row, column) = (cell / side + down, cell % side + right);
            let inside = (0..side).contains(&row) && (0..side).contains(&column);
            if torus || inside {
                sources.push((row.rem_euclid(side) * side + column.rem_euclid(side)) as u32);
                relations.push(u32::from(relation > 0));
            }
        }
        offsets.push(sources.len() as u32);
    }
    let count = sources.len();
    GatEdges::new(offsets, sources, relations, vec![0.0; count], (0..64).collect(), 64, 2).expect("a grid")
}

fn project(x: Tensor<Train, 2>, weight: &Tensor<Train, 2>) -> Tensor<Train, 2> {
    let zero = Tensor::zeros([weight.dims()[1]], &Default::default());
    linear(x, weight.clone(), zero, Activation::Identity)
}

/// One layer on 64 graphs of 64 nodes and 320 edges: 32 features, 4 heads of 8, forward and back.
#[divan::bench]
fn one_gat_layer(bencher: Bencher<'_, '_>) {
    let edges = grid(true);
    let (x, weight) = (leaf([64 * 64, 32], 1.0), leaf([32, 32], 0.3));
    let (a_src, a_dst, bias) = (leaf([4, 8], 0.3), leaf([4, 8], 0.3), leaf([2, 4], 0.1));
    bencher.bench_local(|| {
        let h = project(x.clone(), &weight).reshape([64, 64, 32]);
        let (out, _) = gat_attention(h, a_src.clone(), a_dst.clone(), bias.clone(), &edges, 0.2);
        black_box(out.sum().backward())
    });
}

/// Two layers on 256 grids of 288 edges: 16 features of a node to 64, twice some heads side by side, 64 wide,
/// with norm and residual, mean over nodes; forward and back.
///
/// What the first layer attends over is projected from the 16 features by the product of both weights, as the
/// graph encoder does it, or from the 64 numbers made of them, as by any other layer.
fn two_layers(bencher: Bencher<'_, '_>, projected: usize, [from, heads]: [usize; 2]) {
    let edges = grid(false);
    let features: Tensor<Train, 3> = tensor([256, 64, 16], 1.0);
    let (base, embed) = (leaf([64, 64], 0.1), leaf([16, 64], 0.25));
    let layers: Vec<_> = (0..2)
        .map(|_| {
            let of_heads = || leaf([heads, 64 / heads], 0.3);
            let scores = [of_heads(), of_heads(), leaf([2, heads], 0.1)];
            (leaf([64, projected], 0.125), scores, [leaf([64], 1.0), leaf([64], 0.1)])
        })
        .collect();
    let mean = Tensor::full([256, 64], 1.0 / 64.0, &Default::default());
    bencher.bench_local(|| {
        let mut x = None;
        for (weight, scores, norm) in &layers {
            let [source, target, relation_bias] = scores.clone();
            let scoring = if projected == 64 {
                GatScoring::Gat { source, target, relation_bias }
            } else {
                GatScoring::Gatv2 { weight: source, relation_bias }
            };
            let rows = match x.take() {
                None if from == 16 => GatRows::Embedded {
                    inputs: features.clone(),
                    x: [base.clone(), embed.clone()],
                    h: [project(base.clone(), weight), project(embed.clone(), weight)],
                },
                x => {
                    let embedded = || embed_nodes(base.clone(), features.clone(), embed.clone());
                    GatRows::Project { x: x.unwrap_or_else(embedded), weight: weight.clone() }
                }
            };
            x = Some(gat_layer_rows(rows, scoring, GatHeads::Concatenate, norm.clone(), &edges, 0.2));
        }
        let pooled = mix(mean.clone(), x.expect("two layers"));
        black_box(pooled.square().mean().backward())
    });
}

/// What the first layer projects, and heads.
const SIZES: [[usize; 2]; 5] = [[16, 4], [64, 4], [16, 1], [16, 2], [16, 8]];

#[divan::bench(args = SIZES)]
fn two_gat_layers(bencher: Bencher<'_, '_>, size: [usize; 2]) {
    two_layers(bencher, 64, size);
}

#[divan::bench(args = SIZES)]
fn two_gatv2_layers(bencher: Bencher<'_, '_>, size: [usize; 2]) {
    two_layers(bencher, 128, size);
}

/// Gates of 4096 rows over 4 experts, forward and back.
#[divan::bench]
fn sparsemax_of_four(bencher: Bencher<'_, '_>) {
    let z = leaf([4096, 4], 1.0);
    bencher.bench_local(|| black_box(sparsemax(z.clone(), 0.5).expect("no mask").sum().backward()));
}
