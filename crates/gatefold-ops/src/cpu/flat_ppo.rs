//! The PPO loss of two MLPs: each chunk of rows goes forward, through the loss and back while it is in cache.
//!
//! Nothing is kept for a backward pass. No term of the loss is of both logits and values, so each network is a task
//! of its own, and of it each chunk.

// R rows, I inputs, A actions

use std::borrow::Cow;

use burn::backend::{Flex, flex::FlexTensor};

use super::{
    adamw::sum_of_squares,
    chunks::{add_parts, map_tasks},
    flat::{floats, row_major, tensor},
    linear::CHUNK,
    mlp_kernel::{
        Layer, Parameters, Shape, Wanted, backward_chunk, by_layer, flops, forward_rows, hidden_width,
        panels, shapes, turned,
    },
    ppo_loss::{self, Rows, Slices, Totals, finish, policy_loss, value_loss},
    scratch::Scratch,
};
use crate::{Evaluated, FlatGradient, Network, PpoData, PpoLossConfig, PpoRows, flat_ppo::Recorded};

/// What a network's results of some rows add to the loss of so many rows, and their gradient.
type Loss = fn(&Rows<'_>, &[f32], &PpoLossConfig, usize, &mut [f32]) -> Totals;

/// One of the networks, and its part of the loss.
struct Net<'a> {
    network: Network<'a, Flex>,
    loss: Loss,
}

/// What a network has learned.
struct Learned {
    /// What each chunk of rows adds to the loss.
    totals: Vec<Totals>,
    /// The first result that is NaN or infinite.
    bad: Option<f32>,
    gradient: FlatGradient<Flex>,
}

/// What all networks learn from.
struct Data<'a> {
    x: &'a [f32],
    recorded: &'a Slices<'a>,
    num_actions: usize,
    minibatch: &'a PpoRows<'a>,
    config: &'a PpoLossConfig,
}

impl Net<'_> {
    fn learn(self, data: &Data<'_>) -> Learned {
        let Self { network: Network { mlp, parameters, step }, loss } = self;
        step.into_iter().for_each(|step| step.take(parameters));
        let shapes = shapes(mlp);
        let num_parameters = shapes.iter().flat_map(Shape::sizes).sum();
        let (inputs, outputs, rows) = (shapes[0].inputs, mlp.outputs(), data.minibatch.rows.len());
        let parameters = Parameters::Flat(row_major(parameters.clone()));
        let layers = &Layer::all(&shapes, &parameters);
        let (panels, turned) = (&panels(layers, rows), &turned(layers, rows, false));
        let wanted = Wanted { input: false, layers: vec![true; shapes.len()] };
        let chunks = data.minibatch.rows.chunks(CHUNK).collect();
        let parts = map_tasks(chunks, 3 * flops(layers, rows), |places| {
            let mut x = Scratch::new(places.len() * inputs);
            fetch(data.x, inputs, places, &mut x);
            let mut hidden = Scratch::new(places.len() * hidden_width(&shapes));
            let mut y = Scratch::new(places.len() * outputs);
            forward_rows(&x, layers, panels, by_layer(&mut hidden, layers, places.len()), &mut y);
            let mut d_y = Scratch::new(y.len());
            d_y.fill(0.0);
            let of = PpoRows { rows: places, ..*data.minibatch };
            let chunk = Rows { of, recorded: data.recorded, num_actions: data.num_actions };
            let totals = loss(&chunk, &y, data.config, rows, &mut d_y);
            let mut sums = vec![0.0; num_parameters];
            backward_chunk([&x, &hidden, &y, &d_y], layers, turned, &wanted, &mut sums, &mut []);
            (totals, y.iter().copied().find(|y| !y.is_finite()), sums)
        });
        let (mut totals, mut bad) = (Vec::with_capacity(parts.len()), None);
        let sums = parts.into_iter().map(|(of_chunk, in_chunk, sums)| {
            totals.push(of_chunk);
            bad = bad.or(in_chunk);
            sums
        });
        let gradient = add_parts(sums, num_parameters);
        let mut rest = &gradient[..];
        let square = |size| sum_of_squares(rest.split_off(..size).expect("sizes of all parameters"));
        let squares = shapes.iter().flat_map(Shape::sizes).map(square).collect();
        let gradient = FlatGradient { values: tensor(gradient, [num_parameters]), squares };
        Learned { totals, bad, gradient }
    }
}

/// Copies rows of so many numbers from these places.
fn fetch(all: &[f32], width: usize, places: &[usize], rows: &mut [f32]) {
    /// Rows of a width that is known, each copied by a few instructions.
    fn narrow<const W: usize>(all: &[f32], places: &[usize], rows: &mut [f32]) {
        let ((all, _), (rows, _)) = (all.as_chunks::<W>(), rows.as_chunks_mut::<W>());
        rows.iter_mut().zip(places).for_each(|(row, &place)| *row = all[place]);
    }
    match width {
        0 => {}
        1 => narrow::<1>(all, places, rows),
        2 => narrow::<2>(all, places, rows),
        3 => narrow::<3>(all, places, rows),
        4 => narrow::<4>(all, places, rows),
        6 => narrow::<6>(all, places, rows),
        8 => narrow::<8>(all, places, rows),
        _ => {
            let rows = rows.chunks_exact_mut(width).zip(places);
            rows.for_each(|(row, &place)| row.copy_from_slice(&all[place * width..][..width]));
        }
    }
}

/// The data with each tensor's elements in row-major order; copies them only if those of one are not.
fn by_rows(data: &PpoData<Flex>) -> Cow<'_, PpoData<Flex>> {
    let Recorded { actions, mask, old_log_probs, advantages, returns, old_values } = &data.recorded;
    let all = [&data.x, actions, old_log_probs, advantages, returns, old_values];
    if all.into_iter().chain(mask).all(FlexTensor::is_contiguous) {
        return Cow::Borrowed(data);
    }
    let PpoData { x, recorded } = data.clone();
    Cow::Owned(PpoData { x: row_major(x), recorded: ppo_loss::by_rows(recorded) })
}

/// [`crate::flat_ppo_loss`] on Flex.
pub(super) fn flex(
    data: &PpoData<Flex>,
    minibatch: &PpoRows<'_>,
    [actor, critic]: [Network<'_, Flex>; 2],
    config: &PpoLossConfig,
) -> Evaluated<Flex> {
    let (rows, num_actions) = (minibatch.rows.len(), actor.mlp.outputs());
    let flops = [&actor, &critic].iter().map(|network| network.mlp.learning_flops(rows)).sum();
    let data = by_rows(data);
    let recorded = &Slices::new(&data.recorded);
    let data = &Data { x: floats(&data.x), recorded, num_actions, minibatch, config };
    // This thread begins with the last one: the actor has more to do.
    let nets =
        vec![Net { network: critic, loss: value_loss as Loss }, Net { network: actor, loss: policy_loss }];
    let learned = map_tasks(nets, flops, |net| net.learn(data));
    let [critic, actor] = learned.try_into().unwrap_or_else(|_| unreachable!("there are two networks"));
    let (loss, stats) = finish(actor.totals.into_iter().chain(critic.totals), rows, config);
    Evaluated { loss, stats, bad_logit: actor.bad, gradients: [actor.gradient, critic.gradient] }
}
