//! Faults put into running experiments, and what the runs do about them. For tests and `gatefold chaos`.
//!
//! An [`Injector`] is a probe that changes values at named sites (`gatefold_ops::probe`); it exists only in
//! builds with the feature `chaos`. [`chaos`] runs an experiment without a fault and then once for each
//! fault, with the same seed, and reports what found the fault, when, and what it cost.

mod fault;
mod file;
mod injector;
mod report;
mod sites;
mod trial;

use std::path::Path;
use std::sync::Arc;

use gatefold_env::EnvEntry;

pub use fault::{FaultKind, FaultSpec, SLACK, Stage};
pub use file::{All, ChaosFile, SiteNames, SitesTable};
pub use injector::Injector;
pub use report::{ChaosReport, Outcome};
pub use sites::Site;
pub(crate) use trial::add_planted_loss;

use self::trial::Trial;
use crate::{ConfigError, ExperimentConfig, RunError, RunOptions};

/// An experiment that faults are put into, and its run without one.
pub struct Subject<'a> {
    config: &'a ExperimentConfig,
    options: &'a RunOptions,
    entries: &'a [EnvEntry],
    healthy: Trial,
}

/// The sites that a run of an experiment passes, by name: that which changes nothing notes them.
pub fn sites(
    config: &ExperimentConfig,
    options: &RunOptions,
    entries: &[EnvEntry],
) -> Result<Vec<Site>, RunError> {
    let recorder = Arc::new(sites::Recorder::default());
    trial::run(config, Some(recorder.clone()), options, entries)?;
    Ok(recorder.sites())
}

impl<'a> Subject<'a> {
    /// Runs the experiment without a fault.
    pub fn new(
        config: &'a ExperimentConfig,
        options: &'a RunOptions,
        entries: &'a [EnvEntry],
    ) -> Result<Self, RunError> {
        let healthy = trial::run(config, None, options, entries)?;
        if let Err(reason) = &healthy.end {
            return Err(RunError::Stopped(format!("without any fault: {reason}")));
        }
        Ok(Self { config, options, entries, healthy })
    }

    /// Mean return of the final evaluation without a fault.
    pub fn return_mean(&self) -> Option<f64> {
        self.healthy.evaluated()
    }

    /// What the run without a fault did, with the monitors that raised a warning or an alarm: `none` where
    /// nothing speaks against telling a fault by them.
    pub fn without_a_fault(&self) -> String {
        self.healthy.account()
    }

    /// Runs the experiment with a fault.
    pub fn suffer(&self, fault: &FaultSpec) -> Result<Outcome, RunError> {
        let injector = Arc::new(Injector::new(fault.clone(), &self.config.policy.experts));
        let trial = trial::run(self.config, Some(injector.clone()), self.options, self.entries)?;
        let injected_at = injector.first_changed();
        // Events name iterations by their number from 1: the first faulty one is `injected_at + 1`.
        let since = injected_at.unwrap_or(fault.at);
        let found = if fault.kind.is_numeric() {
            trial.discarded(since).map(|(iteration, _)| (iteration, "guard"))
        } else {
            let monitors = fault.kind.monitors();
            let anyway = self.healthy.raised(monitors, since).map_or(u64::MAX, |(iteration, _)| iteration);
            trial.raised(monitors, since).filter(|(iteration, _)| *iteration < anyway)
        };
        let stopped = trial.end.as_ref().err().cloned();
        let return_mean = trial.evaluated();
        Ok(Outcome {
            site: fault.place(),
            injected_at,
            detected_after: injected_at.and(found).map(|(iteration, _)| iteration - since - 1),
            window: fault.window(&self.config.monitors),
            deadline: fault.deadline(&self.config.monitors),
            by: injected_at.and(found).map(|(_, by)| by.to_string()),
            evidence: trial.discarded(since).map(|(_, evidence)| evidence.to_string()).or(stopped),
            action: trial.action(since),
            checkpoints: trial.checkpoints,
            persisted: trial.non_finite,
            return_ratio: return_mean.zip(self.return_mean()).map(|(with, without)| with / without),
            return_mean,
            fault: fault.clone(),
        })
    }
}

/// NaN and infinity at each of these sites.
pub fn numeric_faults(sites: &[Site], at: u64) -> Vec<FaultSpec> {
    let kinds = [FaultKind::Nan, FaultKind::Inf];
    let both = |site: &Site| kinds.map(|kind| FaultSpec::numeric(kind, &site.name, site.stage, at));
    sites.iter().flat_map(both).collect()
}

/// Tries every fault of a file, and tells of each outcome as it is known: how many are done, and of how many.
pub fn chaos(
    path: &Path,
    options: &RunOptions,
    entries: &[EnvEntry],
    watch: &mut dyn FnMut(&Outcome, usize, usize),
) -> Result<ChaosReport, RunError> {
    let file = ChaosFile::read(path)?;
    let config = file.experiment(path, &[], entries)?;
    file.check(path, &config.policy.experts)?;
    let mut numeric = Vec::new();
    let mut config_of_sites = config.clone();
    if let Some(table) = &file.sites {
        config_of_sites = file.experiment(path, &table.overrides, entries)?;
        let mut all = sites(&config_of_sites, options, entries)?;
        let names: Vec<String> = all.iter().map(|site| site.name.clone()).collect();
        all.retain(|site| table.names.include(&site.name));
        if all.is_empty() {
            return Err(no_sites(path, &names));
        }
        numeric = numeric_faults(&all, table.at);
    }
    let total = numeric.len() + file.faults.len();
    let mut outcomes = Vec::with_capacity(total);
    let mut suffer = |config: &ExperimentConfig, faults: &[FaultSpec]| {
        if faults.is_empty() {
            return Ok(None);
        }
        let subject = Subject::new(config, options, entries)?;
        for fault in faults {
            outcomes.push(subject.suffer(fault)?);
            watch(outcomes.last().expect("pushed"), outcomes.len(), total);
        }
        Ok::<_, RunError>(Some((subject.return_mean(), subject.without_a_fault())))
    };
    let (sites_return_mean, _) = suffer(&config_of_sites, &numeric)?.unzip();
    let (faults_return_mean, without_a_fault) = suffer(&config, &file.faults)?.unzip();
    let mut names: Vec<_> = numeric.iter().map(FaultSpec::place).collect();
    names.dedup();
    Ok(ChaosReport {
        about: file.about,
        env: config.env.name,
        seed: config.run.seed,
        revision: options.revision.clone(),
        num_sites: names.len(),
        sites_return_mean: sites_return_mean.flatten(),
        faults_return_mean: faults_return_mean.flatten(),
        without_a_fault,
        outcomes,
    })
}

fn no_sites(path: &Path, names: &[String]) -> RunError {
    RunError::from(Box::new(ConfigError {
        origin: path.display().to_string(),
        message: "[sites] names: no site of the experiment begins like that".to_string(),
        key: None,
        help: Some(format!("its sites are {}", names.join(", "))),
        text: None,
        span: None,
    }))
}
