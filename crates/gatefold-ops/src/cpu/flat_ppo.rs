//! The PPO loss of two MLPs: each chunk of rows goes forward, through the loss and back while it is in cache.
//!
//! Work is handed to threads once instead of five times, and nothing is kept for a backward pass.

// R rows, I inputs, A actions

use burn::backend::{Flex, flex::FlexTensor};

use super::{
    chunks::{add_parts, map_tasks},
    flat::{dims, floats, row_major, tensor, wrap},
    linear::CHUNK,
    mlp::{
        Layer, Parameters, Shape, Wanted, backward_chunk, flops, forward_chunk, hidden_width, panels, shapes,
        turned,
    },
    panels::Panels,
    ppo_loss::{Recorded, Totals, evaluate, finish},
    scratch::Scratch,
};
use crate::{Evaluated, FlatMlp, PpoBatch, PpoLossConfig, ppo_stats};

/// An MLP, ready for some rows.
struct Net<'a> {
    layers: Vec<Layer<'a>>,
    panels: Vec<Option<Panels<'a>>>,
    turned: Vec<Option<Panels<'a>>>,
    hidden_width: usize,
    num_parameters: usize,
    wanted: Wanted,
}

impl<'a> Net<'a> {
    fn new(shapes: &[Shape], parameters: &'a Parameters, rows: usize) -> Self {
        let layers = Layer::all(shapes, parameters);
        Self {
            panels: panels(&layers, rows),
            turned: turned(&layers, rows, false),
            hidden_width: hidden_width(shapes),
            num_parameters: shapes.iter().flat_map(Shape::sizes).sum(),
            wanted: Wanted { input: false, layers: vec![true; shapes.len()] },
            layers,
        }
    }

    /// Writes the results of some rows; returns those of the hidden layers.
    fn forward(&self, x: &[f32], rows: usize, y: &mut [f32]) -> Scratch {
        let mut hidden = Scratch::new(rows * self.hidden_width);
        forward_chunk(x, &self.layers, &self.panels, &mut hidden, y);
        hidden
    }

    /// The gradients of the parameters, by that of the results.
    fn backward(&self, x: &[f32], hidden: &[f32], y: &[f32], g: &[f32]) -> Vec<f32> {
        let mut sums = vec![0.0; self.num_parameters];
        backward_chunk([x, hidden, y, g], &self.layers, &self.turned, &self.wanted, &mut sums, &mut []);
        sums
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
    let actor = &Net::new(&shapes[0], &parameters[0], rows);
    let critic = &Net::new(&shapes[1], &parameters[1], rows);
    let (mut logits, mut values) = (vec![0.0; rows * num_actions], vec![0.0; rows]);
    let tasks = (0..rows).step_by(CHUNK).zip(values.chunks_mut(CHUNK));
    let tasks: Vec<_> = tasks.zip(logits.chunks_mut(CHUNK * num_actions)).collect();
    let cost = 3 * (flops(&actor.layers, rows) + flops(&critic.layers, rows));
    let parts = map_tasks(tasks, cost, |((first, values), logits)| {
        let count = values.len();
        let x = &floats(&x)[first * inputs..(first + count) * inputs];
        let of_actor = actor.forward(x, count, logits);
        let of_critic = critic.forward(x, count, values);
        let (mut d_logits, mut d_values) = (Scratch::new(logits.len()), Scratch::new(count));
        d_logits.fill(0.0);
        let seen = recorded.rows(first..first + count, logits, values);
        let totals = evaluate(&seen, config, rows, &mut d_logits, &mut d_values);
        let actor = actor.backward(x, &of_actor, logits, &d_logits);
        (totals, actor, critic.backward(x, &of_critic, values, &d_values))
    });
    let (mut totals, mut of_actor, mut of_critic) = (Vec::<Totals>::new(), Vec::new(), Vec::new());
    for (sums, actor, critic) in parts {
        totals.push(sums);
        of_actor.push(actor);
        of_critic.push(critic);
    }
    let (loss, stats) = finish(totals, recorded.count(), config);
    let parts = [(of_actor, actor), (of_critic, critic)];
    Evaluated {
        loss: wrap(tensor(vec![loss], [1])),
        stats: wrap(tensor(stats.to_vec(), [ppo_stats::COUNT])),
        logits: wrap(tensor(logits, [rows, num_actions])),
        values: wrap(tensor(values, [rows])),
        gradients: parts
            .map(|(parts, net)| tensor(add_parts(parts, net.num_parameters), [net.num_parameters])),
    }
}
