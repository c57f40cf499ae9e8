//! What a run did about each fault, as a table.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::fault::{FaultSpec, Stage};

/// What a run did about one fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The fault.
    pub fault: FaultSpec,
    /// Where it was put.
    pub site: String,
    /// Iterations done before the first faulty one; `None` if the run never passed the site.
    pub injected_at: Option<u64>,
    /// Iterations from the first faulty one to the one in which it was found, 0 for the same; `None` if it
    /// was not.
    pub detected_after: Option<u64>,
    /// Iterations that the monitor looks back on; 0 for the guard.
    pub window: u64,
    /// The most that `detected_after` may be.
    pub deadline: u64,
    /// Who found it: `guard`, or the monitor.
    pub by: Option<String>,
    /// What the guard said, or why the run stopped.
    pub evidence: Option<String>,
    /// What the run did.
    pub action: String,
    /// Checkpoints that the run left, all of which were read.
    pub checkpoints: usize,
    /// The first number in them that is none, if there is one.
    pub persisted: Option<String>,
    /// Mean return of the final evaluation; `None` if the run stopped before.
    pub return_mean: Option<f64>,
    /// That over the mean return of the same run without the fault.
    pub return_ratio: Option<f64>,
}

impl Outcome {
    /// Whether the fault was found in time and left nothing behind in a checkpoint.
    pub fn held(&self) -> bool {
        self.detected_after.is_some_and(|after| after <= self.deadline) && self.persisted.is_none()
    }

    fn row(&self) -> String {
        let stage = self.fault.stage.map_or("", |stage| match stage {
            Stage::Rollout => " (rollout)",
            Stage::Update => " (update)",
        });
        let detected = match self.detected_after {
            Some(0) => "same update".to_string(),
            Some(1) => "1 iteration".to_string(),
            Some(after) => format!("{after} iterations"),
            None if self.injected_at.is_none() => "site never passed".to_string(),
            None => "not found".to_string(),
        };
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_string());
        format!(
            "| {} | `{}`{stage} | {} | {detected} | {} | {} | {} | {} | {} |",
            self.fault.kind.name(),
            self.site,
            or_dash(self.injected_at.map(|at| at.to_string())),
            if self.deadline == 0 { "same update".to_string() } else { format!("{} + 5", self.window) },
            or_dash(self.by.clone()),
            self.action,
            match &self.persisted {
                None => format!("{} finite", self.checkpoints),
                Some(what) => format!("NOT FINITE: {what}"),
            },
            or_dash(self.return_ratio.map(|ratio| format!("{ratio:.2}"))),
        )
    }
}

/// What an experiment did about every fault that was put into it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChaosReport {
    /// Why the faults were tried, from the file.
    pub about: String,
    /// The environment.
    pub env: String,
    /// Seed of every run.
    pub seed: u64,
    /// Source revision of the build.
    pub revision: String,
    /// Named sites into which a number that is none was put.
    pub num_sites: usize,
    /// Mean return of the final evaluation without a fault, of the runs that the sites were tried in.
    pub sites_return_mean: Option<f64>,
    /// The same of the runs that the listed faults were tried in.
    pub faults_return_mean: Option<f64>,
    /// What the run without a fault did that the listed faults were tried in.
    pub without_a_fault: Option<String>,
    /// Outcomes, numbers that are none first.
    pub outcomes: Vec<Outcome>,
}

impl ChaosReport {
    /// Outcomes of faults that were not found in time, or that reached a checkpoint.
    pub fn failures(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|outcome| !outcome.held())
    }

    /// The table in Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "# Faults put into `{}`\n\n{}\n\nSeed {}, source revision {}. {} faults, {} of them as they should be; \
             NaN and infinity at {} named sites. Detection counts iterations from the first faulty one. The last \
             column is the mean return of the final evaluation over that of the same run without the fault ({} \
             for sites, {} for the others). What monitors reported and the run did without a fault: {}.\n\n",
            self.env,
            self.about,
            self.seed,
            self.revision,
            self.outcomes.len(),
            self.outcomes.iter().filter(|outcome| outcome.held()).count(),
            self.num_sites,
            number(self.sites_return_mean),
            number(self.faults_return_mean),
            self.without_a_fault.as_deref().unwrap_or("not tried"),
        );
        text += "| fault | site | iterations before | found after | window | by | action | checkpoints | return ratio |\n";
        text += "|---|---|---|---|---|---|---|---|---|\n";
        for outcome in &self.outcomes {
            writeln!(text, "{}", outcome.row()).expect("a string takes any text");
        }
        text
    }
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "none".to_string(), |value| format!("{value:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::FaultKind;

    fn outcome() -> Outcome {
        Outcome {
            fault: FaultSpec::numeric(FaultKind::Nan, "env/rewards", Stage::Rollout, 4),
            site: "env/rewards".into(),
            injected_at: Some(4),
            detected_after: Some(0),
            window: 0,
            deadline: 0,
            by: Some("guard".into()),
            evidence: None,
            action: "update discarded".into(),
            checkpoints: 3,
            persisted: None,
            return_mean: Some(9.0),
            return_ratio: Some(0.9),
        }
    }

    #[test]
    fn a_fault_holds_if_found_in_time_and_never_saved() {
        assert!(outcome().held());
        assert!(!Outcome { detected_after: None, ..outcome() }.held());
        assert!(!Outcome { detected_after: Some(1), ..outcome() }.held());
        assert!(!Outcome { persisted: Some("head.bias".into()), ..outcome() }.held());
        assert!(Outcome { detected_after: Some(15), deadline: 15, ..outcome() }.held());
    }

    #[test]
    fn the_table_has_a_row_for_each_outcome() {
        let row = "| nan | `env/rewards` (rollout) | 4 | same update | same update | guard | update discarded | 3 finite | \
                   0.90 |";
        assert_eq!(outcome().row(), row);
        let lost =
            Outcome { injected_at: None, detected_after: None, by: None, return_ratio: None, ..outcome() };
        assert!(lost.row().contains("| - | site never passed |"), "{}", lost.row());
    }
}
