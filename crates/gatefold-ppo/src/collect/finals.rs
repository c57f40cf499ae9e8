//! Final observations of truncated episodes, evaluated together.

use gatefold_env::{EnvSpec, ObservationBatch};
use gatefold_ops::{OpsBackend, probe};
use gatefold_policy::{Acting, Observation, ObservationScaling};

use super::{
    error::{OBSERVATION, RolloutError},
    to_host,
};

/// Final observations of truncated episodes, each with its step and environment.
#[derive(Default)]
pub(super) struct Finals {
    places: Vec<(usize, usize)>,
    observations: ObservationBatch,
}

impl Finals {
    /// Adds `row` of the last step's; fails with the first feature that is not finite, before it is scaled.
    pub(super) fn push(
        &mut self,
        place @ (step, env): (usize, usize),
        finals: &ObservationBatch,
        row: usize,
        scaling: Option<&ObservationScaling>,
    ) -> Result<(), RolloutError> {
        let mut row = finals.pick(row..row + 1);
        let features = row.features.len();
        probe::slice("env/final_observations", &mut row.features, features);
        if let Some(&value) = row.features.iter().find(|x| !x.is_finite()) {
            return Err(RolloutError::NonFinite { step: step + 1, env, what: OBSERVATION, value });
        }
        if let Some(scaling) = scaling {
            scaling.apply(&mut row.features);
        }
        self.observations.append(row);
        self.places.push(place);
        Ok(())
    }

    /// Adds all of `other`.
    pub(super) fn append(&mut self, other: Self) {
        if !other.places.is_empty() {
            self.observations.append(other.observations);
            self.places.extend(other.places);
        }
    }

    /// The value of each.
    pub(super) fn values<B: OpsBackend>(
        self,
        spec: &EnvSpec,
        policy: &Acting<'_, B>,
        device: &B::Device,
    ) -> Vec<((usize, usize), f32)> {
        if self.places.is_empty() {
            return Vec::new();
        }
        let observation = Observation::new(spec, self.observations, device);
        self.places.into_iter().zip(to_host(policy.values(&observation))).collect()
    }
}
