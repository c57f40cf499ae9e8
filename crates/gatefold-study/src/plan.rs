//! From a study file to its runs: one for each arm and seed, and what is left to do of each.

use std::fs;
use std::path::{Path, PathBuf};

use gatefold_env::EnvEntry;
use gatefold_runner::run_dir::read_config;
use gatefold_runner::{ExperimentConfig, layers};
use toml::{Table, Value};

use crate::error::{ArmError, StudyError};
use crate::runs::{Arm, CONFIG, STUDY, read_run};
use crate::study_file::{StudyFile, check_seeds};

/// A study in its folder, every run checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Study {
    /// What the file says.
    pub file: StudyFile,
    /// The folder with `ARM/sSEED` for each run.
    pub folder: PathBuf,
    /// All runs: the first seed of every arm, then the second, and so on, so that a study stopped early
    /// has seeds of all arms.
    pub jobs: Vec<Job>,
}

/// One run of a study.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its arm.
    pub arm: String,
    /// Its seed.
    pub seed: u64,
    /// Its run directory.
    pub run_dir: PathBuf,
    /// The experiment file it starts from.
    pub base: PathBuf,
    /// Settings over it, as on the command line.
    pub overrides: Vec<String>,
    /// Environment steps it takes.
    pub total_steps: u64,
    /// What is left to do.
    pub state: JobState,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// To be trained from its first step.
    Absent,
    /// To be resumed.
    Begun,
    /// Trained and evaluated.
    Finished,
}

impl Job {
    /// `ARM/sSEED`.
    pub fn name(&self) -> String {
        format!("{}/s{}", self.arm, self.seed)
    }

    /// Where the process of the run writes what it prints: beside the run directory.
    pub fn log(&self) -> PathBuf {
        self.run_dir.with_file_name(format!("s{}.log", self.seed))
    }

    /// Looks at the run directory anew.
    pub(crate) fn look(&self) -> JobState {
        if read_run(&self.run_dir).is_ok() {
            JobState::Finished
        } else if self.run_dir.join(CONFIG).is_file() {
            JobState::Begun
        } else {
            JobState::Absent
        }
    }
}

impl Study {
    /// Reads a study file and resolves the configuration of every run, so that a mistake in any arm is
    /// told before the first one starts. `seeds` takes the place of the file's unless empty.
    ///
    /// A run that is there already must have the same configuration; nothing is written.
    pub fn plan(path: &Path, folder: &Path, seeds: &[u64], entries: &[EnvEntry]) -> Result<Self, StudyError> {
        let mut file = StudyFile::read(path)?;
        if !seeds.is_empty() {
            check_seeds(seeds).map_err(|(message, help)| StudyError::Arguments {
                message: format!("--{message}"),
                help: Some(help),
            })?;
            file.study.seeds = seeds.to_vec();
        }
        let beside = path.parent().unwrap_or(Path::new(""));
        let mut jobs = Vec::new();
        for &seed in &file.study.seeds {
            for (name, arm) in &file.arms {
                let base = beside.join(arm.base.as_ref().unwrap_or(&file.base));
                let own = [format!("run.name={name:?}"), format!("run.seed={seed}")];
                let overrides = [&file.study.overrides[..], &arm.overrides, &own].concat();
                let of_arm = |cause| StudyError::Arm(Box::new(ArmError { arm: name.clone(), cause }));
                let config = layers::load(&base, &overrides, entries).map_err(of_arm)?;
                let mut job = Job {
                    arm: name.clone(),
                    seed,
                    run_dir: folder.join(name).join(format!("s{seed}")),
                    base,
                    overrides,
                    total_steps: config.run.total_steps,
                    state: JobState::Absent,
                };
                job.state = job.look();
                if job.state != JobState::Absent {
                    check_same(&job.run_dir, &config, entries)?;
                }
                jobs.push(job);
            }
        }
        Ok(Self { file, folder: folder.to_path_buf(), jobs })
    }

    /// The arms with those runs that came to their end; an arm without any is left out.
    pub fn finished_arms(&self) -> Vec<Arm> {
        let runs = |name: &str| {
            let own = self.jobs.iter().filter(|job| job.arm == name);
            own.filter_map(|job| read_run(&job.run_dir).ok()).collect::<Vec<_>>()
        };
        let arms = self.file.arms.keys().map(|name| Arm { name: name.clone(), runs: runs(name) });
        arms.filter(|arm| !arm.runs.is_empty()).collect()
    }

    /// Makes the folder and puts a copy of the study file in it.
    pub(crate) fn write_copy(&self, original: &Path) -> Result<(), StudyError> {
        fs::create_dir_all(&self.folder).map_err(|e| StudyError::io(&self.folder, "write", e))?;
        let text = fs::read_to_string(original).map_err(|e| StudyError::io(original, "read", e))?;
        let copy = self.folder.join(STUDY);
        fs::write(&copy, text).map_err(|e| StudyError::io(&copy, "write", e))
    }
}

/// Fails at the first key in which a run on disk differs from what the study says; why it exists may.
fn check_same(run: &Path, now: &ExperimentConfig, entries: &[EnvEntry]) -> Result<(), StudyError> {
    let saved = read_config(run, &[], entries)?;
    let table = |config: &ExperimentConfig| {
        let mut table: Table = layers::to_toml(config).parse().expect("a configuration is TOML");
        table.remove("about");
        table
    };
    match first_difference(&table(&saved), &table(now), "") {
        None => Ok(()),
        Some((key, saved, now)) => {
            Err(StudyError::OtherConfiguration { run: run.to_path_buf(), key, saved, now })
        }
    }
}

fn first_difference(saved: &Table, now: &Table, path: &str) -> Option<(String, String, String)> {
    let keys = saved.keys().chain(now.keys().filter(|key| !saved.contains_key(*key)));
    keys.into_iter().find_map(|key| {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (saved.get(key), now.get(key)) {
            (Some(Value::Table(saved)), Some(Value::Table(now))) => first_difference(saved, now, &path),
            (saved, now) if saved != now => {
                let shown = |value: Option<&Value>| value.map_or("(not set)".into(), Value::to_string);
                Some((path, shown(saved), shown(now)))
            }
            _ => None,
        }
    })
}
