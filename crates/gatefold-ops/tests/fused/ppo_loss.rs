use burn::backend::Flex;
use burn::tensor::{Bool, DType, Int, Tensor, TensorData, TensorMetadata, TensorPrimitive, ops::FloatTensor};
use gatefold_ops::{
    Activation, AdamwStep, Evaluated, FlatMlp, Network, PendingStep, PpoBatch, PpoData, PpoLossConfig,
    PpoRows, adamw_in_place, composed, flat_mlp, flat_mlp_column, flat_ppo_loss, log_softmax_rows,
    masked_log_softmax, ppo_loss, ppo_stats, squared_norms_of_parts,
};
use proptest::prelude::*;

use crate::support::*;

// B rows, A actions

struct Case {
    logits: Vec<f32>,
    values: Vec<f32>,
    actions: Vec<i32>,
    mask: Option<Vec<bool>>,
    old_log_probs: Vec<f32>,
    advantages: Vec<f32>,
    returns: Vec<f32>,
    old_values: Vec<f32>,
    num_actions: usize,
}

const CONFIG: PpoLossConfig =
    PpoLossConfig { clip: 0.2, value_clip: Some(0.3), value_coef: 0.25, entropy_coef: 0.01 };

impl Case {
    fn new(rows: usize, num_actions: usize, masked: bool, seed: u64) -> Self {
        let mut n = Numbers::new(seed);
        let actions: Vec<i32> = (0..rows).map(|_| n.below(num_actions) as i32).collect();
        let mask = masked.then(|| {
            let allowed = |at| at % num_actions == actions[at / num_actions] as usize;
            (0..rows * num_actions).map(|at| n.next() > 0.0 || allowed(at)).collect()
        });
        let mut case = Self {
            logits: n.vec(rows * num_actions).into_iter().map(|x| 3.0 * x).collect(),
            values: n.vec(rows),
            actions,
            mask,
            old_log_probs: vec![],
            advantages: n.vec(rows),
            returns: n.vec(rows),
            old_values: n.vec(rows),
            num_actions,
        };
        let host = case.host_log_probs();
        case.old_log_probs =
            (0..rows).map(|b| host[b * num_actions + case.actions[b] as usize] + 0.5 * n.next()).collect();
        case
    }

    fn rows(&self) -> usize {
        self.values.len()
    }

    fn host_log_probs(&self) -> Vec<f32> {
        let mut all = vec![0.0; self.logits.len()];
        log_softmax_rows(&self.logits, self.mask.as_deref(), self.num_actions, &mut all);
        all
    }

    fn mask(&self) -> Option<Tensor<Train, 2, Bool>> {
        let shape = [self.rows(), self.num_actions];
        let tensor = |mask: &Vec<bool>| TensorData::new(mask.clone(), shape);
        self.mask.as_ref().map(|mask| Tensor::from_data(tensor(mask), &Default::default()))
    }

    fn batch(&self) -> PpoBatch<Train> {
        let rows = [self.rows()];
        let floats = |v: &Vec<f32>| data(&from_vec(v.clone(), rows));
        PpoBatch {
            actions: Tensor::<Train, 1, Int>::from_data(
                TensorData::new(self.actions.clone(), rows),
                &Default::default(),
            ),
            mask: self.mask(),
            old_log_probs: floats(&self.old_log_probs),
            advantages: floats(&self.advantages),
            returns: floats(&self.returns),
            old_values: floats(&self.old_values),
        }
    }

    /// Some of the rows, their advantages normalised.
    fn minibatch(&self, of: &PpoRows<'_>) -> PpoBatch<Train> {
        let pick = |all: &[f32]| of.rows.iter().map(|&row| all[row]).collect::<Vec<_>>();
        let normal = |a: f32| ((f64::from(a) - of.mean) / of.deviation) as f32;
        let actions = self.num_actions;
        let mask = |mask: &Vec<bool>| {
            of.rows.iter().flat_map(|row| mask[row * actions..][..actions].iter().copied()).collect()
        };
        let picked = Self {
            logits: Vec::new(),
            values: vec![0.0; of.rows.len()],
            actions: of.rows.iter().map(|&row| self.actions[row]).collect(),
            mask: self.mask.as_ref().map(mask),
            old_log_probs: pick(&self.old_log_probs),
            advantages: pick(&self.advantages).into_iter().map(normal).collect(),
            returns: pick(&self.returns),
            old_values: pick(&self.old_values),
            num_actions: self.num_actions,
        };
        picked.batch()
    }

    fn logits(&self) -> Tensor<Flex, 2> {
        from_vec(self.logits.clone(), [self.rows(), self.num_actions])
    }

    /// Loss, statistics and gradients of logits and values, the loss scaled as a caller might.
    fn run(&self, loss: Loss, config: &PpoLossConfig) -> Outcome {
        let logits = leaf(&self.logits());
        let values = leaf(&from_vec(self.values.clone(), [self.rows()]));
        let (loss, stats) = loss(logits.clone(), values.clone(), self.batch(), config);
        let grads = (loss.clone() * 1.5).backward();
        Outcome {
            loss: loss.inner(),
            stats: stats.inner(),
            logits: logits.grad(&grads).expect("logits"),
            values: values.grad(&grads).expect("values"),
        }
    }
}

type Loss = fn(
    Tensor<Train, 2>,
    Tensor<Train, 1>,
    PpoBatch<Train>,
    &PpoLossConfig,
) -> (Tensor<Train, 1>, Tensor<Train, 1>);

struct Outcome {
    loss: Tensor<Flex, 1>,
    stats: Tensor<Flex, 1>,
    logits: Tensor<Flex, 2>,
    values: Tensor<Flex, 1>,
}

proptest! {
    #![proptest_config(cases(64))]
    #[test]
    fn the_kernel_equals_the_composition(
        rows in 1usize..40, num_actions in 1usize..12, masked: bool, clip_values: bool, seed: u64,
    ) {
        let case = Case::new(rows, num_actions, masked, seed);
        let config = PpoLossConfig { value_clip: clip_values.then_some(0.3), ..CONFIG };
        let (fused, plain) = (case.run(ppo_loss, &config), case.run(composed::ppo_loss, &config));
        assert_close("loss", &fused.loss, &plain.loss);
        assert_close("statistics", &fused.stats, &plain.stats);
        assert_within("gradient of the logits", 1e-5, 0.05, &fused.logits, &plain.logits);
        assert_within("gradient of the values", 1e-5, 0.05, &fused.values, &plain.values);
    }

    #[test]
    fn log_probs_on_the_host_equal_those_on_the_device(
        rows in 1usize..10, num_actions in 1usize..30, masked: bool, seed: u64,
    ) {
        let case = Case::new(rows, num_actions, masked, seed);
        let device = values(&masked_log_softmax(data(&case.logits()), case.mask()).inner());
        for (host, device) in case.host_log_probs().into_iter().zip(device) {
            prop_assert!(host == device || (host - device).abs() <= 1e-5 * host.abs().max(1.0));
        }
    }
}

#[test]
fn the_ratio_is_exactly_one_for_log_probs_of_the_same_logits_on_the_host() {
    for num_actions in [2, 5, 18, 40] {
        let mut case = Case::new(100, num_actions, true, num_actions as u64);
        let host = case.host_log_probs();
        case.old_log_probs = (0..100).map(|b| host[b * num_actions + case.actions[b] as usize]).collect();
        let stats = values(&case.run(ppo_loss, &CONFIG).stats);
        assert_eq!(stats[ppo_stats::MAX_RATIO_DEVIATION], 0.0);
        assert_eq!((stats[ppo_stats::APPROX_KL], stats[ppo_stats::CLIP_FRACTION]), (0.0, 0.0));
    }
}

#[test]
fn a_hand_case_has_its_hand_computed_loss() {
    // Two equal logits: probability 1/2, entropy ln 2. Old probability 1/4: ratio 2, clipped at 1.2.
    let case = Case {
        logits: vec![0.3, 0.3],
        values: vec![1.0],
        actions: vec![1],
        mask: None,
        old_log_probs: vec![0.25f32.ln()],
        advantages: vec![3.0],
        returns: vec![3.0],
        old_values: vec![0.9],
        num_actions: 2,
    };
    let config = PpoLossConfig { value_clip: None, ..CONFIG };
    let outcome = case.run(ppo_loss, &config);
    let stats = values(&outcome.stats);
    let ln2 = std::f32::consts::LN_2;
    let expected = [-3.6, 2.0, ln2, 1.0 - ln2, 1.0, 1.0];
    for (got, expected) in stats.iter().zip(expected) {
        assert!((got - expected).abs() < 1e-5, "{stats:?}");
    }
    let loss = values(&outcome.loss)[0];
    assert!((loss - (-3.6 + 0.25 * 2.0 - 0.01 * ln2)).abs() < 1e-5);
    // The ratio is clipped and the entropy at its top: no gradient for the logits.
    assert!(values(&outcome.logits).iter().all(|d| d.abs() < 1e-7));
    assert!((values(&outcome.values)[0] - 1.5 * 0.25 * (1.0 - 3.0)).abs() < 1e-6);
}

#[test]
fn gradients_agree_with_finite_differences() {
    let case = Case::new(6, 4, true, 21);
    let grad = values(&case.run(ppo_loss, &CONFIG).logits);
    for at in 0..case.logits.len() {
        let shifted = |by: f32| {
            let mut logits = case.logits.clone();
            logits[at] += by;
            let moved = Case { logits, mask: case.mask.clone(), ..Case::new(6, 4, true, 21) };
            1.5 * values(&moved.run(ppo_loss, &CONFIG).loss)[0]
        };
        let slope = (shifted(1e-2) - shifted(-1e-2)) / 2e-2;
        assert!((slope - grad[at]).abs() < 2e-3, "{at}: {slope} {}", grad[at]);
    }
}

#[test]
fn no_nan_or_infinity_in_the_logits_is_hidden() {
    for loss in [ppo_loss as Loss, composed::ppo_loss as Loss] {
        for bad in [f32::NAN, f32::INFINITY] {
            for at in 0..3 {
                let mut case = Case::new(4, 3, false, 3);
                case.mask = Some((0..12).map(|i| i % 3 != 1 || case.actions[i / 3] == 1).collect());
                case.logits[at] = bad;
                assert!(values(&case.run(loss, &CONFIG).loss)[0].is_nan(), "{bad} at {at}");
            }
        }
        let mut case = Case::new(4, 3, false, 3);
        case.logits[(case.actions[0] as usize + 1) % 3] = f32::NEG_INFINITY;
        assert!(values(&case.run(loss, &CONFIG).loss)[0].is_nan());
    }
}

#[test]
fn masked_entries_may_be_minus_infinity_and_get_no_gradient() {
    let mut case = Case::new(20, 6, true, 8);
    let mask = case.mask.clone().expect("a mask");
    for (z, &allowed) in case.logits.iter_mut().zip(&mask) {
        if !allowed {
            *z = f32::NEG_INFINITY;
        }
    }
    for loss in [ppo_loss as Loss, composed::ppo_loss as Loss] {
        let outcome = case.run(loss, &CONFIG);
        assert!(values(&outcome.loss)[0].is_finite());
        for (d, &allowed) in values(&outcome.logits).into_iter().zip(&mask) {
            assert!(d.is_finite() && (allowed || d == 0.0));
        }
    }
}

type Seen = [Tensor<Flex, 1>; 4];

/// Actor and critic of some sizes on data of `rows` rows.
struct Networks {
    x: Tensor<Flex, 2>,
    actor: (FlatMlp, Tensor<Flex, 1>),
    critic: (FlatMlp, Tensor<Flex, 1>),
}

impl Networks {
    fn new(rows: usize, num_actions: usize, inputs: usize, hidden: &[usize], seed: u64) -> Self {
        let mut n = Numbers::new(seed);
        let mut network = |outputs| {
            let layers = hidden.iter().map(|&width| (width, Activation::Tanh));
            let mlp = FlatMlp::new(inputs, layers.chain([(outputs, Activation::Identity)]).collect());
            let parameters = n.tensor([mlp.sizes().sum()]);
            (mlp, parameters)
        };
        Self { actor: network(num_actions), critic: network(1), x: n.tensor([rows, inputs]) }
    }

    /// Loss, statistics and the gradients of both networks' parameters.
    fn run(
        &self,
        case: &Case,
        minibatch: &PpoRows<'_>,
        loss: impl Fn(&PpoData<Flex>, &PpoRows<'_>, [Network<'_, Flex>; 2]) -> Evaluated<Flex>,
    ) -> Seen {
        let [mut actor, mut critic] = self.parameters();
        let seen = loss(
            &self.data(case),
            minibatch,
            [
                Network { mlp: &self.actor.0, parameters: &mut actor, step: None },
                Network { mlp: &self.critic.0, parameters: &mut critic, step: None },
            ],
        );
        for (gradient, mlp) in seen.gradients.iter().zip([&self.actor.0, &self.critic.0]) {
            let sizes: Vec<_> = mlp.sizes().collect();
            assert_eq!(gradient.squares, squared_norms_of_parts::<Flex>(&gradient.values, &sizes));
        }
        assert_eq!(seen.bad_logit, None);
        let [actor, critic] =
            seen.gradients.map(|of| Tensor::from_primitive(TensorPrimitive::Float(of.values)));
        [from_vec(vec![seen.loss], [1]), from_vec(seen.stats.to_vec(), [6]), actor, critic]
    }

    fn data(&self, case: &Case) -> PpoData<Flex> {
        PpoData::new(self.x.clone(), case.batch().inner())
    }

    fn parameters(&self) -> [FloatTensor<Flex>; 2] {
        [&self.actor, &self.critic].map(|(_, parameters)| parameters.clone().into_primitive().tensor())
    }

    /// The same by networks and loss one after the other, and their backward passes.
    fn apart(&self, case: &Case, minibatch: &PpoRows<'_>) -> Seen {
        let rows: Vec<i32> = minibatch.rows.iter().map(|&row| row as i32).collect();
        let rows = Tensor::from_data(TensorData::new(rows, [minibatch.rows.len()]), &Default::default());
        let x = data(&self.x).select(0, rows);
        let (actor, critic) = (leaf(&self.actor.1), leaf(&self.critic.1));
        let logits = flat_mlp(x.clone(), actor.clone(), &self.actor.0);
        let values = flat_mlp_column(x, critic.clone(), &self.critic.0);
        let (loss, stats) = ppo_loss(logits, values, case.minibatch(minibatch), &CONFIG);
        let found = loss.backward();
        let [actor, critic] = [actor, critic].map(|leaf| leaf.grad(&found).expect("a gradient"));
        [loss.inner(), stats.inner(), actor, critic]
    }
}

/// Rows, actions, inputs and hidden layers.
const SIZES: [(usize, usize, usize, &[usize]); 6] = [
    (1, 2, 4, &[16]),
    (64, 2, 5, &[64, 64]),
    (255, 9, 1, &[20]),
    (300, 3, 11, &[33, 17]),
    (1100, 4, 8, &[16, 16, 16]),
    (90, 5, 3, &[300, 200]),
];

/// Places of `count` rows of so many, in any order, some of them several times.
fn places(count: usize, rows: usize, seed: u64) -> Vec<usize> {
    let mut n = Numbers::new(seed);
    (0..count).map(|_| n.below(rows)).collect()
}

fn fused(case: &Case, minibatch: &PpoRows<'_>, networks: &Networks) -> Seen {
    networks.run(case, minibatch, |data, minibatch, [actor, critic]| {
        flat_ppo_loss::<Train>(data, minibatch, actor, critic, &CONFIG)
    })
}

#[test]
fn the_loss_of_two_networks_has_the_bits_of_networks_and_loss_one_after_the_other() {
    for (seed, (rows, num_actions, inputs, hidden)) in SIZES.into_iter().enumerate() {
        let seed = seed as u64;
        let case = Case::new(rows, num_actions, seed.is_multiple_of(2), seed);
        let networks = Networks::new(rows, num_actions, inputs, hidden, seed);
        let all: Vec<usize> = (0..rows).collect();
        let some = places(rows.div_ceil(2), rows, seed);
        for minibatch in [
            PpoRows { rows: &all, mean: 0.0, deviation: 1.0 },
            PpoRows { rows: &some, mean: 0.25, deviation: 1.5 },
        ] {
            let (fused, apart) = (fused(&case, &minibatch, &networks), networks.apart(&case, &minibatch));
            assert_eq!(fused.each_ref().map(bits), apart.each_ref().map(bits), "{rows} rows");
            let composed = networks.run(&case, &minibatch, |data, minibatch, networks| {
                composed::flat_ppo_loss::<Train>(data, minibatch, networks, &CONFIG)
            });
            for (fused, composed) in fused.iter().zip(&composed) {
                assert_close("fused and composed", fused, composed);
            }
        }
    }
}

#[test]
fn the_loss_of_two_networks_does_not_depend_on_the_number_of_threads() {
    for rows in [1500, 100] {
        let at = |threads| {
            let seen = || {
                let (case, networks) = (Case::new(rows, 3, true, 4), Networks::new(rows, 3, 5, &[48, 48], 5));
                let minibatch = PpoRows { rows: &places(rows, rows, 6), mean: 0.5, deviation: 2.0 };
                fused(&case, &minibatch, &networks).each_ref().map(bits)
            };
            with_threads(threads, seen)
        };
        assert_eq!(at(1), at(2), "{rows} rows");
    }
}

#[test]
fn the_loss_of_two_networks_of_views_or_long_integers_is_that_of_copies() {
    let (case, networks) = (Case::new(40, 3, true, 1), Networks::new(40, 3, 6, &[8], 2));
    let minibatch = PpoRows { rows: &places(24, 40, 3), mean: 0.1, deviation: 0.7 };
    let expected = fused(&case, &minibatch, &networks);
    let turned = from_vec::<2>(values(&networks.x.clone().transpose()), [6, 40]).transpose();
    let view = Networks { x: turned, ..networks };
    assert_eq!(fused(&case, &minibatch, &view).each_ref().map(bits), expected.each_ref().map(bits));
    let batch = case.batch().inner();
    let long = PpoBatch { actions: batch.actions.clone().cast(DType::I64), ..batch };
    let long = PpoData::new(view.x.clone(), long);
    let got = view.run(&case, &minibatch, |_, minibatch, [actor, critic]| {
        flat_ppo_loss::<Train>(&long, minibatch, actor, critic, &CONFIG)
    });
    assert_eq!(got.each_ref().map(bits), expected.each_ref().map(bits));
}

#[test]
fn the_loss_of_two_networks_takes_the_steps_that_are_due_first() {
    let (case, networks) = (Case::new(300, 3, true, 1), Networks::new(300, 3, 6, &[8, 9], 2));
    let minibatch = PpoRows { rows: &places(100, 300, 3), mean: 0.1, deviation: 0.7 };
    let numbers = AdamwStep {
        lr: 0.01,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-5,
        weight_decay: 0.01,
        grad_scale: 0.5,
        bias_correction1: 0.1,
        bias_correction2: 0.001,
    };
    type Loss<'a> = &'a dyn Fn([Network<'_, Flex>; 2]) -> Evaluated<Flex>;
    let data = networks.data(&case);
    let fused: Loss<'_> =
        &|[actor, critic]| flat_ppo_loss::<Train>(&data, &minibatch, actor, critic, &CONFIG);
    let composed: Loss<'_> =
        &|networks| composed::flat_ppo_loss::<Train>(&data, &minibatch, networks, &CONFIG);
    fn network<'a>(
        mlp: &'a FlatMlp,
        parameters: &'a mut FloatTensor<Flex>,
        step: Option<PendingStep<'a, Flex>>,
    ) -> Network<'a, Flex> {
        Network { mlp, parameters, step }
    }
    for loss in [fused, composed] {
        let [mut actor, mut critic] = networks.parameters();
        let [actor_due, critic_due] = networks.parameters();
        let zeros = |of: &FloatTensor<Flex>| Tensor::<Flex, 1>::zeros(of.shape(), &Default::default());
        let mut moments = [&actor, &actor, &critic, &critic].map(|of| zeros(of).into_primitive().tensor());
        let [m, v, critic_m, critic_v] = &mut moments;
        let of_actor = PendingStep { gradient: actor_due.clone(), moments: [m, v], numbers };
        let of_critic = PendingStep { gradient: critic_due.clone(), moments: [critic_m, critic_v], numbers };
        let seen = loss([
            network(&networks.actor.0, &mut actor, Some(of_actor)),
            network(&networks.critic.0, &mut critic, Some(of_critic)),
        ]);

        let [mut expected_actor, mut expected_critic] = networks.parameters();
        let mut expected = [&actor, &actor, &critic, &critic].map(|of| zeros(of).into_primitive().tensor());
        let [m, v, critic_m, critic_v] = &mut expected;
        adamw_in_place::<Flex>(&mut expected_actor, actor_due, [m, v], &numbers);
        adamw_in_place::<Flex>(&mut expected_critic, critic_due, [critic_m, critic_v], &numbers);
        let after = loss([
            network(&networks.actor.0, &mut expected_actor, None),
            network(&networks.critic.0, &mut expected_critic, None),
        ]);
        let bits_of = |of: &FloatTensor<Flex>| {
            bits(&Tensor::<Flex, 1>::from_primitive(TensorPrimitive::Float(of.clone())))
        };
        assert_eq!((seen.loss.to_bits(), seen.stats), (after.loss.to_bits(), after.stats));
        assert_eq!([&actor, &critic].map(bits_of), [&expected_actor, &expected_critic].map(bits_of));
        assert_eq!(moments.each_ref().map(bits_of), expected.each_ref().map(bits_of));
        assert_ne!(bits_of(&actor), bits(&networks.actor.1));
    }
}

#[test]
fn the_loss_of_two_networks_tells_of_a_logit_that_is_not_finite() {
    let case = Case::new(600, 3, true, 1);
    let networks = Networks::new(600, 3, 6, &[8], 2);
    let mut x = values(&networks.x);
    x[6 * 550 + 2] = f32::NAN;
    let networks = Networks { x: from_vec(x, [600, 6]), ..networks };
    let [mut actor, mut critic] = networks.parameters();
    let mut bad = |rows: &[usize]| {
        let minibatch = PpoRows { rows, mean: 0.0, deviation: 1.0 };
        let actor = Network { mlp: &networks.actor.0, parameters: &mut actor, step: None };
        let critic = Network { mlp: &networks.critic.0, parameters: &mut critic, step: None };
        flat_ppo_loss::<Train>(&networks.data(&case), &minibatch, actor, critic, &CONFIG).bad_logit
    };
    let all: Vec<usize> = (0..600).collect();
    assert!(bad(&all).is_some_and(f32::is_nan));
    assert_eq!(bad(&all[..550]), None);
}

#[test]
#[should_panic(expected = "row 40 of 40")]
fn the_loss_of_two_networks_names_a_row_that_there_is_not() {
    let (case, networks) = (Case::new(40, 3, false, 1), Networks::new(40, 3, 6, &[8], 2));
    fused(&case, &PpoRows { rows: &[3, 40], mean: 0.0, deviation: 1.0 }, &networks);
}

#[test]
#[should_panic(expected = "action 3, but there are 3")]
fn the_loss_of_two_networks_names_an_action_that_there_is_not() {
    let (mut case, networks) = (Case::new(40, 3, false, 1), Networks::new(40, 3, 6, &[8], 2));
    case.actions[7] = 3;
    fused(&case, &PpoRows { rows: &[7], mean: 0.0, deviation: 1.0 }, &networks);
}
