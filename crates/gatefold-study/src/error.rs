//! Why a study or a comparison cannot be carried out.

use std::path::{Path, PathBuf};

use gatefold_runner::RunError;
use miette::{Diagnostic, NamedSource, SourceSpan};
use thiserror::Error;

/// A mistake in a study file: the key, its value, and what would be accepted.
#[derive(Debug, Error, Diagnostic)]
#[error("{file}: {message}")]
pub struct FileError {
    /// The study file.
    pub file: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    #[help]
    pub help: Option<String>,
    #[source_code]
    pub(crate) text: Option<NamedSource<String>>,
    #[label("here")]
    pub(crate) span: Option<SourceSpan>,
}

/// An arm whose configuration cannot be run.
#[derive(Debug, Error, Diagnostic)]
#[error("arm `{arm}`")]
pub struct ArmError {
    /// The arm.
    pub arm: String,
    /// What is wrong with it.
    #[source]
    #[diagnostic_source]
    pub cause: RunError,
}

/// Why a study or a comparison cannot be carried out. Each is one message and exit code 2.
#[derive(Debug, Error, Diagnostic)]
#[non_exhaustive]
pub enum StudyError {
    /// A mistake in a study file.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(Box<FileError>),

    /// An arm whose configuration cannot be run.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Arm(Box<ArmError>),

    /// A run that an earlier sitting of the study made by another configuration.
    #[error("{}: {key} = {saved}, but the study now says {now}", run.display())]
    #[diagnostic(help(
        "remove the folder to run it anew, or give the study another folder with --dir; nothing is written over"
    ))]
    OtherConfiguration {
        /// The run directory.
        run: PathBuf,
        /// The first key that differs.
        key: String,
        /// Its value in the run.
        saved: String,
        /// Its value in the study.
        now: String,
    },

    /// A folder in which there is no run.
    #[error("{}: no run in it", path.display())]
    #[diagnostic(help(
        "give a run directory such as runs/quickstart/<timestamp>-s1, a folder of runs, or a study's folder"
    ))]
    NoRun {
        /// The folder.
        path: PathBuf,
    },

    /// A run that has not been evaluated.
    #[error("{}: {reason}", run.display())]
    #[diagnostic(help("go on with it by `gatefold resume {}`, or name the runs to compare", run.display()))]
    Unfinished {
        /// The run directory.
        run: PathBuf,
        /// What it lacks.
        reason: String,
    },

    /// A summary that cannot be read.
    #[error("{}: not a summary of this build: {reason}", path.display())]
    #[diagnostic(help("use the build that wrote it, or train the run again"))]
    Summary {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A metric that no summary has.
    #[error("--metric {metric}: unknown metric; there are {known}")]
    UnknownMetric {
        /// The metric asked for.
        metric: String,
        /// Those that exist.
        known: String,
        /// The one that was probably meant.
        #[help]
        help: Option<String>,
    },

    /// Runs whose scores mean different things.
    #[error("{} ran on `{env}`, {} on `{other}`: scores of different environments cannot be compared",
        run.display(), first.display())]
    #[diagnostic(help("compare the runs of one environment at a time"))]
    MixedEnvironments {
        /// The run that differs.
        run: PathBuf,
        /// Its environment.
        env: String,
        /// The first run.
        first: PathBuf,
        /// Its environment.
        other: String,
    },

    /// Arguments that do not fit together.
    #[error("{message}")]
    Arguments {
        /// What is wrong.
        message: String,
        /// What to do about it.
        #[help]
        help: Option<String>,
    },

    /// Runs that failed; all others were run.
    #[error("{failed} of {runs} runs failed: {names}")]
    #[diagnostic(help("their last lines stand above; the same command runs again only what is missing"))]
    Failed {
        /// How many failed.
        failed: usize,
        /// How many there are.
        runs: usize,
        /// Which.
        names: String,
    },

    /// A fault of a run or of the file system.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Run(Box<RunError>),
}

impl StudyError {
    pub(crate) fn io(path: impl AsRef<Path>, action: &'static str, cause: std::io::Error) -> Self {
        RunError::io(path, action, cause).into()
    }
}

impl From<RunError> for StudyError {
    fn from(error: RunError) -> Self {
        Self::Run(Box::new(error))
    }
}

/// The candidate that a typing error most likely meant, as a question.
pub(crate) fn did_you_mean<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    let allowed = (name.chars().count() / 3).clamp(1, 4);
    let distance = |candidate: &&str| strsim::damerau_levenshtein(name, candidate);
    let nearest = candidates.min_by_key(distance).filter(|nearest| distance(nearest) <= allowed)?;
    Some(format!("did you mean `{nearest}`?"))
}
