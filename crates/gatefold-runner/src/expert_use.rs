//! Which expert acts in which situation: do experts do what their names say?

use serde::{Deserialize, Serialize};

/// Mean gate of each expert in each kind of situation, over an evaluation's steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExpertUse {
    /// Names of the experts.
    pub experts: Vec<String>,
    /// Names of the kinds of situation, as the environment tells them apart.
    pub regimes: Vec<String>,
    /// Steps taken in each kind of situation.
    pub steps: Vec<u64>,
    /// Mean gates `[regimes][experts]`; each row with steps sums to 1.
    pub gates: Vec<Vec<f64>>,
    /// `I(expert; regime)` in nats: how much the kind of situation tells about the expert. 0 if experts
    /// are used alike everywhere.
    pub information: f64,
}

/// Sums of gates by kind of situation.
#[derive(Debug, Clone)]
pub(crate) struct UseCounter {
    experts: Vec<String>,
    regimes: &'static [&'static str],
    steps: Vec<u64>,
    sums: Vec<Vec<f64>>,
}

impl UseCounter {
    /// `None` where there is nothing to tell apart.
    pub(crate) fn new(experts: &[String], regimes: &'static [&'static str]) -> Option<Self> {
        (experts.len() > 1 && !regimes.is_empty()).then(|| Self {
            experts: experts.to_vec(),
            regimes,
            steps: vec![0; regimes.len()],
            sums: vec![vec![0.0; experts.len()]; regimes.len()],
        })
    }

    pub(crate) fn add(&mut self, regime: usize, gates: &[f32]) {
        self.steps[regime] += 1;
        self.sums[regime].iter_mut().zip(gates).for_each(|(sum, &gate)| *sum += f64::from(gate));
    }

    pub(crate) fn report(self) -> ExpertUse {
        let gates: Vec<Vec<f64>> = self
            .sums
            .iter()
            .zip(&self.steps)
            .map(|(sums, &steps)| sums.iter().map(|sum| sum / steps.max(1) as f64).collect())
            .collect();
        let information = information(&gates, &self.steps);
        ExpertUse {
            experts: self.experts,
            regimes: self.regimes.iter().map(ToString::to_string).collect(),
            steps: self.steps,
            gates,
            information,
        }
    }
}

/// `H(mean gates) - sum_r p(r) H(gates in r)`.
fn information(gates: &[Vec<f64>], steps: &[u64]) -> f64 {
    let total: u64 = steps.iter().sum();
    let share = |r: usize| steps[r] as f64 / total.max(1) as f64;
    let entropy = |gates: &[f64]| gates.iter().filter(|&&p| p > 0.0).map(|p| -p * p.ln()).sum::<f64>();
    let num_experts = gates.first().map_or(0, Vec::len);
    let mean: Vec<f64> =
        (0..num_experts).map(|k| (0..gates.len()).map(|r| share(r) * gates[r][k]).sum()).collect();
    entropy(&mean) - (0..gates.len()).map(|r| share(r) * entropy(&gates[r])).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_information_is_ln_2_where_each_of_two_situations_has_its_expert_and_0_where_they_share() {
        let experts = ["a".to_string(), "b".to_string()];
        let report = |rows: [[f32; 2]; 2]| {
            let mut counter = UseCounter::new(&experts, &["calm", "storm"]).unwrap();
            rows.iter().enumerate().for_each(|(regime, gates)| counter.add(regime, gates));
            counter.report()
        };
        let apart = report([[1.0, 0.0], [0.0, 1.0]]);
        assert!((apart.information - std::f64::consts::LN_2).abs() < 1e-12);
        assert_eq!((&apart.steps[..], &apart.gates[1][..]), (&[1, 1][..], &[0.0, 1.0][..]));
        assert!(report([[0.25, 0.75], [0.25, 0.75]]).information.abs() < 1e-12);
        assert!(UseCounter::new(&experts[..1], &["calm"]).is_none());
        assert!(UseCounter::new(&experts, &[]).is_none());
    }
}
