//! Puts one fault into a run.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use gatefold_ops::probe::Probe;

use super::fault::{FaultKind, FaultSpec, Stage};

/// What the diverging loss was, and what it becomes.
const LOSSES: [f32; 2] = [0.60, 0.74];
const EXPLOSION: f32 = 1e4;
/// What [`Injector::first_changed`] holds before anything was changed.
const NEVER: u64 = u64::MAX;

/// A probe that puts one fault into a run, the same way every time.
#[derive(Debug)]
pub struct Injector {
    fault: FaultSpec,
    expert: usize,
    num_experts: usize,
    iteration: AtomicU64,
    updating: AtomicBool,
    first_changed: AtomicU64,
    /// What frozen tensors held when the fault began.
    held: Mutex<HashMap<String, Vec<f32>>>,
}

impl Injector {
    /// Injects `fault` into a run with these experts.
    pub fn new(fault: FaultSpec, experts: &[String]) -> Self {
        let named = |name: &String| experts.iter().position(|expert| expert == name);
        Self {
            expert: fault.expert.as_ref().and_then(named).unwrap_or(0),
            num_experts: experts.len(),
            fault,
            iteration: AtomicU64::new(0),
            updating: AtomicBool::new(false),
            first_changed: AtomicU64::new(NEVER),
            held: Mutex::default(),
        }
    }

    /// Iterations done before the one in which the first value was changed; `None` before.
    pub fn first_changed(&self) -> Option<u64> {
        Some(self.first_changed.load(Ordering::SeqCst)).filter(|&iteration| iteration != NEVER)
    }

    fn stage(&self) -> Stage {
        if self.updating.load(Ordering::SeqCst) { Stage::Update } else { Stage::Rollout }
    }

    /// Whether the fault acts now.
    fn lasts(&self) -> bool {
        let (now, fault) = (self.iteration.load(Ordering::SeqCst), &self.fault);
        if fault.kind == FaultKind::Divergence {
            return true; // the loss is reported from the start, and changes
        }
        match (self.first_changed(), fault.lasts) {
            _ if now < fault.at => false,
            (None, _) => true,
            (Some(_), None) => !fault.kind.is_numeric(),
            (Some(first), Some(lasts)) => now < first + lasts,
        }
    }
}

impl Probe for Injector {
    fn about(&self) -> String {
        format!("{} at {}, iteration {}", self.fault.kind.name(), self.fault.place(), self.fault.at)
    }

    fn begin(&self, iteration: u64) {
        self.iteration.store(iteration, Ordering::SeqCst);
        self.updating.store(false, Ordering::SeqCst);
    }

    fn begin_update(&self) {
        self.updating.store(true, Ordering::SeqCst);
    }

    fn wants(&self, site: &str) -> bool {
        self.fault.acts_on(site, self.stage()) && self.lasts()
    }

    fn change(&self, site: &str, values: &mut [f32], width: usize) {
        if values.is_empty() {
            return; // an environment without a graph passes its sites too
        }
        let of_experts = matches!(self.fault.kind, FaultKind::ExpertCollapse | FaultKind::DeadExpert);
        if of_experts && width != self.num_experts {
            return; // the ladder took experts away, and the fault with them
        }
        let now = self.iteration.load(Ordering::SeqCst);
        let begun = now >= self.fault.at;
        if begun {
            let _ = self.first_changed.compare_exchange(NEVER, now, Ordering::SeqCst, Ordering::SeqCst);
        }
        let magnitude = |default: f32| self.fault.magnitude.unwrap_or(default);
        match self.fault.kind {
            FaultKind::Nan => values[0] = f32::NAN,
            FaultKind::Inf => values[0] = f32::INFINITY,
            FaultKind::ExpertCollapse => {
                for gates in values.chunks_exact_mut(width) {
                    gates.fill(0.0);
                    gates[self.expert] = 1.0;
                }
            }
            FaultKind::DeadExpert => {
                values.chunks_exact_mut(width).for_each(|gates| bury(gates, self.expert))
            }
            FaultKind::RouterFrozen => {
                let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
                let before = held.entry(site.to_string()).or_insert_with(|| values.to_vec());
                if before.len() != values.len() {
                    *before = values.to_vec(); // the ladder took experts away: what is left is held
                }
                values.copy_from_slice(before);
            }
            FaultKind::OverSmoothing => smooth(values, width, magnitude(1.0)),
            FaultKind::GradientExplosion => {
                let factor = magnitude(EXPLOSION);
                values.iter_mut().for_each(|value| *value *= factor);
            }
            FaultKind::RewardStagnation => values.fill(magnitude(0.0)),
            FaultKind::Divergence => values.fill(LOSSES[usize::from(begun)]),
        }
    }
}

/// Takes one expert's share away and gives it to the others.
fn bury(gates: &mut [f32], expert: usize) {
    gates[expert] = 0.0;
    let (rest, others) = (gates.iter().sum::<f32>(), gates.len() - 1);
    for (k, gate) in gates.iter_mut().enumerate() {
        if k != expert {
            *gate = if rest > 0.0 { *gate / rest } else { 1.0 / others as f32 };
        }
    }
}

/// Moves every row towards the mean of all rows by `share` of the way.
fn smooth(values: &mut [f32], width: usize, share: f32) {
    let rows = (values.len() / width) as f32;
    let mut mean = vec![0.0; width];
    for row in values.chunks_exact(width) {
        mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += value / rows);
    }
    for row in values.chunks_exact_mut(width) {
        row.iter_mut().zip(&mean).for_each(|(value, mean)| *value += share * (mean - *value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passages(injector: &Injector, site: &str, iterations: u64) -> Vec<(u64, usize, Vec<f32>)> {
        let mut changed = Vec::new();
        for iteration in 0..iterations {
            injector.begin(iteration);
            for passage in 0..4 {
                if passage == 2 {
                    injector.begin_update();
                }
                if injector.wants(site) {
                    let mut values = vec![0.5, 0.25, 0.25, 0.0];
                    injector.change(site, &mut values, 2);
                    changed.push((iteration, passage, values));
                }
            }
        }
        changed
    }

    #[test]
    fn a_number_that_is_none_strikes_one_passage_of_its_stage() {
        for (stage, passage) in [(Stage::Rollout, 0), (Stage::Update, 2)] {
            let fault = FaultSpec::numeric(FaultKind::Inf, "a/b", stage, 3);
            let injector = Injector::new(fault, &[]);
            assert_eq!(passages(&injector, "a/c", 5), []);
            assert_eq!(injector.first_changed(), None);
            assert_eq!(passages(&injector, "a/b", 5), [(3, passage, vec![f32::INFINITY, 0.25, 0.25, 0.0])]);
            assert_eq!(injector.first_changed(), Some(3));
        }
    }

    #[test]
    fn a_lasting_fault_acts_on_every_passage_of_its_iterations() {
        let fault = FaultSpec { lasts: Some(2), ..FaultSpec::lasting(FaultKind::RewardStagnation, 1) };
        let changed = passages(&Injector::new(fault, &[]), "env/rewards", 6);
        let expected: Vec<_> = (1..3).flat_map(|i| (0..4).map(move |p| (i, p, vec![0.0; 4]))).collect();
        assert_eq!(changed, expected);
    }

    #[test]
    fn gates_stay_on_the_simplex_with_one_expert_alone_or_buried() {
        let experts = ["a".to_string(), "b".to_string()];
        let gates = |kind, expert: &str| {
            let fault = FaultSpec { expert: Some(expert.into()), ..FaultSpec::lasting(kind, 0) };
            passages(&Injector::new(fault, &experts), "activation/gates", 1).remove(0).2
        };
        assert_eq!(gates(FaultKind::ExpertCollapse, "b"), [0.0, 1.0, 0.0, 1.0]);
        assert_eq!(gates(FaultKind::DeadExpert, "a"), [0.0, 1.0, 0.0, 1.0]);
        assert_eq!(gates(FaultKind::DeadExpert, "b"), [1.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn smoothing_leaves_one_vector_and_freezing_the_first_values() {
        let smoothed = Injector::new(FaultSpec::lasting(FaultKind::OverSmoothing, 0), &[]);
        assert_eq!(passages(&smoothed, "activation/gat_layer1", 1)[0].2, [0.375, 0.125, 0.375, 0.125]);
        let frozen = Injector::new(FaultSpec::lasting(FaultKind::RouterFrozen, 0), &[]);
        frozen.begin(0);
        for values in [[1.0, 2.0], [3.0, 4.0]] {
            let mut now = values;
            frozen.change("parameter/router.output.weight", &mut now, 2);
            assert_eq!(now, [1.0, 2.0]);
        }
    }

    #[test]
    fn the_diverging_loss_is_reported_before_it_rises() {
        let injector = Injector::new(FaultSpec::lasting(FaultKind::Divergence, 2), &[]);
        let reported = passages(&injector, "metric/supervised/loss", 4);
        assert_eq!((&reported[0].2[0], &reported[15].2[0]), (&0.60, &0.74));
        assert_eq!(injector.first_changed(), Some(2));
    }
}
