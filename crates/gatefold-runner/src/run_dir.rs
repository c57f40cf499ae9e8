//! The folder of one run: configuration, metrics, checkpoints, summary, and a lock.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use gatefold_env::EnvEntry;

use crate::checkpoint;
use crate::config::ExperimentConfig;
use crate::error::RunError;
use crate::expert_use::ExpertUse;
use crate::layers::{resolve, to_table, to_toml};
use crate::options::RunOptions;
use crate::overrides::parse_all;
use crate::resume_keys::check_overrides;
use crate::summary::Summary;

const CONFIG: &str = "config.toml";
pub(crate) const METRICS: &str = "metrics.jsonl";
pub(crate) const EVENTS: &str = "events.jsonl";
const LOCK: &str = ".lock";

/// A run directory that this process alone writes into.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Holds the lock; the system lets go of it when the process ends, however it ends.
    _lock: File,
}

impl RunDir {
    /// Makes the directory of a new run and writes its configuration.
    ///
    /// That is `options.run_dir`, which must be empty or absent, or else
    /// `runs/<name>/<timestamp>-s<seed>`.
    pub fn create(config: &ExperimentConfig, options: &RunOptions) -> Result<Self, RunError> {
        let path = match &options.run_dir {
            Some(path) => path.clone(),
            None => fresh_path(config)?,
        };
        checkpoint::make_folder(&path)?;
        refuse_content(&path)?;
        let run = Self { _lock: lock(&path)?, path };
        // Another run may have come and gone between the look and the lock.
        refuse_content(&run.path)?;
        run.write_config(config, options)?;
        Ok(run)
    }

    /// Opens the directory of a run that is to go on.
    pub fn open(path: &Path) -> Result<Self, RunError> {
        require_run(path)?;
        Ok(Self { _lock: lock(path)?, path: path.to_path_buf() })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join(checkpoint::FOLDER)
    }

    /// The file of metrics, one JSON object per iteration.
    pub fn metrics(&self) -> PathBuf {
        self.path.join(METRICS)
    }

    /// The file of events, one JSON object for each.
    pub fn events(&self) -> PathBuf {
        self.path.join(EVENTS)
    }

    /// Writes the resolved configuration, headed by where its numbers come from.
    pub fn write_config(&self, config: &ExperimentConfig, options: &RunOptions) -> Result<(), RunError> {
        let text = format!(
            "# The resolved configuration of this run; `gatefold resume` reads it.\n\
             # source revision {}, seed {}, SIMD level {}, device {}\n\n{}",
            options.revision,
            config.run.seed,
            gatefold_ops::simd_level(),
            options.device.name(),
            to_toml(config)
        );
        checkpoint::write_file(&self.path.join(CONFIG), text.as_bytes())
    }

    /// Writes `experts.json`: how the final evaluation used the experts, by kind of situation.
    pub fn write_experts(&self, experts: &ExpertUse) -> Result<(), RunError> {
        let text = serde_json::to_string_pretty(experts).expect("a table is JSON");
        checkpoint::write_file(&self.path.join("experts.json"), format!("{text}\n").as_bytes())
    }

    /// Writes the summary.
    pub fn write_summary(&self, summary: &Summary) -> Result<(), RunError> {
        let text = serde_json::to_string_pretty(summary).expect("a summary is JSON");
        checkpoint::write_file(&self.path.join("summary.json"), format!("{text}\n").as_bytes())
    }
}

/// The resolved configuration of a run, with overrides laid over it.
pub fn read_config(
    run: &Path,
    overrides: &[String],
    entries: &[EnvEntry],
) -> Result<ExperimentConfig, RunError> {
    require_run(run)?;
    let path = run.join(CONFIG);
    let text = fs::read_to_string(&path).map_err(|e| RunError::io(&path, "read", e))?;
    let name = path.display().to_string();
    let saved = resolve(&name, &text, &[], entries)?;
    check_overrides(run, &to_table(&saved), &parse_all(overrides)?)?;
    resolve(&name, &text, overrides, entries)
}

fn require_run(path: &Path) -> Result<(), RunError> {
    if path.join(CONFIG).is_file() {
        return Ok(());
    }
    let reason = match (path.is_dir(), path.exists()) {
        (true, _) => "there is no config.toml in it",
        (false, true) => "it is a file",
        (false, false) => "it does not exist",
    };
    Err(RunError::NotARun { path: path.to_path_buf(), reason })
}

/// Fails if the folder holds anything but a lock.
fn refuse_content(path: &Path) -> Result<(), RunError> {
    let entries = fs::read_dir(path).map_err(|e| RunError::io(path, "read", e))?;
    let content = entries.filter_map(Result::ok).any(|entry| entry.file_name() != LOCK);
    let is_run = path.join(CONFIG).is_file();
    if content { Err(RunError::NotEmpty { path: path.to_path_buf(), is_run }) } else { Ok(()) }
}

fn lock(path: &Path) -> Result<File, RunError> {
    let place = path.join(LOCK);
    let open = File::options().write(true).create(true).truncate(false).open(&place);
    let file = open.map_err(|e| RunError::io(&place, "write", e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RunError::Locked { path: path.to_path_buf() }),
        Err(TryLockError::Error(cause)) => Err(RunError::io(&place, "lock", cause)),
    }
}

/// Makes `runs/<name>/<timestamp>-s<seed>`; a run of the same second gets a number behind it.
fn fresh_path(config: &ExperimentConfig) -> Result<PathBuf, RunError> {
    let folder = Path::new("runs").join(config.run.name.as_deref().unwrap_or("unnamed"));
    checkpoint::make_folder(&folder)?;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let name = format!("{}-s{}", timestamp(seconds), config.run.seed);
    let mut path = folder.join(&name);
    for number in 2.. {
        match fs::create_dir(&path) {
            Ok(()) => break,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                path = folder.join(format!("{name}-{number}"));
            }
            Err(e) => return Err(RunError::io(&path, "write", e)),
        }
    }
    checkpoint::sync_parent(&path)?;
    Ok(path)
}

/// UTC as `20260131-235959`.
fn timestamp(unix_seconds: u64) -> String {
    let (days, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
    // Days to a civil date by Hinnant's algorithm: years start in March, so leap days come last.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &Path) -> RunOptions {
        RunOptions { run_dir: Some(path.to_path_buf()), ..RunOptions::default() }
    }

    #[test]
    fn timestamps_are_utc_dates() {
        let cases = [
            (0, "19700101-000000"),
            (951_827_696, "20000229-123456"),
            (1_735_689_599, "20241231-235959"),
            (4_107_542_400, "21000301-000000"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(timestamp(seconds), expected);
        }
    }

    #[test]
    fn a_new_run_is_never_written_over_another() {
        let folder = tempfile::tempdir().unwrap();
        let config = ExperimentConfig::new("a test", "corridor");
        let path = folder.path().join("deep/run");
        drop(RunDir::create(&config, &at(&path)).unwrap());
        let error = RunDir::create(&config, &at(&path)).unwrap_err();
        assert!(matches!(error, RunError::NotEmpty { .. }), "{error}");

        let notes = folder.path().join("notes");
        fs::create_dir(&notes).unwrap();
        drop(RunDir::create(&config, &at(&notes)).expect("an empty folder is accepted"));
    }

    #[test]
    fn two_writers_are_kept_apart_and_a_left_lock_file_does_not_block() {
        let folder = tempfile::tempdir().unwrap();
        let config = ExperimentConfig::new("a test", "corridor");
        let first = RunDir::create(&config, &at(folder.path())).unwrap();
        assert!(matches!(RunDir::open(folder.path()), Err(RunError::Locked { .. })));
        drop(first);
        assert!(folder.path().join(LOCK).exists(), "the file stays, the lock goes");
        RunDir::open(folder.path()).unwrap();
    }

    #[test]
    fn a_folder_without_configuration_is_no_run() {
        let folder = tempfile::tempdir().unwrap();
        let error = RunDir::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("not a run directory") && error.contains("config.toml"), "{error}");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_one_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let config = ExperimentConfig::new("a test", "corridor");
        let error = RunDir::create(&config, &at(&folder.path().join("file/run"))).unwrap_err();
        assert!(error.to_string().ends_with("file: this is a file: need a folder"), "{error}");
    }

    #[test]
    fn the_configuration_names_revision_seed_and_simd_level() {
        let folder = tempfile::tempdir().unwrap();
        let config = ExperimentConfig::new("a test", "corridor");
        let options = RunOptions { revision: "0123abc".into(), ..at(folder.path()) };
        let _run = RunDir::create(&config, &options).unwrap();
        let text = fs::read_to_string(folder.path().join("config.toml")).unwrap();
        let simd = gatefold_ops::simd_level();
        assert!(text.contains(&format!("revision 0123abc, seed 1, SIMD level {simd}")), "{text}");
        assert!(text.contains("total_steps = 1000000"), "{text}");
    }
}
