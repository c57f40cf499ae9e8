//! The generic batch: time limit, same-step reset, statistics, streams and saved state.

use gatefold_env::{
    Action, Batch, BatchEnv, EnvError, EnvSpec, Environment, Episode, EpisodeEnd, ObservationBatch,
    ObservationView, Purpose, StepResults, StreamRng, Transition, stream,
};
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Shows how many steps the episode has seen and a number drawn at its start. Action 1 kills.
#[derive(Clone, Serialize, Deserialize)]
struct Clock {
    config: ClockConfig,
    steps: u32,
    drawn: f32,
}

#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
struct ClockConfig {
    limit: Option<u32>,
    extra_features: usize,
}

impl Environment for Clock {
    type Config = ClockConfig;

    fn new(config: &ClockConfig) -> Result<Self, EnvError> {
        Ok(Self { config: config.clone(), steps: 0, drawn: 0.0 })
    }

    fn spec(&self) -> EnvSpec {
        let num_features = 2 + self.config.extra_features;
        EnvSpec { max_episode_steps: self.config.limit, ..EnvSpec::new(num_features, 2) }
    }

    fn reset(&mut self, rng: &mut StreamRng) {
        self.steps = 0;
        self.drawn = rng.random();
    }

    fn step(&mut self, action: Action, _rng: &mut StreamRng) -> Transition {
        self.steps += 1;
        let end = (action.index() == 1).then_some(EpisodeEnd::Terminated);
        Transition { reward: 0.5 * self.steps as f32, score: 10.0 * f64::from(self.steps), end }
    }

    fn observe(&self, view: &mut ObservationView<'_>) {
        view.features.fill(0.0);
        view.features[0] = self.steps as f32;
        view.features[1] = self.drawn;
    }
}

struct Bench {
    batch: Batch<Clock>,
    observations: ObservationBatch,
    results: StepResults,
}

fn clocks(num_envs: usize, limit: Option<u32>) -> Bench {
    let batch = Batch::new(&ClockConfig { limit, extra_features: 0 }, num_envs, 7).unwrap();
    let observations = ObservationBatch::new(batch.spec(), num_envs);
    let results = StepResults::new(batch.spec(), num_envs);
    let mut bench = Bench { batch, observations, results };
    bench.batch.reset(bench.observations.as_mut()).unwrap();
    bench
}

impl Bench {
    fn step(&mut self, actions: &[usize]) {
        let actions: Vec<_> = actions.iter().map(|&a| Action::Discrete(a)).collect();
        self.batch.step(&actions, self.observations.as_mut(), &mut self.results).unwrap();
    }
}

#[test]
fn the_time_limit_truncates_and_a_death_on_the_last_step_still_terminates() {
    let mut bench = clocks(2, Some(3));
    bench.step(&[0, 0]);
    bench.step(&[0, 0]);
    assert_eq!(bench.results.ends, [None, None]);
    bench.step(&[0, 1]);
    assert_eq!(bench.results.ends, [Some(EpisodeEnd::Truncated), Some(EpisodeEnd::Terminated)]);
}

#[test]
fn an_episode_that_ends_is_reset_in_the_same_step_and_keeps_its_final_observation() {
    let mut bench = clocks(2, None);
    bench.step(&[0, 0]);
    let drawn = bench.observations.features[3];
    bench.step(&[0, 1]);
    assert_eq!(bench.results.finals.features[2..], [2.0, drawn]);
    assert_eq!(bench.observations.features[0], 2.0);
    assert_eq!(bench.observations.features[2], 0.0);
    assert_ne!(bench.observations.features[3], drawn);
    bench.step(&[0, 0]);
    assert_eq!(bench.results.ends, [None, None]);
    assert!(bench.results.finished.is_empty());
    assert_eq!(bench.observations.features[2], 1.0);
}

#[test]
fn statistics_are_those_of_the_episode_and_the_score_is_read_before_the_reset() {
    let mut bench = clocks(3, None);
    for actions in [[0, 1, 0], [0, 0, 0], [1, 0, 1]] {
        bench.step(&actions);
    }
    let episode = |env| Episode {
        env,
        episode_return: 0.5 + 1.0 + 1.5,
        score: 30.0,
        length: 3,
        end: EpisodeEnd::Terminated,
    };
    assert_eq!(bench.results.finished, [episode(0), episode(2)]);
    assert_eq!(bench.results.rewards, [1.5, 1.0, 1.5]);
}

#[test]
fn environment_i_draws_from_stream_i_of_the_seed() {
    let bench = clocks(5, None);
    for i in 0..5 {
        let expected: f32 = stream(7, Purpose::Environment, i as u64).random();
        assert_eq!(bench.observations.features[2 * i + 1], expected);
    }
}

#[test]
fn a_single_environment_goes_on_as_the_batch_does() {
    let mut bench = clocks(2, None);
    bench.step(&[0, 0]);
    let mut single = bench.batch.single(1).unwrap();
    bench.step(&[0, 1]);
    assert_eq!(single.step(Action::Discrete(1)).end, Some(EpisodeEnd::Terminated));
    single.reset();
    let mut alone = ObservationBatch::new(bench.batch.spec(), 1);
    single.observe(&mut alone.as_mut().row(0));
    assert_eq!(alone.features, bench.observations.features[2..]);
}

#[test]
fn a_saved_batch_goes_on_where_it_stood_in_the_middle_of_an_episode() {
    let (mut first, mut second) = (clocks(2, Some(3)), clocks(2, Some(3)));
    for _ in 0..4 {
        first.step(&[0, 0]);
    }
    second.batch.load(&first.batch.save().unwrap()).unwrap();
    for _ in 0..5 {
        first.step(&[0, 0]);
        second.step(&[0, 0]);
        assert_eq!(first.observations, second.observations);
        assert_eq!(first.results.finished, second.results.finished);
    }
}

#[test]
fn states_that_do_not_fit_are_refused_with_the_reason_and_change_nothing() {
    let mut bench = clocks(2, Some(3));
    let good = bench.batch.save().unwrap();
    let name = good.windows(5).position(|window| window == b"clock").expect("a state says its name");
    let watch = [&good[..name], b"watch", &good[name + 5..]].concat();
    let wider = ClockConfig { limit: Some(3), extra_features: 1 };
    let cases = [
        (Vec::new(), ""),
        (good[..good.len() - 1].to_vec(), ""),
        ([&good[..], &[0]].concat(), "1 bytes too long"),
        (clocks(3, Some(3)).batch.save().unwrap(), "holds 3 environments, this run has 2"),
        (Batch::<Clock>::new(&wider, 2, 7).unwrap().save().unwrap(), "other sizes"),
        (watch, "was saved by `watch`"),
    ];
    for (state, reason) in cases {
        let message = bench.batch.load(&state).unwrap_err().to_string();
        assert!(message.starts_with("saved state of `clock`: "), "{message}");
        assert!(message.contains(reason), "{message} lacks {reason}");
        assert_eq!(bench.batch.save().unwrap(), good);
    }
}

#[test]
fn a_batch_of_none_is_an_error() {
    let error = Batch::<Clock>::new(&ClockConfig::default(), 0, 1).err().unwrap();
    assert_eq!(error.to_string(), "[env] num_envs = 0: need at least 1");
}
