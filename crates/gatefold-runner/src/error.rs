//! What a user can get wrong, one message each.

use std::io;
use std::path::{Path, PathBuf};

use gatefold_env::EnvError;
use miette::{Diagnostic, NamedSource, SourceSpan};
use thiserror::Error;

/// A mistake in a configuration: the file, the key, its value, and what would be accepted.
#[derive(Debug, Error, Diagnostic)]
#[error("{origin}: {message}")]
pub struct ConfigError {
    /// The file, or `command line`.
    pub origin: String,
    /// `key = value: what would be accepted`.
    pub message: String,
    /// The dotted key at fault, if it is one.
    pub key: Option<String>,
    /// What to do about it.
    #[help]
    pub help: Option<String>,
    #[source_code]
    pub(crate) text: Option<NamedSource<String>>,
    #[label("here")]
    pub(crate) span: Option<SourceSpan>,
}

/// Why a command cannot be carried out. Each is one message and exit code 2.
#[derive(Debug, Error, Diagnostic)]
#[non_exhaustive]
pub enum RunError {
    /// A mistake in a configuration file or an override.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Config(#[from] Box<ConfigError>),

    /// A file or folder that cannot be read or written.
    #[error("{}: cannot {action}: {}", path.display(), reason(cause))]
    #[diagnostic(help("{}", remedy(cause)))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried: `read`, `write`, ...
        action: &'static str,
        /// What the system said.
        cause: io::Error,
    },

    /// A file where a folder is needed.
    #[error("{}: this is a file: need a folder", path.display())]
    #[diagnostic(help("give an empty or absent folder, such as --run-dir runs/mine"))]
    NotAFolder {
        /// The file.
        path: PathBuf,
    },

    /// A folder where an experiment file is needed.
    #[error("{}: this is a folder: need an experiment file", path.display())]
    #[diagnostic(help("give a file such as experiments/quickstart.toml, or the config.toml of a run"))]
    NotAFile {
        /// The folder.
        path: PathBuf,
    },

    /// A run directory that already holds something.
    #[error("{}: not empty: need an empty or absent folder for a new run", path.display())]
    #[diagnostic(help("{}: nothing is ever written over", instead(path, *is_run)))]
    NotEmpty {
        /// The folder.
        path: PathBuf,
        /// Whether it holds a run.
        is_run: bool,
    },

    /// Another process writes into the run.
    #[error("{}: another process is writing into this run", path.display())]
    #[diagnostic(help("wait until it has ended; the lock goes with the process, however it ends"))]
    Locked {
        /// The run directory.
        path: PathBuf,
    },

    /// A path that holds no run.
    #[error("{}: not a run directory: {reason}", path.display())]
    #[diagnostic(help("give the folder that `train` named, such as runs/quickstart/<timestamp>-s1"))]
    NotARun {
        /// What was given.
        path: PathBuf,
        /// What it is instead.
        reason: &'static str,
    },

    /// A run without a usable checkpoint.
    #[error("{}: no usable checkpoint: {reason}", path.display())]
    #[diagnostic(help(
        "give a run directory, such as runs/quickstart/<timestamp>-s1, or a checkpoint in it"
    ))]
    NoCheckpoint {
        /// The folder searched.
        path: PathBuf,
        /// What was found instead.
        reason: String,
    },

    /// A checkpoint whose bytes are not those that were saved.
    #[error("{}: damaged checkpoint: {reason}", path.display())]
    #[diagnostic(help("use an earlier one of the same run; `gatefold checkpoint verify RUN` lists them"))]
    Damaged {
        /// The checkpoint.
        path: PathBuf,
        /// Which file, and what is wrong with it.
        reason: String,
    },

    /// A path that holds no dump.
    #[error("{}: not a dump: {reason}", path.display())]
    #[diagnostic(help(
        "give a folder such as RUN/dumps/iteration-000123; a run writes one when it discards an update"
    ))]
    NotADump {
        /// What was given.
        path: PathBuf,
        /// What it is instead.
        reason: String,
    },

    /// A run that noted no events.
    #[error("{}: there is no events.jsonl in this run", path.display())]
    #[diagnostic(help(
        "an older build wrote it; `gatefold resume {}` goes on with it and notes events from then on", path.display()
    ))]
    NoEvents {
        /// The run directory.
        path: PathBuf,
    },

    /// A line of a run's file that this build cannot read.
    #[error("{}: line {line}: {reason}", path.display())]
    #[diagnostic(help(
        "use the build that wrote it (see the revision in the run's config.toml), or remove the line"
    ))]
    BadLine {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },

    /// A checkpoint of another format.
    #[error("{}: checkpoint format {found}: this build reads format {supported}", path.display())]
    #[diagnostic(help("use the build that wrote it (see `revision` in its manifest.json)"))]
    Version {
        /// The checkpoint.
        path: PathBuf,
        /// The format it has.
        found: u32,
        /// The format this build reads.
        supported: u32,
    },

    /// A checkpoint that another configuration trained.
    #[error("{}: {key} = {now}: the checkpoint was trained with {key} = {saved}", path.display())]
    #[diagnostic(help(
        "a resumed run may change only {}; start a new run for anything else",
        crate::resume_keys::CHANGEABLE.join(", ")
    ))]
    OtherConfiguration {
        /// The checkpoint or run.
        path: PathBuf,
        /// The first key that differs.
        key: String,
        /// Its value in the checkpoint.
        saved: String,
        /// Its value asked for.
        now: String,
    },

    /// A fault in an environment's options, files or saved state.
    #[error(transparent)]
    Env(#[from] EnvError),

    /// A run that would not fit into memory.
    #[error("this run needs about {needed} of memory and {available} are available: {parts}")]
    #[diagnostic(help("lower the keys in parentheses; nothing has been written"))]
    TooLarge {
        /// What it needs, with its unit.
        needed: String,
        /// What there is, with its unit.
        available: String,
        /// What takes most of it, each with the keys that size it.
        parts: String,
    },

    /// A device that cannot be used.
    #[error("--device {device}: {reason}")]
    Device {
        /// The device asked for.
        device: &'static str,
        /// Why not, and what would do.
        reason: String,
    },

    /// A run that cannot go on, such as one whose numbers are no longer finite.
    #[error("{0}")]
    Stopped(String),
}

impl RunError {
    /// An error of reading or writing `path`.
    pub fn io(path: impl AsRef<Path>, action: &'static str, cause: io::Error) -> Self {
        Self::Io { path: path.as_ref().to_path_buf(), action, cause }
    }
}

fn instead(path: &Path, is_run: bool) -> String {
    match is_run {
        true => format!("go on with `gatefold resume {}`, or give another --run-dir", path.display()),
        false => "this folder holds no run; give another --run-dir".to_string(),
    }
}

fn reason(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::NotFound => "it does not exist".to_string(),
        io::ErrorKind::PermissionDenied => "permission denied".to_string(),
        io::ErrorKind::StorageFull => "the disk is full".to_string(),
        io::ErrorKind::NotADirectory => "a part of the path is a file".to_string(),
        io::ErrorKind::InvalidData => "it is not text in UTF-8".to_string(),
        _ => cause.to_string(),
    }
}

fn remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::NotFound => "check the path; it is relative to the current folder",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space; what was saved before is intact, and `gatefold resume` goes on from there"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "make it readable and writable for this user, or choose another folder with --run-dir"
        }
        _ => "what was saved before is intact",
    }
}
