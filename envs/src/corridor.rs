//! Corridor: reward 1 for every step, cut by the clock. The test of bootstrapping after truncation.

use gatefold_env::{
    Action, EnvEntry, EnvError, EnvSpec, Environment, NoOptions, ObservationView, StreamRng, Transition,
};
use serde::{Deserialize, Serialize};

/// The row of the table.
pub const ENTRY: EnvEntry =
    EnvEntry::new::<Corridor>("corridor", "Reward 1 for ever, cut after 8 steps; V must reach 1/(1 - gamma)");

/// Steps until the clock cuts an episode.
pub const LENGTH: u32 = 8;

/// Reward 1 whatever one does, for ever, but the clock cuts every episode.
///
/// - Observation: one feature, always 1, so that no learner can see the cut coming.
/// - Actions: 2, without effect. Reward: 1.
/// - Ends: truncated after [`LENGTH`] steps; nothing terminates. Score: the return so far.
/// - Best return: 8, for every policy. The value of the only state is `1 / (1 - gamma)`: 10 at
///   gamma 0.9. A learner that takes the cut for a termination finds far less.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Corridor {
    score: f64,
}

impl Environment for Corridor {
    type Config = NoOptions;

    fn new(_config: &NoOptions) -> Result<Self, EnvError> {
        Ok(Self { score: 0.0 })
    }

    fn spec(&self) -> EnvSpec {
        EnvSpec { max_episode_steps: Some(LENGTH), ..EnvSpec::new(1, 2) }
    }

    fn reset(&mut self, _rng: &mut StreamRng) {
        self.score = 0.0;
    }

    fn step(&mut self, _action: Action, _rng: &mut StreamRng) -> Transition {
        self.score += 1.0;
        Transition { reward: 1.0, score: self.score, end: None }
    }

    fn observe(&self, view: &mut ObservationView<'_>) {
        view.features[0] = 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatefold_env::conformance::{Settings, check};
    use gatefold_env::{Episode, EpisodeEnd, ObservationBatch, Params, StepResults};

    #[test]
    fn it_keeps_the_contract() {
        check(&ENTRY, &Settings::deterministic()).unwrap();
    }

    #[test]
    fn every_episode_is_cut_after_8_steps_with_return_8() {
        let mut batch = (ENTRY.build)(&Params::new(1, 1)).unwrap();
        let mut seen = ObservationBatch::new(batch.spec(), 1);
        let mut results = StepResults::new(batch.spec(), 1);
        batch.reset(seen.as_mut()).unwrap();
        let end = EpisodeEnd::Truncated;
        let cut = Episode { env: 0, episode_return: 8.0, score: 8.0, length: 8, end };
        for step in 1..=24 {
            batch.step(&[Action::Discrete(step % 2)], seen.as_mut(), &mut results).unwrap();
            let expected = if step % 8 == 0 { &[cut][..] } else { &[] };
            assert_eq!((&results.finished[..], &seen.features[..]), (expected, &[1.0][..]));
        }
    }
}
