//! The masked categorical head and the PPO loss, with all gradients, in one pass over the rows.

use burn::backend::{
    Autodiff, Flex,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    flex::FlexTensor,
};
use burn::tensor::{DType, Tensor};

use super::{
    chunks::map_tasks,
    flat::{Tracked, dims, floats, row_major, tensor, unwrap, wrap},
    level::multiversion,
    linear::CHUNK,
    math::{exp, ln},
    scratch::Scratch,
};
use crate::{PpoBatch, PpoLossConfig, PpoRows, flat_ppo::Recorded, ppo_stats};

// B rows, A actions, L rows side by side in the lanes

/// Rows that are computed side by side; the same number at every SIMD level.
const LANES: usize = 16;

/// One number for each of some rows.
type Lane = [f32; LANES];

multiversion! {
    /// Log-softmax of rows over their allowed entries, for the host: with the bits that the loss has.
    pub(crate) fn log_softmax_rows(
        logits: &[f32], mask: Option<&[bool]>, num_actions: usize, log_probs: &mut [f32],
    ) = log_softmax_body
}

#[inline(always)]
fn log_softmax_body<const FMA: bool>(
    logits: &[f32],
    mask: Option<&[bool]>,
    num_actions: usize,
    log_probs: &mut [f32],
) {
    let mut memory = Head::memory(num_actions);
    let mut head = Head::new(&mut memory);
    for (lanes, log_probs) in log_probs.chunks_mut(LANES * num_actions).enumerate() {
        let (of, present) = lanes_from(lanes * LANES, logits.len() / num_actions);
        head.compute::<FMA, _>(logits, &of, mask, &of);
        for (l, row) in log_probs.chunks_exact_mut(num_actions).take(present).enumerate() {
            for (to, from) in row.iter_mut().zip(&*head.log_probs) {
                *to = from[l];
            }
        }
    }
}

/// The `LANES` rows from `first` on, and how many of `rows` these are: lanes beyond the last row repeat it.
#[inline(always)]
fn lanes_from(first: usize, rows: usize) -> ([usize; LANES], usize) {
    let present = LANES.min(rows - first);
    (std::array::from_fn(|l| first + l.min(present - 1)), present)
}

/// The numbers of the actions that were taken.
enum Actions<'a> {
    I32(&'a [i32]),
    I64(&'a [i64]),
}

impl Actions<'_> {
    /// The one of a row. Panics unless it is one of so many.
    #[inline(always)]
    fn of(&self, row: usize, num_actions: usize) -> usize {
        let action = match self {
            Self::I32(all) => i64::from(all[row]),
            Self::I64(all) => all[row],
        };
        match usize::try_from(action) {
            Ok(action) if action < num_actions => action,
            _ => panic!("ppo_loss: action {action}, but there are {num_actions}"),
        }
    }
}

/// What was recorded, as slices.
pub(super) struct Slices<'a> {
    actions: Actions<'a>,
    /// One byte for each action, 0 where it is forbidden.
    mask: Option<&'a [u8]>,
    old_log_probs: &'a [f32],
    advantages: &'a [f32],
    returns: &'a [f32],
    old_values: &'a [f32],
}

/// The same tensors, contiguous.
pub(super) fn by_rows(recorded: Recorded<Flex>) -> Recorded<Flex> {
    Recorded {
        actions: row_major(recorded.actions),
        mask: recorded.mask.map(row_major),
        old_log_probs: row_major(recorded.old_log_probs),
        advantages: row_major(recorded.advantages),
        returns: row_major(recorded.returns),
        old_values: row_major(recorded.old_values),
    }
}

impl<'a> Slices<'a> {
    /// Of contiguous tensors.
    pub(super) fn new(recorded: &'a Recorded<Flex>) -> Self {
        let actions = &recorded.actions;
        Self {
            actions: match actions.dtype() {
                DType::I32 => Actions::I32(actions.as_slice().expect("contiguous")),
                DType::I64 => Actions::I64(actions.as_slice().expect("contiguous")),
                other => panic!("ppo_loss: actions of type {other:?}: i32 and i64 are supported"),
            },
            mask: recorded.mask.as_ref().map(|mask| mask.storage::<u8>()),
            old_log_probs: floats(&recorded.old_log_probs),
            advantages: floats(&recorded.advantages),
            returns: floats(&recorded.returns),
            old_values: floats(&recorded.old_values),
        }
    }
}

/// Rows of a minibatch, each a place in what was recorded.
pub(super) struct Rows<'a> {
    pub(super) of: PpoRows<'a>,
    pub(super) recorded: &'a Slices<'a>,
    pub(super) num_actions: usize,
}

multiversion! {
    /// What the logits of some rows add to the statistics' sums, and their gradient of a loss that is the mean
    /// over `count` rows. Where an action is forbidden `d_logits` stays as it is.
    pub(super) fn policy_loss(
        rows: &Rows<'_>, logits: &[f32], config: &PpoLossConfig, count: usize, d_logits: &mut [f32],
    ) -> Totals = policy_loss_body
}

multiversion! {
    /// The same of the values of some rows.
    pub(super) fn value_loss(
        rows: &Rows<'_>, values: &[f32], config: &PpoLossConfig, count: usize, d_values: &mut [f32],
    ) -> Totals = value_loss_body
}

/// An element of a mask.
trait Flag: Copy {
    fn is_set(self) -> bool;
}

impl Flag for bool {
    fn is_set(self) -> bool {
        self
    }
}

/// As Burn stores it.
impl Flag for u8 {
    fn is_set(self) -> bool {
        self != 0
    }
}

/// Log-probabilities and probabilities of `LANES` rows, action by action.
struct Head<'a> {
    log_probs: &'a mut [Lane],
    probs: &'a mut [Lane],
    /// 1 where an action is allowed, else 0.
    allowed: &'a mut [Lane],
    entropy: Lane,
    /// Whether a masked logit is NaN or infinite: it is never used, so what is wrong with it is noted.
    poisoned: bool,
}

impl<'a> Head<'a> {
    /// Memory for a head.
    fn memory(num_actions: usize) -> Scratch {
        Scratch::new(3 * num_actions * LANES)
    }

    fn new(memory: &'a mut Scratch) -> Self {
        let (lanes, _) = memory.as_chunks_mut();
        let num_actions = lanes.len() / 3;
        let (log_probs, rest) = lanes.split_at_mut(num_actions);
        let (probs, allowed) = rest.split_at_mut(num_actions);
        allowed.fill([1.0; LANES]);
        Self { log_probs, probs, allowed, entropy: [0.0; LANES], poisoned: false }
    }

    /// Computes the rows `of` logits `[B, A]`, which are `at` these places of the mask.
    #[inline(always)]
    fn compute<const FMA: bool, F: Flag>(
        &mut self,
        logits: &[f32],
        of: &[usize; LANES],
        mask: Option<&[F]>,
        at: &[usize; LANES],
    ) {
        let num_actions = self.log_probs.len();
        let Self { log_probs, probs, allowed, entropy, poisoned } = self;
        for a in 0..num_actions {
            for l in 0..LANES {
                log_probs[a][l] = logits[of[l] * num_actions + a];
            }
        }
        if let Some(mask) = mask {
            for a in 0..num_actions {
                for l in 0..LANES {
                    let is_allowed = mask[at[l] * num_actions + a].is_set();
                    allowed[a][l] = if is_allowed { 1.0 } else { 0.0 };
                    if !is_allowed {
                        let z = log_probs[a][l];
                        *poisoned |= z.is_nan() || z == f32::INFINITY;
                        log_probs[a][l] = f32::NEG_INFINITY;
                    }
                }
            }
        }
        let mut max = [f32::NEG_INFINITY; LANES];
        for z in log_probs.iter() {
            for l in 0..LANES {
                max[l] = if z[l] > max[l] { z[l] } else { max[l] };
            }
        }
        let mut sum = [0.0; LANES];
        for (z, p) in log_probs.iter_mut().zip(probs.iter_mut()) {
            for l in 0..LANES {
                z[l] -= max[l];
                p[l] = exp::<FMA>(z[l]);
                sum[l] += p[l];
            }
        }
        let mut log_sum = [0.0; LANES];
        for l in 0..LANES {
            log_sum[l] = ln::<FMA>(sum[l]);
        }
        *entropy = [0.0; LANES];
        for ((log_p, p), allowed) in log_probs.iter_mut().zip(probs.iter_mut()).zip(allowed.iter()) {
            for l in 0..LANES {
                log_p[l] -= log_sum[l];
                p[l] /= sum[l];
                entropy[l] -= if allowed[l] == 0.0 { 0.0 } else { p[l] * log_p[l] };
            }
        }
    }
}

/// The sums of the statistics, in the order of rows.
#[derive(Debug, Default)]
pub(super) struct Totals {
    policy: f64,
    value: f64,
    entropy: f64,
    kl: f64,
    clipped: f64,
    deviation: f32,
    /// Whether a masked logit is NaN or infinite: it is never used, so what is wrong with it is noted.
    poisoned: bool,
}

impl Totals {
    /// Takes in the sums of later rows, or what the same rows' values add.
    fn add(&mut self, other: Self) {
        self.policy += other.policy;
        self.value += other.value;
        self.entropy += other.entropy;
        self.kl += other.kl;
        self.clipped += other.clipped;
        let (old, new) = (self.deviation, other.deviation);
        self.deviation = if new > old || new.is_nan() { new } else { old };
        self.poisoned |= other.poisoned;
    }
}

/// The loss and its statistics, from the sums over the chunks of `count` rows, in the order of rows.
pub(super) fn finish(
    parts: impl IntoIterator<Item = Totals>,
    count: usize,
    config: &PpoLossConfig,
) -> (f32, [f32; ppo_stats::COUNT]) {
    let mut totals = Totals::default();
    parts.into_iter().for_each(|part| totals.add(part));
    let mean = |sum: f64| (sum / count as f64) as f32;
    let Totals { policy, value, entropy, kl, clipped, deviation, poisoned } = totals;
    let stats = [mean(policy), 0.5 * mean(value), mean(entropy), mean(kl), mean(clipped), deviation];
    let loss = stats[ppo_stats::POLICY_LOSS] + config.value_coef * stats[ppo_stats::VALUE_LOSS]
        - config.entropy_coef * stats[ppo_stats::ENTROPY];
    (if poisoned { f32::NAN } else { loss }, stats)
}

/// The numbers of these rows.
#[inline(always)]
fn lane(all: &[f32], of: &[usize; LANES]) -> Lane {
    std::array::from_fn(|l| all[of[l]])
}

#[inline(always)]
fn policy_loss_body<const FMA: bool>(
    rows: &Rows<'_>,
    logits: &[f32],
    config: &PpoLossConfig,
    count: usize,
    d_logits: &mut [f32],
) -> Totals {
    let num_actions = rows.num_actions;
    let share = 1.0 / count as f32;
    let mut memory = Head::memory(num_actions);
    let mut head = Head::new(&mut memory);
    let mut totals = Totals::default();
    let (recorded, PpoRows { rows: places, mean, deviation }) = (rows.recorded, rows.of);
    for first in (0..places.len()).step_by(LANES) {
        let (of, present) = lanes_from(first, places.len());
        let at = of.map(|row| places[row]);
        head.compute::<FMA, _>(logits, &of, recorded.mask, &at);

        let taken = at.map(|place| recorded.actions.of(place, num_actions));
        let log_prob: Lane = std::array::from_fn(|l| head.log_probs[taken[l]][l]);
        let old_log_prob = lane(recorded.old_log_probs, &at);
        let advantage = lane(recorded.advantages, &at).map(|a| ((f64::from(a) - mean) / deviation) as f32);
        let (low, high) = (1.0 - config.clip, 1.0 + config.clip);
        let [mut log_ratio, mut ratio, mut policy, mut d_log_prob] = [[0.0; LANES]; 4];
        for l in 0..LANES {
            log_ratio[l] = log_prob[l] - old_log_prob[l];
            ratio[l] = exp::<FMA>(log_ratio[l]);
            let (free, bound) = (-advantage[l] * ratio[l], -advantage[l] * ratio[l].clamp(low, high));
            let inside = ratio[l] >= low && ratio[l] <= high;
            policy[l] = if free > bound { free } else { bound };
            let d_ratio = if free > bound || inside || ratio[l].is_nan() { -advantage[l] } else { 0.0 };
            d_log_prob[l] = share * d_ratio * ratio[l];
        }

        let bonus = share * config.entropy_coef;
        for a in 0..num_actions {
            let (p, log_p) = (&head.probs[a], &head.log_probs[a]);
            let mut d = [0.0; LANES];
            for l in 0..LANES {
                let chosen = if a == taken[l] { 1.0 } else { 0.0 };
                d[l] = d_log_prob[l] * (chosen - p[l]) + bonus * p[l] * (log_p[l] + head.entropy[l]);
            }
            for l in 0..present {
                if head.allowed[a][l] != 0.0 {
                    d_logits[(first + l) * num_actions + a] = d[l];
                }
            }
        }

        for l in 0..present {
            totals.policy += f64::from(policy[l]);
            totals.entropy += f64::from(head.entropy[l]);
            totals.kl += f64::from(ratio[l] - 1.0 - log_ratio[l]);
            let off = (ratio[l] - 1.0).abs();
            totals.clipped += if off > config.clip { 1.0 } else { 0.0 };
            totals.deviation = if off > totals.deviation || off.is_nan() { off } else { totals.deviation };
        }
    }
    totals.poisoned = head.poisoned;
    totals
}

#[inline(always)]
fn value_loss_body<const FMA: bool>(
    rows: &Rows<'_>,
    values: &[f32],
    config: &PpoLossConfig,
    count: usize,
    d_values: &mut [f32],
) -> Totals {
    let share = 1.0 / count as f32;
    let mut sum = 0.0;
    for first in (0..values.len()).step_by(LANES) {
        let (of, present) = lanes_from(first, values.len());
        let at = of.map(|row| rows.of.rows[row]);
        let (values, returns) = (lane(values, &of), lane(rows.recorded.returns, &at));
        let (mut value, mut d_value) = ([0.0; LANES], [0.0; LANES]);
        match config.value_clip {
            None => {
                for l in 0..LANES {
                    let error = values[l] - returns[l];
                    (value[l], d_value[l]) = (error * error, error);
                }
            }
            Some(c) => {
                let old_values = lane(rows.recorded.old_values, &at);
                for l in 0..LANES {
                    let error = values[l] - returns[l];
                    let moved = values[l] - old_values[l];
                    let near = old_values[l] + moved.clamp(-c, c) - returns[l];
                    let free = error * error > near * near;
                    let d_near = if moved.abs() > c { 0.0 } else { near };
                    value[l] = if free { error * error } else { near * near };
                    d_value[l] = if free { error } else { d_near };
                }
            }
        }
        for l in 0..present {
            d_values[first + l] = share * config.value_coef * d_value[l];
            sum += f64::from(value[l]);
        }
    }
    Totals { value: sum, ..Totals::default() }
}

/// The loss, its statistics, and its gradients.
struct Outcome {
    loss: f32,
    stats: [f32; ppo_stats::COUNT],
    logits: Vec<f32>,
    values: Vec<f32>,
}

fn run(logits: FlexTensor, values: FlexTensor, batch: PpoBatch<Flex>, config: &PpoLossConfig) -> Outcome {
    let (logits, values) = (row_major(logits), row_major(values));
    let [count, num_actions] = dims(&logits);
    let recorded = by_rows(Recorded::new(batch));
    let recorded = &Slices::new(&recorded);
    let places: Vec<usize> = (0..count).collect();
    let (mut d_logits, mut d_values) = (vec![0.0; count * num_actions], vec![0.0; count]);
    let tasks = (0..count).step_by(CHUNK).zip(d_values.chunks_mut(CHUNK));
    let tasks: Vec<_> = tasks.zip(d_logits.chunks_mut((CHUNK * num_actions).max(1))).collect();
    let totals = map_tasks(tasks, 100 * count * num_actions, |((first, d_values), d_logits)| {
        let rows = first..first + d_values.len();
        let logits = &floats(&logits)[rows.start * num_actions..rows.end * num_actions];
        let values = &floats(&values)[rows.clone()];
        let of = PpoRows { rows: &places[rows], mean: 0.0, deviation: 1.0 };
        let rows = Rows { of, recorded, num_actions };
        [
            policy_loss(&rows, logits, config, count, d_logits),
            value_loss(&rows, values, config, count, d_values),
        ]
    });
    let (loss, stats) = finish(totals.into_iter().flatten(), count, config);
    Outcome { loss, stats, logits: d_logits, values: d_values }
}

/// [`crate::ppo_loss`] on Flex.
pub(super) fn flex(
    logits: FlexTensor,
    values: FlexTensor,
    batch: PpoBatch<Flex>,
    config: &PpoLossConfig,
) -> (FlexTensor, FlexTensor) {
    let outcome = run(logits, values, batch, config);
    (tensor(vec![outcome.loss], [1]), tensor(outcome.stats.to_vec(), [ppo_stats::COUNT]))
}

/// The node of a loss whose gradients were computed with it.
#[derive(Debug)]
struct Computed;

impl Backward<Flex, 2> for Computed {
    /// The parents' gradients at a loss gradient of 1.
    type State = [FlexTensor; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = row_major(grads.consume::<Flex>(&ops.node));
        for (gradient, node) in ops.state.into_iter().zip(ops.parents) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, scaled(gradient, floats(&g)[0]));
            }
        }
    }
}

/// A gradient times that of the loss.
fn scaled(mut gradient: FlexTensor, factor: f32) -> FlexTensor {
    if factor != 1.0 {
        gradient.storage_mut::<f32>().iter_mut().for_each(|d| *d *= factor);
    }
    gradient
}

/// [`crate::ppo_loss`] on Flex with its gradient.
pub(super) fn autodiff<C: CheckpointStrategy>(
    logits: Tracked<C>,
    values: Tracked<C>,
    batch: PpoBatch<Autodiff<Flex, C>>,
    config: &PpoLossConfig,
) -> (Tracked<C>, Tracked<C>) {
    let [rows, num_actions] = dims(&logits.primitive);
    let outcome = run(logits.primitive, values.primitive, batch.inner(), config);
    let loss = tensor(vec![outcome.loss], [1]);
    let stats = wrap::<Flex, 1>(tensor(outcome.stats.to_vec(), [ppo_stats::COUNT]));
    let state = [tensor(outcome.logits, [rows, num_actions]), tensor(outcome.values, [rows])];
    let loss = match Computed.prepare::<C>([logits.node, values.node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(state, loss),
        OpsKind::UnTracked(prep) => prep.finish(loss),
    };
    (loss, unwrap(Tensor::<Autodiff<Flex, C>, 1>::from_inner(stats)))
}
