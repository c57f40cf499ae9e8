//! What can be done to a running experiment, and what is expected of it then.

use gatefold_monitor::MonitorConfig;
use serde::{Deserialize, Serialize};

/// Iterations beyond its window within which a statistical fault has to be found.
pub const SLACK: u64 = 5;

/// One fault: what, where, when and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultSpec {
    /// What is done.
    pub kind: FaultKind,
    /// Name of the site, for kinds that have no site of their own: `nan` and `inf` need one,
    /// `gradient-explosion` acts on every gradient without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Which half of the iteration the site is passed in; without it the first passage of either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// Iterations done before the fault; the first passage of the site from then on is changed.
    pub at: u64,
    /// How many iterations it lasts. Without it `nan` and `inf` strike a single passage, and the others
    /// last to the end of the run.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasts: Option<u64>,
    /// The expert that is chosen always, or never; without it the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expert: Option<String>,
    /// How much: the factor of `gradient-explosion` (1e4), the reward of `reward-stagnation` (0), the
    /// share of the way to the mean node of `over-smoothing` (1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub magnitude: Option<f32>,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// One number becomes NaN.
    Nan,
    /// One number becomes infinite.
    Inf,
    /// Every decision is left to one expert.
    ExpertCollapse,
    /// The router's parameters stay as they are.
    RouterFrozen,
    /// One expert is never chosen.
    DeadExpert,
    /// Attention gives every node the same vector.
    OverSmoothing,
    /// Gradients become far too large.
    GradientExplosion,
    /// Every reward is the same number.
    RewardStagnation,
    /// A supervised loss that stood at 0.60 stands at 0.74.
    Divergence,
}

/// The halves of an iteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Collecting steps and scaling their rewards.
    Rollout,
    /// Learning from them, and looking at what was learned.
    Update,
}

/// The metric that `divergence` reports to the monitors.
pub(crate) const DIVERGING: &str = "metric/supervised/loss";

impl FaultKind {
    /// Whether it is a number that is none, which the guard has to find in the same update; others are
    /// found by monitors.
    pub fn is_numeric(self) -> bool {
        matches!(self, Self::Nan | Self::Inf)
    }

    /// As a file writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nan => "nan",
            Self::Inf => "inf",
            Self::ExpertCollapse => "expert-collapse",
            Self::RouterFrozen => "router-frozen",
            Self::DeadExpert => "dead-expert",
            Self::OverSmoothing => "over-smoothing",
            Self::GradientExplosion => "gradient-explosion",
            Self::RewardStagnation => "reward-stagnation",
            Self::Divergence => "divergence",
        }
    }

    /// The monitors one of which has to find it; none for the guard's business.
    pub fn monitors(self) -> &'static [&'static str] {
        match self {
            Self::Nan | Self::Inf => &[],
            Self::ExpertCollapse => &["router-collapse", "expert-dominance", "constant-router"],
            Self::RouterFrozen => &["router-frozen"],
            Self::DeadExpert => &["dead-expert"],
            Self::OverSmoothing => &["over-smoothing"],
            Self::GradientExplosion => &["gradient-norm", "tensor-gradient"],
            Self::RewardStagnation => &["no-reward", "stagnation"],
            Self::Divergence => &["loss-rise"],
        }
    }
}

impl FaultSpec {
    /// A single number that is none, at the first passage of `site` after `at` iterations.
    pub fn numeric(kind: FaultKind, site: &str, stage: Stage, at: u64) -> Self {
        assert!(kind.is_numeric(), "{kind:?} is no number");
        Self {
            kind,
            site: Some(site.to_string()),
            stage: Some(stage),
            at,
            lasts: None,
            expert: None,
            magnitude: None,
        }
    }

    /// A fault of a kind that has its own site, lasting to the end of the run.
    pub fn lasting(kind: FaultKind, at: u64) -> Self {
        assert!(!kind.is_numeric(), "{kind:?} needs a site");
        Self { kind, site: None, stage: None, at, lasts: None, expert: None, magnitude: None }
    }

    /// Whether this site is changed while the fault lasts.
    pub(crate) fn acts_on(&self, site: &str, stage: Stage) -> bool {
        self.stage.is_none_or(|own| own == stage)
            && match self.kind {
                FaultKind::Nan | FaultKind::Inf => self.site.as_deref() == Some(site),
                FaultKind::ExpertCollapse | FaultKind::DeadExpert => site == "activation/gates",
                FaultKind::RouterFrozen => site.starts_with("parameter/router."),
                FaultKind::OverSmoothing => site.starts_with("activation/gat_layer"),
                FaultKind::GradientExplosion => match &self.site {
                    Some(own) => own == site,
                    None => site.starts_with("gradient/"),
                },
                FaultKind::RewardStagnation => site == "env/rewards",
                FaultKind::Divergence => site == DIVERGING,
            }
    }

    /// The site as a table shows it.
    pub fn place(&self) -> String {
        match (&self.site, self.kind) {
            (Some(site), _) => site.clone(),
            (None, FaultKind::ExpertCollapse | FaultKind::DeadExpert) => "activation/gates".to_string(),
            (None, FaultKind::RouterFrozen) => "parameter/router.*".to_string(),
            (None, FaultKind::OverSmoothing) => "activation/gat_layer*".to_string(),
            (None, FaultKind::GradientExplosion) => "gradient/*".to_string(),
            (None, FaultKind::RewardStagnation) => "env/rewards".to_string(),
            (None, FaultKind::Divergence) => DIVERGING.to_string(),
            (None, FaultKind::Nan | FaultKind::Inf) => String::new(),
        }
    }

    /// Iterations that its monitor looks back on; 0 for the guard, which sees each update by itself.
    pub fn window(&self, monitors: &MonitorConfig) -> u64 {
        let window = match self.kind {
            FaultKind::Nan | FaultKind::Inf => 0,
            FaultKind::ExpertCollapse | FaultKind::RouterFrozen | FaultKind::OverSmoothing => monitors.window,
            FaultKind::GradientExplosion | FaultKind::Divergence => monitors.short_window,
            FaultKind::DeadExpert => return monitors.dead_after,
            // Rewards that stop are missed soon; rewards that say nothing show in the returns.
            FaultKind::RewardStagnation if self.magnitude.unwrap_or(0.0) == 0.0 => monitors.short_window,
            FaultKind::RewardStagnation => monitors.long_window,
        };
        window as u64
    }

    /// Iterations after the first faulty one by which it has to be found: none for a number that is none.
    pub fn deadline(&self, monitors: &MonitorConfig) -> u64 {
        if self.kind.is_numeric() { 0 } else { self.window(monitors) + SLACK }
    }

    /// What is wrong with it, if anything: a message and a remedy.
    pub(crate) fn validate(&self, experts: &[String]) -> Result<(), (String, String)> {
        let kind = self.kind.name();
        let fault = |message: String, help: String| Err((message, help));
        match (&self.site, self.kind) {
            (None, FaultKind::Nan | FaultKind::Inf) => {
                return fault(
                    format!("kind = {kind:?}: needs a site"),
                    "such as site = \"activation/h_obs\"".to_string(),
                );
            }
            (Some(site), other) if !other.is_numeric() && other != FaultKind::GradientExplosion => {
                return fault(
                    format!("site = {site:?}: {kind} has a site of its own"),
                    format!("leave site out; it is {}", Self { site: None, ..self.clone() }.place()),
                );
            }
            _ => {}
        }
        if self.lasts == Some(0) {
            return fault("for = 0: need at least 1 iteration".to_string(), "or leave it out".to_string());
        }
        if let Some(expert) = self.expert.as_ref().filter(|&expert| !experts.contains(expert)) {
            return fault(
                format!("expert = {expert:?}: there is no such expert"),
                format!("policy.experts are {}", experts.join(", ")),
            );
        }
        if self.magnitude.is_some_and(|magnitude| !magnitude.is_finite()) {
            return fault("magnitude: need a finite number".to_string(), "use kind = \"nan\"".to_string());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_name_in_files_and_a_judge() {
        let kinds = [
            FaultKind::Nan,
            FaultKind::Inf,
            FaultKind::ExpertCollapse,
            FaultKind::RouterFrozen,
            FaultKind::DeadExpert,
            FaultKind::OverSmoothing,
            FaultKind::GradientExplosion,
            FaultKind::RewardStagnation,
            FaultKind::Divergence,
        ];
        for kind in kinds {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            assert_eq!(kind.monitors().is_empty(), kind.is_numeric());
        }
    }

    #[test]
    fn a_mistake_in_a_fault_names_the_key_and_a_remedy() {
        let experts = ["a".to_string()];
        let read = |text: &str| toml::from_str::<FaultSpec>(text).unwrap().validate(&experts);
        assert_eq!(read("kind = \"nan\"\nsite = \"env/rewards\"\nat = 3"), Ok(()));
        for (text, message, help) in [
            ("kind = \"nan\"\nat = 3", "needs a site", "activation/h_obs"),
            ("kind = \"dead-expert\"\nat = 3\nexpert = \"b\"", "expert = \"b\"", "policy.experts are a"),
            ("kind = \"router-frozen\"\nat = 3\nsite = \"x\"", "site = \"x\"", "parameter/router.*"),
            ("kind = \"divergence\"\nat = 3\nfor = 0", "for = 0", "leave it out"),
        ] {
            let (found, remedy) = read(text).unwrap_err();
            assert!(found.contains(message) && remedy.contains(help), "{found}; {remedy}");
        }
    }

    #[test]
    fn windows_follow_the_monitors_settings() {
        let monitors = MonitorConfig { dead_after: 7, short_window: 3, ..MonitorConfig::default() };
        let deadline = |kind| FaultSpec::lasting(kind, 9).deadline(&monitors);
        assert_eq!(deadline(FaultKind::DeadExpert), 12);
        assert_eq!(deadline(FaultKind::GradientExplosion), 8);
        assert_eq!(
            FaultSpec::numeric(FaultKind::Inf, "env/rewards", Stage::Rollout, 9).deadline(&monitors),
            0
        );
    }
}
