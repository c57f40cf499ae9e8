//! The PPO loss of two MLPs: each chunk of rows goes forward, through the loss and back while it is in cache.
//!
//! Nothing is kept for a backward pass. No term of the loss is of both logits and values, so each network is a task
//! of its own, and of it each chunk.

// R rows, I inputs, A actions

use burn::backend::{Flex, flex::FlexTensor};

use super::{
    chunks::{add_parts, map_tasks},
    flat::{dims, floats, row_major, tensor, wrap},
    linear::CHUNK,
    mlp_kernel::{
        Layer, Parameters, Shape, Wanted, backward_chunk, by_layer, flops, forward_rows, hidden_width,
        panels, shapes, turned,
    },
    ppo_loss::{Recorded, Rows, Totals, finish, policy_loss, value_loss},
    scratch::Scratch,
};
use crate::{Evaluated, FlatMlp, PpoBatch, PpoLossConfig, ppo_stats};

/// What a network's results of some rows add to the loss of so many rows, and their gradient.
type Loss = fn(&Rows<'_>, &[f32], &PpoLossConfig, usize, &mut [f32]) -> Totals;

/// One of the networks, and where its results go.
struct Net<'a> {
    mlp: &'a FlatMlp,
    parameters: FlexTensor,
    loss: Loss,
    y: &'a mut [f32],
}

/// What all networks learn from.
struct Data<'a> {
    x: &'a [f32],
    recorded: &'a Recorded,
    config: &'a PpoLossConfig,
    rows: usize,
}

impl Net<'_> {
    /// Writes its results; returns what each chunk of rows adds to the loss, and the gradient of the parameters.
    fn learn(self, data: &Data<'_>) -> (Vec<Totals>, Vec<f32>) {
        let Self { mlp, parameters, loss, y } = self;
        let shapes = shapes(mlp);
        let num_parameters = shapes.iter().flat_map(Shape::sizes).sum();
        let outputs = mlp.outputs();
        let parameters = Parameters::Flat(row_major(parameters));
        let layers = &Layer::all(&shapes, &parameters);
        let (panels, turned) = (&panels(layers, data.rows), &turned(layers, data.rows, false));
        let wanted = Wanted { input: false, layers: vec![true; shapes.len()] };
        let chunks = (0..data.rows).step_by(CHUNK).zip(y.chunks_mut(CHUNK * outputs));
        let parts = map_tasks(chunks.collect(), 3 * flops(layers, data.rows), |(first, y)| {
            let rows = y.len() / outputs;
            let chunk = first..first + rows;
            let x = &data.x[chunk.start * shapes[0].inputs..chunk.end * shapes[0].inputs];
            let recorded = data.recorded.rows(chunk);
            let mut hidden = Scratch::new(rows * hidden_width(&shapes));
            forward_rows(x, layers, panels, by_layer(&mut hidden, layers, rows), y);
            let mut d_y = Scratch::new(y.len());
            d_y.fill(0.0);
            let totals = loss(&recorded, y, data.config, data.rows, &mut d_y);
            let mut sums = vec![0.0; num_parameters];
            backward_chunk([x, &hidden, y, &d_y], layers, turned, &wanted, &mut sums, &mut []);
            (totals, sums)
        });
        let (totals, sums): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        (totals, add_parts(sums, num_parameters))
    }
}

/// [`crate::flat_ppo_loss`] on Flex.
pub(super) fn flex(
    x: FlexTensor,
    parameters: [FlexTensor; 2],
    mlps: [&FlatMlp; 2],
    batch: PpoBatch<Flex>,
    config: &PpoLossConfig,
) -> Evaluated<Flex> {
    let x = row_major(x);
    let [rows, _] = dims(&x);
    let [actor, critic] = mlps;
    let num_actions = actor.outputs();
    let recorded = &Recorded::new(batch, num_actions);
    let (mut logits, mut values) = (vec![0.0; rows * num_actions], vec![0.0; rows]);
    let [of_actor, of_critic] = parameters;
    // This thread begins with the last one: the actor has more to do.
    let nets = vec![
        Net { mlp: critic, parameters: of_critic, loss: value_loss as Loss, y: &mut values },
        Net { mlp: actor, parameters: of_actor, loss: policy_loss, y: &mut logits },
    ];
    let data = &Data { x: floats(&x), recorded, config, rows };
    let flops = mlps.iter().map(|mlp| mlp.learning_flops(rows)).sum();
    let learned = map_tasks(nets, flops, |net| net.learn(data));
    let [(of_values, critic), (of_policy, actor)] = learned.try_into().expect("there are two networks");
    let (loss, stats) = finish(of_policy.into_iter().chain(of_values), rows, config);
    let gradient = |of: Vec<f32>| {
        let count = of.len();
        tensor(of, [count])
    };
    Evaluated {
        loss: wrap(tensor(vec![loss], [1])),
        stats: wrap(tensor(stats.to_vec(), [ppo_stats::COUNT])),
        logits: wrap(tensor(logits, [rows, num_actions])),
        values: wrap(tensor(values, [rows])),
        gradients: [actor, critic].map(gradient),
    }
}
