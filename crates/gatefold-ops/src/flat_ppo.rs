//! The PPO loss of a policy and a value function that are MLPs, as one operation.

use burn::tensor::{
    Bool, Int, Tensor, TensorData, TensorMetadata, TensorPrimitive,
    backend::Backend,
    ops::{BoolTensor, FloatTensor, IntTensor},
};

use crate::{
    FlatGradient, FlatMlp, OpsAutodiffBackend, PendingStep, PpoBatch, PpoLossConfig, composed,
    first_non_finite, ppo_stats,
};

/// An MLP, its parameters `[P]`, as [`flat_mlp`](crate::flat_mlp()) takes them, and the step that they take before, if
/// one is due.
#[derive(Debug)]
pub struct Network<'a, B: Backend> {
    /// Its layers.
    pub mlp: &'a FlatMlp,
    /// Changed by the step alone.
    pub parameters: &'a mut FloatTensor<B>,
    /// An optimizer's step that is due.
    pub step: Option<PendingStep<'a, B>>,
}

/// What the losses of many minibatches are computed from: observations and what was recorded with them.
#[derive(Debug, Clone)]
pub struct PpoData<B: Backend> {
    pub(crate) x: FloatTensor<B>,
    pub(crate) recorded: Recorded<B>,
}

/// The primitives of a [`PpoBatch`].
#[derive(Debug, Clone)]
pub(crate) struct Recorded<B: Backend> {
    pub(crate) actions: IntTensor<B>,
    pub(crate) mask: Option<BoolTensor<B>>,
    pub(crate) old_log_probs: FloatTensor<B>,
    pub(crate) advantages: FloatTensor<B>,
    pub(crate) returns: FloatTensor<B>,
    pub(crate) old_values: FloatTensor<B>,
}

impl<B: Backend> PpoData<B> {
    /// Observations `[N, in]` and what was recorded with them, the advantages not normalised. Panics if there are
    /// not as many of each.
    pub fn new(x: Tensor<B, 2>, batch: PpoBatch<B>) -> Self {
        let [rows, _] = x.dims();
        batch.check(rows);
        Self { x: x.into_primitive().tensor(), recorded: Recorded::new(batch) }
    }

    /// Observations that there are.
    fn rows(&self) -> usize {
        self.x.shape()[0]
    }

    /// Copies of a minibatch's rows, its advantages normalised.
    fn select(&self, minibatch: &PpoRows<'_>) -> (Tensor<B, 2>, PpoBatch<B>) {
        let rows: Vec<i32> = minibatch.rows.iter().map(|&row| row as i32).collect();
        let (count, device) = (rows.len(), B::float_device(&self.x));
        let rows = Tensor::<B, 1, Int>::from_data(TensorData::new(rows, [count]), &device);
        let of = |all: &FloatTensor<B>| float::<B, 1>(all).select(0, rows.clone());
        let recorded = &self.recorded;
        let mask = recorded.mask.as_ref().map(|mask| Tensor::<B, 2, Bool>::from_primitive(mask.clone()));
        let batch = PpoBatch {
            actions: Tensor::from_primitive(recorded.actions.clone()).select(0, rows.clone()),
            mask: mask.map(|mask| mask.int().select(0, rows.clone()).bool()),
            old_log_probs: of(&recorded.old_log_probs),
            advantages: (of(&recorded.advantages) - minibatch.mean) / minibatch.deviation,
            returns: of(&recorded.returns),
            old_values: of(&recorded.old_values),
        };
        (float::<B, 2>(&self.x).select(0, rows), batch)
    }
}

impl<B: Backend> Recorded<B> {
    pub(crate) fn new(batch: PpoBatch<B>) -> Self {
        let primitive = |t: Tensor<B, 1>| t.into_primitive().tensor();
        Self {
            actions: batch.actions.into_primitive(),
            mask: batch.mask.map(Tensor::into_primitive),
            old_log_probs: primitive(batch.old_log_probs),
            advantages: primitive(batch.advantages),
            returns: primitive(batch.returns),
            old_values: primitive(batch.old_values),
        }
    }
}

fn float<B: Backend, const D: usize>(primitive: &FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive.clone()))
}

/// The rows of a minibatch, and how its advantages are normalised: `(advantage - mean) / deviation`.
#[derive(Debug, Clone, Copy)]
pub struct PpoRows<'a> {
    /// Places of the rows in the data, in any order.
    pub rows: &'a [usize],
    /// 0 for advantages as they are.
    pub mean: f64,
    /// 1 for advantages as they are.
    pub deviation: f64,
}

/// A loss, what it was made of, and its gradients.
#[derive(Debug)]
pub struct Evaluated<B: Backend> {
    /// The loss.
    pub loss: f32,
    /// Its statistics, see [`ppo_stats`].
    pub stats: [f32; ppo_stats::COUNT],
    /// The first logit that is NaN or infinite, masked or not.
    pub bad_logit: Option<f32>,
    /// The loss's gradients by the parameters of actor and critic.
    pub gradients: [FlatGradient<B>; 2],
}

/// [`ppo_loss`](crate::ppo_loss()) of `[R, A]` logits by `actor` and `[R]` values by `critic` of the same rows of
/// `data`, with its gradients by their parameters, after the steps that are due.
///
/// The gradients come with the loss, so that no graph has to be kept of what led to it. On the CPU each chunk
/// of rows is fetched, goes through a network, its terms of the loss and back while it is in cache; the bits are those
/// of the three operations and their backward passes. `B` is the autodiff backend that finds the gradients elsewhere.
/// Panics if shapes differ or there is no such row.
pub fn flat_ppo_loss<B: OpsAutodiffBackend>(
    data: &PpoData<B::InnerBackend>,
    minibatch: &PpoRows<'_>,
    actor: Network<'_, B::InnerBackend>,
    critic: Network<'_, B::InnerBackend>,
    config: &PpoLossConfig,
) -> Evaluated<B::InnerBackend> {
    let (columns, rows) = (data.x.shape()[1], data.rows());
    for network in [&actor, &critic] {
        network.mlp.check(columns, network.parameters.shape().num_elements());
    }
    assert_eq!(critic.mlp.outputs(), 1, "flat_ppo_loss: outputs of the critic");
    if let Some(mask) = &data.recorded.mask {
        assert_eq!(
            mask.shape()[1],
            actor.mlp.outputs(),
            "flat_ppo_loss: actions of the mask and of the actor"
        );
    }
    assert!(!minibatch.rows.is_empty(), "flat_ppo_loss: an empty minibatch has no mean");
    let last = minibatch.rows.iter().copied().max().unwrap_or_default();
    assert!(last < rows, "flat_ppo_loss: row {last} of {rows}");
    B::flat_ppo_loss(data, minibatch, [actor, critic], config)
}

/// [`flat_ppo_loss`] as three operations and what autodiff finds of them.
pub fn composed<B: OpsAutodiffBackend>(
    data: &PpoData<B::InnerBackend>,
    minibatch: &PpoRows<'_>,
    networks: [Network<'_, B::InnerBackend>; 2],
    config: &PpoLossConfig,
) -> Evaluated<B::InnerBackend> {
    let (x, batch) = data.select(minibatch);
    let x = Tensor::<B, 2>::from_inner(x);
    let [actor, critic] = networks.map(|Network { mlp, parameters, step }| {
        step.into_iter().for_each(|step| step.take(parameters));
        (mlp, Tensor::<B, 1>::from_inner(float(parameters)).require_grad())
    });
    let logits = composed::flat_mlp(x.clone(), actor.1.clone(), actor.0);
    let values = composed::flat_mlp_column(x, critic.1.clone(), critic.0);
    let (loss, stats) = composed::ppo_loss(logits.clone(), values, PpoBatch::from_inner(batch), config);
    let mut found = loss.backward();
    let gradient = |(mlp, leaf): (&FlatMlp, Tensor<B, 1>)| {
        let gradient = leaf.grad_remove(&mut found).expect("the loss depends on both networks");
        FlatGradient::new(gradient.into_primitive().tensor(), mlp)
    };
    let gradients = [actor, critic].map(gradient);
    let numbers = Tensor::cat(vec![loss.inner(), stats.inner()], 0).into_data().convert::<f32>();
    let numbers: Vec<f32> = numbers.into_vec().expect("converted to f32");
    Evaluated {
        loss: numbers[0],
        stats: std::array::from_fn(|at| numbers[1 + at]),
        bad_logit: first_non_finite(&logits.inner()),
        gradients,
    }
}
