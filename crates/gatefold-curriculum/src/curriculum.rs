//! The curriculum: from progress to a plan, once per iteration.

use serde::{Deserialize, Serialize};

use crate::config::{CurriculumConfig, Schedule, Unit};
use crate::health::{Health, Held};
use crate::learning_rate::LearningRate;
use crate::plan::{Phase, Plan};
use crate::validation::CurriculumError;

/// Minibatches larger than this scale the learning rate where the configuration asks for it.
const REFERENCE_MINIBATCH: f64 = 256.0;

/// How far a run is at the start of an iteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Environment steps taken, over all environments.
    pub env_steps: u64,
    /// Environment steps the run will take; at least 1.
    pub total_steps: u64,
    /// Episodes finished, over all environments.
    pub episodes: u64,
}

impl Progress {
    /// Environment steps taken as a fraction of the run, 0 to 1; a run past its end stays at 1.
    ///
    /// Panics if `total_steps` is 0.
    pub fn fraction(self) -> f64 {
        assert!(self.total_steps > 0, "a run takes at least one environment step");
        (self.env_steps as f64 / self.total_steps as f64).min(1.0)
    }
}

/// A phase and the progress at which the run entered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseEntry {
    /// The phase.
    pub phase: Phase,
    /// Progress at the start of the phase's first iteration.
    pub at: Progress,
    /// Where verdicts held the entry back: the progress at which it was due.
    #[serde(default)]
    pub due: Option<Progress>,
}

/// What a curriculum carries from one iteration to the next, for the checkpoint.
///
/// Progress alone does not determine the phase: a run resumed with a larger `total_steps` is at a
/// smaller fraction, and must neither return to softmax nor blend backwards. Nor does it tell what the
/// monitors said.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurriculumState {
    entered: Vec<PhaseEntry>,
    transition_fraction: f64,
    #[serde(default)]
    unhealthy: Option<String>,
    #[serde(default)]
    held: Option<Held>,
}

/// One phase as the configuration plans it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlannedPhase {
    /// The phase.
    pub phase: Phase,
    /// Where it starts, in the configuration's `unit`.
    pub from: f64,
    /// Where it ends; `None` for the end of the run.
    pub until: Option<f64>,
}

/// Decides each iteration's [`Plan`]. Pure in the progress and its own serialisable state.
///
/// With `advance_when_healthy` a phase that is due waits while the last verdict given to
/// [`Curriculum::observe`] is unhealthy, but no longer than `max_hold`. A phase never starts in its
/// middle for that: a transition that starts late blends from its start over its full length, and
/// fine-tune follows as much later. A transition that waits for fine-tune stays at its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Curriculum {
    config: CurriculumConfig,
    rate_factor: f64,
    optimizer_steps_per_env_step: f64,
    state: CurriculumState,
}

impl Curriculum {
    /// A curriculum at the start of a run; `minibatch` is the samples of one optimizer step, and each
    /// sample is used in `epochs` of them.
    pub fn new(config: CurriculumConfig, minibatch: usize, epochs: usize) -> Result<Self, CurriculumError> {
        config.validate()?;
        let optimizer_steps_per_env_step = epochs as f64 / minibatch as f64;
        let batch_factor = if config.large_batch_scaling {
            (minibatch as f64 / REFERENCE_MINIBATCH).max(1.0).sqrt()
        } else {
            1.0
        };
        let rate_factor = config.lr_scale * batch_factor;
        let state = CurriculumState::default();
        Ok(Self { config, rate_factor, optimizer_steps_per_env_step, state })
    }

    /// The plan of the iteration that starts at `progress`.
    ///
    /// Panics if `progress.total_steps` is 0.
    pub fn plan(&mut self, progress: Progress) -> Plan {
        let phase = self.enter(progress);
        let top_k = self.config.top_k;
        let settings = match (self.config.schedule, phase) {
            (Schedule::Constant, _) => self.config.constant.settings(top_k),
            (Schedule::Phases, Phase::Warmup) => self.config.warmup.settings(top_k),
            (Schedule::Phases, Phase::Transition) => {
                self.config.transition.settings(self.state.transition_fraction)
            }
            (Schedule::Phases, Phase::FineTune) => self.config.fine_tune.settings(top_k),
        };
        Plan {
            phase,
            routing: self.config.routing.held(top_k).unwrap_or(settings.routing),
            temperature: settings.temperature as f32,
            coefficients: self.config.optional.beside(settings.coefficients, phase),
            learning_rate: LearningRate {
                phase_rate: self.rate_factor * settings.lr,
                decay: self.config.lr_decay.factor(progress.fraction()),
                warmup_steps: self.warmup_steps(progress.total_steps),
            },
        }
    }

    /// Optimizer steps of the learning rate's warmup: the fraction of the run's, if one is set.
    fn warmup_steps(&self, total_steps: u64) -> u64 {
        if self.config.lr_warmup_fraction > 0.0 {
            let optimizer_steps = total_steps as f64 * self.optimizer_steps_per_env_step;
            (self.config.lr_warmup_fraction * optimizer_steps).ceil() as u64
        } else {
            self.config.lr_warmup_steps
        }
    }

    /// The phases a run will enter, in order, as far as the configuration knows.
    ///
    /// With `unit = "fraction"` a phase that would start at the run's end is left out. With
    /// `"episodes"` all non-empty phases are listed: whether a run finishes enough episodes is not
    /// known beforehand. An iteration longer than a phase can still step over it, and verdicts can hold
    /// entries back.
    pub fn planned_phases(&self) -> Vec<PlannedPhase> {
        let (warmup, transition) = match self.config.schedule {
            Schedule::Phases => (self.config.warmup_until, self.config.transition_until),
            Schedule::Constant => (0.0, 0.0),
        };
        let phases = [
            PlannedPhase { phase: Phase::Warmup, from: 0.0, until: Some(warmup) },
            PlannedPhase { phase: Phase::Transition, from: warmup, until: Some(transition) },
            PlannedPhase { phase: Phase::FineTune, from: transition, until: None },
        ];
        let starts = |planned: &PlannedPhase| {
            let non_empty = planned.until.is_none_or(|until| planned.from < until);
            non_empty && (self.config.unit == Unit::Episodes || planned.from < 1.0)
        };
        phases.into_iter().filter(starts).collect()
    }

    /// Takes in what the monitors say of the iteration before the next plan.
    ///
    /// Without `advance_when_healthy` it changes nothing.
    pub fn observe(&mut self, health: &Health) {
        if self.config.advance_when_healthy {
            self.state.unhealthy = (!health.healthy).then(|| health.evidence.clone());
        }
    }

    /// The phase that is due but waits for health, since when, and on what evidence.
    pub fn held(&self) -> Option<&Held> {
        self.state.held.as_ref()
    }

    /// The phases entered so far, in order, with the progress at entry.
    pub fn entered(&self) -> &[PhaseEntry] {
        &self.state.entered
    }

    /// The state to save; with the same configuration and progress it decides every later plan.
    pub fn state(&self) -> &CurriculumState {
        &self.state
    }

    /// Continues from a saved state.
    pub fn restore(&mut self, state: CurriculumState) {
        self.state = state;
    }

    /// The phase at `progress`, never earlier than the one before; takes what it decides into the state.
    fn enter(&mut self, progress: Progress) -> Phase {
        let due = self.due_phase(progress);
        let current = self.state.entered.last().map(|entry| entry.phase);
        let since = self.state.held.take().map(|held| held.since);
        let phase = match current {
            None => due,
            Some(current) if due <= current => current,
            Some(current) => {
                let next = self.following(current);
                self.state.held = self.hold(next, since.unwrap_or(progress), progress);
                match (&self.state.held, since) {
                    (Some(_), _) => current,
                    (None, Some(_)) => next,
                    (None, None) => due,
                }
            }
        };
        if current != Some(phase) {
            self.state.entered.push(PhaseEntry { phase, at: progress, due: since });
        }
        if phase == Phase::Transition {
            let fraction = self.transition_progress(progress).min(1.0);
            self.state.transition_fraction = self.state.transition_fraction.max(fraction);
        }
        phase
    }

    /// Why `phase`, due `since`, waits on; `None` where nothing holds it back any longer.
    fn hold(&self, phase: Phase, since: Progress, progress: Progress) -> Option<Held> {
        let evidence = self.state.unhealthy.clone()?;
        let waited = self.elapsed(since, progress);
        (waited < self.config.max_hold).then_some(Held { phase, since, evidence })
    }

    /// The phase after `current`. One that waited is entered even if its planned time has passed
    /// meanwhile; an iteration longer than a phase steps over it.
    fn following(&self, current: Phase) -> Phase {
        let has_transition = self.config.warmup_until < self.config.transition_until;
        if current == Phase::Warmup && has_transition { Phase::Transition } else { Phase::FineTune }
    }

    /// The phase by progress and a late entry into the transition, whatever the monitors say.
    fn due_phase(&self, progress: Progress) -> Phase {
        let position = self.position(progress);
        let in_transition = match self.late_transition() {
            Some(_) => self.transition_progress(progress) < 1.0,
            None => position < self.config.transition_until,
        };
        match self.config.schedule {
            Schedule::Constant => Phase::FineTune,
            Schedule::Phases if position < self.config.warmup_until => Phase::Warmup,
            Schedule::Phases if in_transition => Phase::Transition,
            Schedule::Phases => Phase::FineTune,
        }
    }

    /// How far the transition is, 0 at its start and 1 at its end; one that started late counts from
    /// its entry, over the same length.
    fn transition_progress(&self, progress: Progress) -> f64 {
        let (from, until) = (self.config.warmup_until, self.config.transition_until);
        match self.late_transition() {
            Some(entry) => self.elapsed(entry.at, progress) / (until - from),
            None => (self.position(progress) - from) / (until - from),
        }
    }

    /// The entry into the transition, if verdicts held it back.
    fn late_transition(&self) -> Option<&PhaseEntry> {
        self.state.entered.iter().find(|entry| entry.phase == Phase::Transition && entry.due.is_some())
    }

    /// Progress since `from`, in the configuration's unit and in fractions of today's `total_steps`.
    fn elapsed(&self, from: Progress, progress: Progress) -> f64 {
        self.position(Progress {
            env_steps: progress.env_steps.saturating_sub(from.env_steps),
            total_steps: progress.total_steps,
            episodes: progress.episodes.saturating_sub(from.episodes),
        })
    }

    /// Progress in the configuration's unit.
    fn position(&self, progress: Progress) -> f64 {
        match self.config.unit {
            Unit::Episodes => progress.episodes as f64,
            Unit::Fraction => progress.fraction(),
        }
    }
}
