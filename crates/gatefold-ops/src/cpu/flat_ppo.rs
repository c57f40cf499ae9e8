//! The PPO loss of two MLPs: each chunk of rows goes forward, through the loss and back while it is in cache.
//!
//! Work is handed to threads once instead of five times, and nothing is kept for a backward pass. No term of the
//! loss is of both logits and values, so each network is a task of its own.

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
    panels::Panels,
    ppo_loss::{Recorded, Rows, Totals, finish, policy_loss, value_loss},
    scratch::Scratch,
};
use crate::{Evaluated, FlatMlp, PpoBatch, PpoLossConfig, ppo_stats};

/// What a network's results of some rows add to the loss of so many rows, and their gradient.
type Loss = fn(&Rows<'_>, &[f32], &PpoLossConfig, usize, &mut [f32]) -> Totals;

/// An MLP, ready for some rows.
struct Net<'a> {
    loss: Loss,
    layers: Vec<Layer<'a>>,
    panels: Vec<Option<Panels<'a>>>,
    turned: Vec<Option<Panels<'a>>>,
    hidden_width: usize,
    num_parameters: usize,
    wanted: Wanted,
}

impl<'a> Net<'a> {
    fn new(shapes: &[Shape], parameters: &'a Parameters, rows: usize, loss: Loss) -> Self {
        let layers = Layer::all(shapes, parameters);
        Self {
            loss,
            panels: panels(&layers, rows),
            turned: turned(&layers, rows, false),
            hidden_width: hidden_width(shapes),
            num_parameters: shapes.iter().flat_map(Shape::sizes).sum(),
            wanted: Wanted { input: false, layers: vec![true; shapes.len()] },
            layers,
        }
    }

    /// Writes the results of some of `count` rows; returns what they add to the loss, and the gradient of the
    /// parameters.
    fn learn(
        &self,
        x: &[f32],
        y: &mut [f32],
        recorded: &Rows<'_>,
        config: &PpoLossConfig,
        count: usize,
    ) -> (Totals, Vec<f32>) {
        let rows = recorded.count();
        let mut hidden = Scratch::new(rows * self.hidden_width);
        forward_rows(x, &self.layers, &self.panels, by_layer(&mut hidden, &self.layers, rows), y);
        let mut d_y = Scratch::new(y.len());
        d_y.fill(0.0);
        let totals = (self.loss)(recorded, y, config, count, &mut d_y);
        let mut sums = vec![0.0; self.num_parameters];
        backward_chunk([x, &hidden, y, &d_y], &self.layers, &self.turned, &self.wanted, &mut sums, &mut []);
        (totals, sums)
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
    let [rows, inputs] = dims(&x);
    let shapes = mlps.map(shapes);
    let num_actions = shapes[0][shapes[0].len() - 1].outputs;
    let recorded = Recorded::new(batch, num_actions);
    let parameters = parameters.map(|all| Parameters::Flat(row_major(all)));
    let actor = &Net::new(&shapes[0], &parameters[0], rows, policy_loss);
    let critic = &Net::new(&shapes[1], &parameters[1], rows, value_loss);
    let (mut logits, mut values) = (vec![0.0; rows * num_actions], vec![0.0; rows]);
    let chunks = || (0..rows).step_by(CHUNK).map(|first| first..rows.min(first + CHUNK));
    let of_actor = chunks().zip(logits.chunks_mut(CHUNK * num_actions)).map(|(chunk, y)| (actor, chunk, y));
    let of_critic = chunks().zip(values.chunks_mut(CHUNK)).map(|(chunk, y)| (critic, chunk, y));
    let tasks = of_actor.chain(of_critic).collect();
    let cost = 3 * (flops(&actor.layers, rows) + flops(&critic.layers, rows));
    let parts = map_tasks(tasks, cost, |(net, chunk, y)| {
        let x = &floats(&x)[chunk.start * inputs..chunk.end * inputs];
        net.learn(x, y, &recorded.rows(chunk), config, rows)
    });
    let (totals, mut of_actor): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    let of_critic = of_actor.split_off(chunks().len());
    let (loss, stats) = finish(totals, rows, config);
    let sum = |parts, net: &Net<'_>| tensor(add_parts(parts, net.num_parameters), [net.num_parameters]);
    Evaluated {
        loss: wrap(tensor(vec![loss], [1])),
        stats: wrap(tensor(stats.to_vec(), [ppo_stats::COUNT])),
        logits: wrap(tensor(logits, [rows, num_actions])),
        values: wrap(tensor(values, [rows])),
        gradients: [sum(of_actor, actor), sum(of_critic, critic)],
    }
}
