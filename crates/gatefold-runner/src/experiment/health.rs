//! Judging an iteration, and what follows: keep it, go back, or step down the ladder.

use std::path::PathBuf;

use gatefold_curriculum::{Health, LadderStep, Plan, StepBy};
use gatefold_monitor::{Happening, Metrics, RunEvent, Situation, names};
use gatefold_ops::OpsAutodiffBackend;

use super::Experiment;
use crate::RunError;
use crate::assembly::Parts;
use crate::events::{Event, Reporter};
use crate::guard::MOST_ATTEMPTS;
use crate::logs::Logs;

impl<B: OpsAutodiffBackend> Experiment<'_, B> {
    /// A statistic that is not finite, before anything is scaled by it.
    pub(super) fn bad_normaliser(&self) -> Option<&'static str> {
        if !self.parts.rewards.is_finite() {
            return Some("the standard deviation of rewards");
        }
        let scaling = self.parts.collector.scaling();
        scaling.is_some_and(|scaling| !scaling.is_finite()).then_some("a statistic of the observations")
    }

    /// Judges the iteration; a healthy one is where the guard and the ladder return to.
    pub(super) fn judge(
        &mut self,
        plan: &Plan,
        metrics: &mut Metrics,
        largest_tensor: Option<&str>,
    ) -> Result<(), RunError> {
        let situation = Situation {
            iteration: self.counters.iteration,
            env_step: self.counters.env_steps,
            phase: plan.phase,
            routing: plan.routing,
            temperature: plan.temperature,
            experts: &self.parts.learner.experts,
            target_return: self.config.run.target_return,
            largest_tensor,
        };
        self.guard.pass();
        metrics.merge(self.guard.metrics());
        let judgement = self.parts.monitors.judge(&situation, metrics);
        let health =
            if judgement.is_healthy() { Health::healthy() } else { Health::unhealthy(judgement.evidence()) };
        metrics.merge(judgement.metrics);
        self.happened.extend(judgement.events);
        let held = |parts: &Parts<B>| parts.curriculum.held().cloned();
        let before = held(&self.parts);
        self.parts.curriculum.observe(&health);
        if let Some(now) = held(&self.parts).filter(|_| before.is_none()) {
            self.note(Happening::PhaseHeld { phase: now.phase, evidence: now.evidence });
        }
        if health.healthy {
            self.healthy = self.parts.learned(self.counters.moment());
            self.guard.attempts = 0;
        }
        if let Some(step) = self.parts.ladder.observe(self.counters.moment(), &health) {
            self.take_step(step)?;
        }
        metrics.set(names::LADDER_RUNG, self.parts.ladder.rung().index() as f64);
        metrics.set(names::GUARD_ATTEMPTS, self.guard.attempts as f64);
        Ok(())
    }

    pub(super) fn go_back_to_healthy(&mut self, evidence: &str) {
        self.parts.put_back(&self.healthy);
        let (to_env_step, evidence) = (self.healthy.rest.env_step, evidence.to_string());
        self.note(Happening::RolledBack { to_env_step, evidence });
    }

    /// Performs a step of the ladder: down from the last healthy state, up and by hand from the present one.
    pub(super) fn take_step(&mut self, step: LadderStep) -> Result<(), RunError> {
        if matches!(step.by, StepBy::Monitors | StepBy::Guard) {
            self.go_back_to_healthy(&step.evidence);
        }
        let shape = self.parts.shape_of_rung(&self.usage);
        self.parts.reshape(shape, &self.device)?;
        self.guard.start_anew();
        self.parts.monitors.start_windows_anew();
        self.healthy = self.parts.learned(self.counters.moment());
        self.note(Happening::LadderStep {
            from: step.from.to_string(),
            to: step.to.to_string(),
            by: step.by.to_string(),
            evidence: step.evidence,
        });
        Ok(())
    }

    /// Throws away what this iteration learned and returns to the last healthy state.
    pub(super) fn discard(&mut self, evidence: String, dump: Option<PathBuf>) -> Result<Metrics, RunError> {
        self.counters.iteration += 1;
        let attempt = self.guard.discard(dump.is_some());
        self.parts.put_back(&self.healthy);
        self.parts.monitors.start_windows_anew();
        self.note(Happening::UpdateDiscarded { evidence: evidence.clone(), attempt });
        if let Some(dump) = dump {
            let path = dump.strip_prefix(self.run_dir.path()).unwrap_or(&dump).display().to_string();
            self.note(Happening::DumpWritten { path });
        }
        if attempt >= MOST_ATTEMPTS {
            let grounds = format!("{attempt} discarded updates in a row, the last: {evidence}");
            match self.parts.ladder.step_down(self.counters.moment(), &grounds) {
                Some(step) => self.take_step(step)?,
                None => return Err(self.misfortune(grounds)),
            }
        } else if let Some(step) =
            self.parts.ladder.observe(self.counters.moment(), &Health::unhealthy(evidence))
        {
            self.take_step(step)?;
        }
        let mut metrics = self.guard.metrics();
        metrics.set(names::LADDER_RUNG, self.parts.ladder.rung().index() as f64);
        metrics.set(names::TIME_ITERATION, self.counters.iteration as f64);
        metrics.set(names::TIME_ENV_STEPS, self.counters.env_steps as f64);
        Ok(metrics)
    }

    /// A run that cannot go on, and what to do about it.
    pub(super) fn misfortune(&self, what: String) -> RunError {
        RunError::Stopped(format!(
            "environment `{}`, iteration {}: {what}. The newest checkpoint in {} is healthy; `gatefold explain` tells \
             what led here. Go on with `resume --rung <rung>`, or start a new run with a lower curriculum.lr_scale, \
             smaller coefficients or another seed",
            self.config.env.name,
            self.counters.iteration,
            self.run_dir.checkpoints().display()
        ))
    }

    pub(super) fn note(&mut self, what: Happening) {
        let (iteration, env_step) = (self.counters.iteration, self.counters.env_steps);
        self.happened.push(RunEvent { iteration, env_step, what });
    }

    /// Passes on what happened.
    pub(super) fn tell(&mut self, log: &mut Logs, reporter: &mut dyn Reporter) -> Result<(), RunError> {
        for event in self.happened.drain(..) {
            log.events.write(&event)?;
            reporter.event(&Event::Happened(event));
        }
        Ok(())
    }
}
