//! How the experts were used, from gates on the host.

/// Sums over gates, added to row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct GateStatistics {
    gate_sums: Vec<f64>,
    entropy_sum: f64,
    support_sum: u64,
    rows: u64,
}

/// How the experts of one rollout were used.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    /// Mean gate of each expert; sums to 1.
    pub expert: Vec<f64>,
    /// Mean entropy of the gates, nats.
    pub entropy: f64,
    /// Entropy of the mean gate divided by ln K: 1 is even use, 0 is collapse. 0 for one expert.
    pub usage_entropy: f64,
    /// `H(mean alpha) - mean H(alpha)`, nats: how much the gates tell about the state.
    pub specialisation: f64,
    /// Mean number of experts with a gate above 0.
    pub support: f64,
}

impl GateStatistics {
    /// No rows yet, for `num_experts`.
    pub fn new(num_experts: usize) -> Self {
        Self { gate_sums: vec![0.0; num_experts], entropy_sum: 0.0, support_sum: 0, rows: 0 }
    }

    /// Takes in gates `[rows, K]`, row-major.
    pub fn add(&mut self, alpha: &[f32]) {
        for row in alpha.chunks_exact(self.gate_sums.len()) {
            for (sum, &gate) in self.gate_sums.iter_mut().zip(row) {
                *sum += f64::from(gate);
                if gate > 0.0 {
                    self.support_sum += 1;
                }
            }
            self.entropy_sum += entropy(row.iter().map(|&gate| f64::from(gate)));
            self.rows += 1;
        }
    }

    /// The statistics of all rows so far; `None` before the first.
    pub fn usage(&self) -> Option<Usage> {
        let rows = (self.rows > 0).then_some(self.rows as f64)?;
        let expert: Vec<f64> = self.gate_sums.iter().map(|sum| sum / rows).collect();
        let of_mean = entropy(expert.iter().copied());
        let mean_entropy = self.entropy_sum / rows;
        let most = (expert.len() as f64).ln();
        Some(Usage {
            entropy: mean_entropy,
            usage_entropy: if most > 0.0 { of_mean / most } else { 0.0 },
            specialisation: of_mean - mean_entropy,
            support: self.support_sum as f64 / rows,
            expert,
        })
    }
}

fn entropy(probabilities: impl Iterator<Item = f64>) -> f64 {
    probabilities.filter(|&p| p > 0.0).map(|p| -p * p.ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_tells_even_specialised_and_collapsed_routers_apart() {
        let ln2 = std::f64::consts::LN_2;
        // rows, entropy, usage entropy, specialisation, support
        let cases: [(&[f32], f64, f64, f64, f64); 3] = [
            (&[0.5, 0.5, 0.5, 0.5], ln2, 1.0, 0.0, 2.0),
            (&[1.0, 0.0, 0.0, 1.0], 0.0, 1.0, ln2, 1.0),
            (&[1.0, 0.0, 1.0, 0.0], 0.0, 0.0, 0.0, 1.0),
        ];
        for (rows, entropy, usage_entropy, specialisation, support) in cases {
            let mut statistics = GateStatistics::new(2);
            statistics.add(rows);
            let usage = statistics.usage().unwrap();
            let got = [usage.entropy, usage.usage_entropy, usage.specialisation, usage.support];
            for (g, e) in got.iter().zip([entropy, usage_entropy, specialisation, support]) {
                assert!((g - e).abs() < 1e-12, "{rows:?}: {got:?}");
            }
            assert!((usage.expert.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
        assert_eq!(GateStatistics::new(2).usage(), None);
    }
}
