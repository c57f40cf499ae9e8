//! The faults of the published implementation that this method comes from, one test each, named after
//! the fault that it would catch. (That a scheduler overwrote the phase's learning rate is tested in
//! `gatefold-curriculum`.)

use burn::backend::Flex;
use burn::module::AutodiffModule;
use gatefold_curriculum::{Plan, Routing};
use gatefold_env::{Action, Environment, EpisodeEnd, ObservationBatch, Params, Purpose, stream};
use gatefold_monitor::names::TRAIN_RATIO_DEVIATION_FIRST;
use gatefold_optim::{export, import};
use gatefold_policy::{Architecture, RoutingInput};
use gatefold_ppo::{Batch, RewardConfig, RewardScaler, RewardScaling, UpdateError, ValueLoss};
use gatefold_router::{GateStatistics, route};
use gatefold_tests::clock::{Clock, ClockConfig};
use gatefold_tests::fixture::matrix;
use gatefold_tests::tolerance::{assert_near, bits, values};
use gatefold_tests::trainee::{Train, Trainee, observation, plan, small_policy};
use gatefold_tests::{camp, clock};
use ndarray::Array2;

// T steps, N environments, K experts, A actions

const SHARP: f32 = 0.01;

fn camper() -> Trainee {
    Trainee::new(&camp::ENTRY, &Params::new(6, 11), &small_policy(Architecture::Routed, 4))
}

fn clockwork(params: &Params) -> Trainee {
    Trainee::new(&clock::ENTRY, params, &small_policy(Architecture::Mlp, 1))
}

fn first_ratio_deviation(trainee: &mut Trainee, batch: &Batch, plan: &Plan) -> f64 {
    let metrics = trainee.update(batch, plan).expect("an update");
    metrics.get(TRAIN_RATIO_DEVIATION_FIRST).expect("a metric of every update")
}

#[test]
fn sparsemax_was_a_top_2_softmax() {
    // sparsemax(z): as many gates as 1 + k z_k > sum of the k largest; a top-2 softmax has always two.
    let cases: [([f64; 4], [f64; 4]); 4] = [
        ([3.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]),
        ([1.0, 0.5, 0.0, -1.0], [0.75, 0.25, 0.0, 0.0]),
        ([0.5, 0.5, 0.25, -1.0], [0.416_666_67, 0.416_666_67, 0.166_666_67, 0.0]),
        ([0.2, 0.2, 0.2, 0.2], [0.25; 4]),
    ];
    let mut entropies = Vec::new();
    for (logits, expected) in cases {
        let gates = route(matrix::<Flex>(&[logits.to_vec()]), Routing::Sparsemax, 1.0, None);
        let gates = values(gates.alpha);
        for (&gate, expected) in gates.iter().zip(expected) {
            assert_near(&format!("{logits:?}"), f64::from(gate), expected, 1e-6);
        }
        let mut statistics = GateStatistics::new(4);
        statistics.add(&gates);
        entropies.push(statistics.usage().expect("one row").entropy);
    }
    let ln2 = std::f64::consts::LN_2;
    assert!(entropies.iter().all(|entropy| (entropy - ln2).abs() > 0.1), "pinned at ln 2: {entropies:?}");
}

#[test]
fn the_temperature_was_never_applied() {
    for routing in [Routing::Softmax, Routing::Sparsemax, Routing::Blend { weight: 0.3 }] {
        let [(warm, _), (sharp, rollout)] = [1.0, SHARP].map(|temperature| {
            let rollout = camper().collect(&plan(routing, temperature, 0.0)).expect("a rollout");
            let mut statistics = GateStatistics::new(4);
            statistics.add(&rollout.gates);
            (statistics.usage().expect("gates").entropy, rollout)
        });
        assert!(sharp < 0.7 * warm, "{routing:?}: gates' entropy {warm} at 1 and {sharp} at {SHARP}");

        let batch = camper().batch(rollout);
        let at = |temperature| first_ratio_deviation(&mut camper(), &batch, &plan(routing, temperature, 0.0));
        let (same, other) = (at(SHARP), at(1.0));
        assert!(same <= 1e-6 && other > 1e-3, "{routing:?}: ratio off by {same:.1e} and {other:.1e}");
    }
}

#[test]
fn the_graph_was_fed_in_rollouts_but_not_in_updates() {
    let mut trainee = camper();
    let plan = plan(Routing::Softmax, 0.1, 1e-2);
    let rollout = trainee.collect(&plan).expect("a rollout");
    let batch = trainee.batch(rollout);
    let mut unfed = batch.clone();
    unfed.rollout.observations.activations.fill(0.0);
    let without = first_ratio_deviation(&mut camper(), &unfed, &plan);
    assert!(without > 1e-3, "the graph has no say in the policy: ratio off by {without:.1e} without it");

    let graph = |trainee: &Trainee| {
        let parameters = export(&trainee.policy).into_iter();
        parameters.filter(|parameter| parameter.path.starts_with("graph")).collect::<Vec<_>>()
    };
    let before = graph(&trainee);
    let with = first_ratio_deviation(&mut trainee, &batch, &plan);
    assert!(with <= 1e-6, "ratio off by {with:.1e} with the graph");
    assert!(!before.is_empty(), "the policy has a graph encoder");
    for (before, after) in before.iter().zip(graph(&trainee)) {
        assert_ne!(before.data, after.data, "the update did not train {}", before.path);
    }
}

#[test]
fn the_graph_readout_was_constant_whatever_the_state() {
    let trainee = camper();
    let spec = &trainee.learner.spec;
    let rows = 32;
    let mut host = ObservationBatch::new(spec, rows);
    host.features.fill(0.5);
    for (row, activations) in host.activations.chunks_exact_mut(spec.num_nodes()).enumerate() {
        // All 16 truths of the four conditions, twice; features are the same everywhere.
        (0..4).for_each(|bit| activations[bit] = (row >> bit & 1) as f32);
    }
    let observation = observation(spec, &host, 0..rows);
    let evaluation =
        trainee.policy.valid().evaluate(&observation, RoutingInput::new(Routing::Softmax, 1.0), 0);
    let parts = [
        ("graph vector", bits(evaluation.graph.expect("a graph").graph)),
        ("router logits", bits(evaluation.gates.expect("a router").logits)),
        ("action logits", bits(evaluation.logits)),
        ("values", bits(evaluation.values)),
    ];
    for (part, all) in parts {
        let of = |row: usize| &all[row * all.len() / rows..(row + 1) * all.len() / rows];
        for row in 0..16 {
            assert_eq!(of(row), of(row + 16), "{part}: equal states {row}");
            for other in 0..row {
                assert_ne!(of(row), of(other), "{part}: states {row} and {other} look the same");
            }
        }
    }
}

#[test]
fn gae_ran_on_shuffled_steps() {
    let mut trainee = camper();
    let rollout = trainee.collect(&plan(Routing::Softmax, 1.0, 0.0)).expect("a rollout");
    let ended = |end| rollout.ends.iter().filter(|&&e| e == Some(end)).count();
    let ends = [ended(EpisodeEnd::Terminated), ended(EpisodeEnd::Truncated)];
    assert!(ends.iter().all(|&count| count > 0), "the rollout has both ends: {ends:?}");

    let (gamma, lambda) = (0.9f32, 0.8f32);
    let (steps, envs) = rollout.rewards.dim();
    let delta = Array2::from_shape_fn((steps, envs), |at| {
        let next = f64::from(gamma) * f64::from(rollout.next_values[at]);
        f64::from(rollout.rewards[at]) + next - f64::from(rollout.values[at])
    });
    // A_t = sum_l (gamma lambda)^l delta_{t+l}, l running to the end of t's episode.
    let direct = |t: usize, env: usize| {
        let (mut sum, mut weight) = (0.0, 1.0);
        for later in t..steps {
            sum += weight * delta[(later, env)];
            weight *= f64::from(gamma) * f64::from(lambda);
            if rollout.ends[(later, env)].is_some() {
                break;
            }
        }
        sum
    };
    let rewards = rollout.rewards.clone();
    let batch = rollout.clone().into_batch(&rewards, gamma, lambda);
    for t in 0..steps {
        for env in 0..envs {
            let got = f64::from(batch.advantages[(t, env)]);
            assert_near(&format!("step {t} of environment {env}"), got, direct(t, env), 1e-5);
        }
    }
    let before = batch.clone();
    trainee.update(&batch, &plan(Routing::Softmax, 1.0, 1e-3)).expect("an update");
    assert_eq!(batch.advantages, before.advantages, "the update shuffles rows, not the batch");
}

#[test]
fn truncation_was_stored_as_termination() {
    let length = 5;
    for (terminates, end) in [(true, EpisodeEnd::Terminated), (false, EpisodeEnd::Truncated)] {
        let params = Params::new(3, 1).with("length", length).with("terminates", terminates);
        let mut trainee = clockwork(&params);
        let rollout = trainee.collect(&plan(Routing::Dense, 1.0, 0.0)).expect("a rollout");
        let times: Vec<Vec<f64>> = (0..=length).map(|time| vec![time as f64]).collect();
        let mut host = ObservationBatch::new(&trainee.learner.spec, times.len());
        host.features = times.concat().into_iter().map(|time| time as f32).collect();
        let observation = observation(&trainee.learner.spec, &host, 0..times.len());
        let value = values(trainee.policy.valid().values(&observation)); // V at each time
        assert!(value[length as usize] != 0.0 && value[0] != value[length as usize]);

        for ((t, env), &stored) in rollout.ends.indexed_iter() {
            let after = t % length as usize + 1;
            let over = after == length as usize;
            assert_eq!(stored, over.then_some(end), "step {t} of environment {env}");
            let expected = if over && terminates { 0.0 } else { value[after] };
            assert_eq!(rollout.next_values[(t, env)], expected, "bootstrap of step {t}, {end:?}");
        }
        let stored = rollout.episodes.iter().map(|episode| episode.end).collect::<Vec<_>>();
        assert_eq!(stored, vec![end; 9], "three episodes in each of three environments");
    }
}

/// What stopped an iteration.
#[derive(Debug, PartialEq)]
enum Stopped {
    /// A rollout that met a number that is none.
    Rollout,
    /// An update that did.
    Update,
}

/// One iteration; any other error than that of a number that is none is a failure.
fn stopped(trainee: &mut Trainee, plan: &Plan) -> Option<Stopped> {
    match trainee.collect(plan) {
        Err(error) if error.non_finite_at().is_some() => Some(Stopped::Rollout),
        Err(error) => panic!("{error}"),
        Ok(rollout) => {
            let batch = trainee.batch(rollout);
            let Err(UpdateError::NonFinite { value, .. }) = trainee.update(&batch, plan) else { return None };
            assert!(!value.is_finite(), "stopped by {value}");
            Some(Stopped::Update)
        }
    }
}

#[test]
fn nans_of_rewards_were_masked_before_the_guard_looked() {
    let plan = plan(Routing::Dense, 1.0, 1e-3);
    let broken = Params::new(2, 1).with("nan_reward_at", 2);
    for scaling in [RewardScaling::Off, RewardScaling::Returns, RewardScaling::Standardize] {
        for (value_loss, value_clip) in
            [(ValueLoss::Mse, 0.0), (ValueLoss::Mse, 0.2), (ValueLoss::Huber, 0.0)]
        {
            for normalize_advantages in [true, false] {
                let outcome = |params: &Params| {
                    let mut trainee = clockwork(params);
                    trainee.rewards = RewardScaler::new(RewardConfig { scaling, clip: 10.0 }, 2);
                    let ppo = &mut trainee.learner.ppo;
                    (ppo.value_loss, ppo.value_clip) = (value_loss, value_clip);
                    ppo.normalize_advantages = normalize_advantages;
                    stopped(&mut trainee, &plan)
                };
                let case = format!("{scaling:?}, {value_loss:?}, clip {value_clip}, {normalize_advantages}");
                assert_eq!(outcome(&broken), Some(Stopped::Rollout), "{case}");
                assert_eq!(outcome(&Params::new(2, 1)), None, "{case}, without a NaN");
            }
        }
    }
}

#[test]
fn nans_of_observations_were_masked_before_the_guard_looked() {
    // time of the NaN, length of an episode: seen while acting, only as a final observation, only
    // as the observation after the last step.
    for (at, length) in [(2, 4), (4, 4), (16, 20)] {
        for normalize in [false, true] {
            let params = Params::new(2, 1).with("nan_feature_at", at).with("length", length);
            let mut config = small_policy(Architecture::Mlp, 1);
            config.normalize_observations = normalize;
            let mut trainee = Trainee::new(&clock::ENTRY, &params, &config);
            let outcome = stopped(&mut trainee, &plan(Routing::Dense, 1.0, 1e-3));
            assert_eq!(outcome, Some(Stopped::Rollout), "NaN at {at} of {length}, normalised {normalize}");
        }
    }
}

#[test]
fn nans_of_parameters_were_masked_before_the_guard_looked() {
    let params = Params::new(2, 11);
    let config = small_policy(Architecture::Routed, 4);
    for routing in [Routing::Softmax, Routing::Sparsemax] {
        let plan = plan(routing, SHARP, 1e-3);
        assert!(stopped(&mut Trainee::new(&camp::ENTRY, &params, &config), &plan).is_none(), "healthy");
        let parameters = export(&Trainee::new(&camp::ENTRY, &params, &config).policy);
        for poisoned in 0..parameters.len() {
            let mut tensors = parameters.clone();
            tensors[poisoned].data[0] = f32::NAN;
            let mut trainee = Trainee::new(&camp::ENTRY, &params, &config);
            trainee.policy = import::<Train, _>(trainee.policy, &tensors).expect("the same shapes");
            let outcome = stopped(&mut trainee, &plan);
            assert!(outcome.is_some(), "{routing:?}: a NaN in {} goes on", tensors[poisoned].path);
        }
    }
}

#[test]
fn nans_of_masked_actions_were_masked_before_the_guard_looked() {
    let mut trainee = camper();
    let mut tensors = export(&trainee.policy);
    let last = tensors.iter_mut().rfind(|t| t.path.starts_with("head") && t.path.ends_with("bias"));
    let last = last.expect("the experts' last bias");
    assert_eq!(last.shape, [4, camp::NUM_ACTIONS]);
    last.data.iter_mut().skip(camp::FORBIDDEN).step_by(camp::NUM_ACTIONS).for_each(|x| *x = f32::NAN);
    trainee.policy = import::<Train, _>(trainee.policy, &tensors).expect("the same shapes");
    let outcome = stopped(&mut trainee, &plan(Routing::Softmax, 1.0, 1e-3));
    // An action that is never allowed takes no part, but its logit is looked at before the mask.
    assert_eq!(outcome, Some(Stopped::Rollout));
}

#[test]
fn the_score_was_read_after_the_game_had_zeroed_it() {
    for terminates in [true, false] {
        let params = Params::new(2, 1).with("length", 4).with("terminates", terminates);
        let rollout = clockwork(&params).collect(&plan(Routing::Dense, 1.0, 0.0)).expect("a rollout");
        assert_eq!(rollout.episodes.len(), 8, "four episodes in each of two environments");
        for episode in &rollout.episodes {
            assert_eq!((episode.score, episode.episode_return), (40.0, 1.0 + 2.0 + 3.0 + 4.0));
        }
    }
    // What a reader that comes too late would see.
    let mut game = Clock::new(&ClockConfig::default()).expect("the clock builds");
    let mut rng = stream(1, Purpose::Environment, 0);
    game.reset(&mut rng);
    assert_eq!(game.step(Action::Discrete(0), &mut rng).score, 10.0);
    game.reset(&mut rng);
    assert_eq!(game.score(), 0.0);
}
