//! The fallback ladder: which rung a run is at, what that leaves of a plan, and when it moves.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::health::Health;
use crate::ladder_config::LadderConfig;
use crate::plan::{Coefficients, Plan, Routing};
use crate::rung::{Applicable, Rung};
use crate::validation::CurriculumError;

/// The iteration of a verdict or a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Iterations done.
    pub iteration: u64,
    /// Environment steps taken, over all environments.
    pub env_step: u64,
}

/// Who made a step on the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepBy {
    /// The user.
    Hand,
    /// Unhealthy verdicts in a row.
    Monitors,
    /// Updates that fail at the same snapshot again and again.
    Guard,
    /// Healthy verdicts in a row, upwards.
    Recovery,
}

impl fmt::Display for StepBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Hand => "hand",
            Self::Monitors => "monitors",
            Self::Guard => "guard",
            Self::Recovery => "recovery",
        })
    }
}

/// One step on the ladder, with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LadderStep {
    /// Iterations done when it was made.
    pub iteration: u64,
    /// Environment steps taken when it was made.
    pub env_step: u64,
    /// The rung before.
    pub from: Rung,
    /// The rung after.
    pub to: Rung,
    /// Why, for the user.
    pub evidence: String,
    /// Who made it.
    pub by: StepBy,
}

impl fmt::Display for LadderStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} by {} at iteration {}: ", self.from, self.to, self.by, self.iteration)?;
        f.write_str(&self.evidence)
    }
}

/// What a ladder carries from one iteration to the next, for the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LadderState {
    rung: Rung,
    chosen: Rung,
    unhealthy_in_a_row: u64,
    healthy_in_a_row: u64,
    cooldown_left: u64,
    history: Vec<LadderStep>,
}

impl LadderState {
    fn at(rung: Rung) -> Self {
        Self {
            rung,
            chosen: rung,
            unhealthy_in_a_row: 0,
            healthy_in_a_row: 0,
            cooldown_left: 0,
            history: Vec::new(),
        }
    }
}

/// Decides the rung; `policy` performs what it means. Pure in the verdicts and its own serialisable
/// state.
///
/// Rungs that change nothing for the policy are passed over. It never climbs by itself above the rung
/// last chosen by the user, be it `start` or by hand, nor goes below `lowest`.
#[derive(Debug, Clone, PartialEq)]
pub struct Ladder {
    config: LadderConfig,
    applicable: Applicable,
    state: LadderState,
}

impl Ladder {
    /// A ladder at its start, for a policy of which `applicable` says what rungs can take away.
    pub fn new(config: LadderConfig, applicable: Applicable) -> Result<Self, CurriculumError> {
        config.validate()?;
        check_applicable(&applicable, config.start)?;
        let state = LadderState::at(config.start);
        Ok(Self { config, applicable, state })
    }

    /// The rung in force.
    pub fn rung(&self) -> Rung {
        self.state.rung
    }

    /// Whether the graph encoder no longer learns.
    pub fn freezes_gat(&self) -> bool {
        self.reached(Rung::FreezeGat)
    }

    /// Whether softmax routes, unless a later rung says otherwise.
    pub fn softmax_only(&self) -> bool {
        self.reached(Rung::SoftmaxOnly)
    }

    /// Whether only [`experts_kept`](crate::experts_kept) are left.
    pub fn fewer_experts(&self) -> bool {
        self.reached(Rung::FewerExperts)
    }

    /// Whether a fresh router picks one expert by Gumbel noise.
    pub fn v2_routing(&self) -> bool {
        self.reached(Rung::V2Routing)
    }

    fn reached(&self, rung: Rung) -> bool {
        self.state.rung >= rung && self.applicable.has(rung)
    }

    /// What the rung leaves of a plan.
    ///
    /// The controls `uniform`, `random` and `dense` are untouched, and so are phase, temperature and
    /// learning rate. A loss without meaning on a rung gets coefficient 0:
    /// - from `freeze-gat`: `attention_gini`, which nothing could follow, and `next_operator`, which
    ///   would train its own head alone;
    /// - from `softmax-only`: a `gate_entropy` below 0, which presses softmax toward the very collapse
    ///   that the rung is to end;
    /// - under Gumbel routing, be it of `v2-routing` or configured: any `gate_entropy`, `overlap` and
    ///   `temporal`. The gates are one expert and the rest 0, so the first two are constant, and the
    ///   third would punish the noise of the draw.
    pub fn limit(&self, plan: Plan) -> Plan {
        if !plan.routing.learns() {
            return plan;
        }
        let routing = if self.v2_routing() {
            Routing::Gumbel
        } else if self.softmax_only() {
            Routing::Softmax
        } else {
            plan.routing
        };
        let mut coefficients = plan.coefficients;
        if self.freezes_gat() {
            coefficients = Coefficients { attention_gini: 0.0, next_operator: 0.0, ..coefficients };
        }
        if self.softmax_only() {
            coefficients.gate_entropy = coefficients.gate_entropy.max(0.0);
        }
        if routing == Routing::Gumbel {
            coefficients = Coefficients { gate_entropy: 0.0, overlap: 0.0, temporal: 0.0, ..coefficients };
        }
        Plan { routing, coefficients, ..plan }
    }

    /// Takes in an iteration's verdict, and makes the step it leads to, if any.
    ///
    /// `patience` unhealthy verdicts in a row step down; with `reversible`, `recovery` healthy ones in a
    /// row step up. The `cooldown` verdicts after a step of any kind do not count.
    pub fn observe(&mut self, at: Moment, health: &Health) -> Option<LadderStep> {
        if self.state.cooldown_left > 0 {
            self.state.cooldown_left -= 1;
            return None;
        }
        if health.healthy {
            self.state.unhealthy_in_a_row = 0;
            self.state.healthy_in_a_row += 1;
        } else {
            self.state.healthy_in_a_row = 0;
            self.state.unhealthy_in_a_row += 1;
        }
        let (ill, well) = (self.state.unhealthy_in_a_row, self.state.healthy_in_a_row);
        if !self.config.automatic {
            None
        } else if ill >= self.config.patience {
            let evidence = format!("{ill} unhealthy iterations in a row, the last: {}", health.evidence);
            let to = self.rung_below()?;
            Some(self.step(at, to, StepBy::Monitors, evidence))
        } else if self.config.reversible && well >= self.config.recovery {
            let to = self.rung_above()?;
            Some(self.step(at, to, StepBy::Recovery, format!("{well} healthy iterations in a row")))
        } else {
            None
        }
    }

    /// Steps down because updates fail for good at one snapshot; `None` where the ladder may not: it is
    /// not automatic, or at its lowest rung.
    pub fn step_down(&mut self, at: Moment, evidence: &str) -> Option<LadderStep> {
        let to = self.config.automatic.then(|| self.rung_below())??;
        Some(self.step(at, to, StepBy::Guard, evidence.to_string()))
    }

    /// Goes to `rung` by hand, up or down; `None` if it is there. Fails for a rung that changes nothing.
    pub fn set(
        &mut self,
        at: Moment,
        rung: Rung,
        evidence: &str,
    ) -> Result<Option<LadderStep>, CurriculumError> {
        check_applicable(&self.applicable, rung)?;
        self.state.chosen = rung;
        let moves = rung != self.state.rung;
        Ok(moves.then(|| self.step(at, rung, StepBy::Hand, evidence.to_string())))
    }

    /// All steps so far, in order.
    pub fn history(&self) -> &[LadderStep] {
        &self.state.history
    }

    /// The state to save; with the same configuration and verdicts it decides every later step.
    pub fn state(&self) -> &LadderState {
        &self.state
    }

    /// Continues from a saved state.
    pub fn restore(&mut self, state: LadderState) {
        self.state = state;
    }

    fn rung_below(&self) -> Option<Rung> {
        self.applicable.below(self.state.rung).filter(|&rung| rung <= self.config.lowest)
    }

    fn rung_above(&self) -> Option<Rung> {
        self.applicable.above(self.state.rung).filter(|&rung| rung >= self.state.chosen)
    }

    fn step(&mut self, at: Moment, to: Rung, by: StepBy, evidence: String) -> LadderStep {
        let Moment { iteration, env_step } = at;
        let step = LadderStep { iteration, env_step, from: self.state.rung, to, evidence, by };
        self.state.rung = to;
        self.state.unhealthy_in_a_row = 0;
        self.state.healthy_in_a_row = 0;
        self.state.cooldown_left = self.config.cooldown;
        self.state.history.push(step.clone());
        step
    }
}

fn check_applicable(applicable: &Applicable, rung: Rung) -> Result<(), CurriculumError> {
    if applicable.has(rung) {
        return Ok(());
    }
    let names = Rung::ALL.into_iter().filter(|&rung| applicable.has(rung)).map(|rung| rung.to_string());
    Err(CurriculumError::RungChangesNothing { rung, accepted: names.collect::<Vec<_>>().join(", ") })
}
