//! Which sites an experiment has: every one that a run of it passes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use gatefold_ops::probe::Probe;
use serde::{Deserialize, Serialize};

use super::fault::Stage;

/// A site, and the half of the iteration in which it is passed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Site {
    /// Its name, such as `activation/h_obs`.
    pub name: String,
    /// When it is passed.
    pub stage: Stage,
}

/// A probe that changes nothing and notes every site that has values.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    updating: AtomicBool,
    found: Mutex<BTreeSet<Site>>,
}

impl Recorder {
    fn site(&self, name: &str) -> Site {
        let stage = if self.updating.load(Ordering::SeqCst) { Stage::Update } else { Stage::Rollout };
        Site { name: name.to_string(), stage }
    }

    /// All sites so far, by name.
    pub(super) fn sites(&self) -> Vec<Site> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

impl Probe for Recorder {
    fn begin(&self, _iteration: u64) {
        self.updating.store(false, Ordering::SeqCst);
    }

    fn begin_update(&self) {
        self.updating.store(true, Ordering::SeqCst);
    }

    fn wants(&self, site: &str) -> bool {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        !site.starts_with("metric/") && !found.contains(&self.site(site))
    }

    fn change(&self, site: &str, values: &mut [f32], _width: usize) {
        if !values.is_empty() {
            self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(self.site(site));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_are_noted_once_for_each_stage_if_they_have_values() {
        let recorder = Recorder::default();
        for iteration in 0..2 {
            recorder.begin(iteration);
            for (name, values) in [("b", vec![1.0]), ("a", vec![2.0]), ("empty", vec![]), ("a", vec![2.0])] {
                let mut now = values.clone();
                if recorder.wants(name) {
                    recorder.change(name, &mut now, 1);
                }
                assert_eq!(now, values);
            }
            recorder.begin_update();
            if recorder.wants("a") {
                recorder.change("a", &mut [1.0], 1);
            }
        }
        let found: Vec<_> = recorder.sites().into_iter().map(|site| (site.name, site.stage)).collect();
        let expected = [("a", Stage::Rollout), ("a", Stage::Update), ("b", Stage::Rollout)];
        assert_eq!(found, expected.map(|(name, stage)| (name.to_string(), stage)));
    }
}
