//! One sitting of a study: a process for each run that is left, as many at a time as the machine bears.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use gatefold_runner::{Stop, Summary};
use serde_json::Value;

use crate::error::StudyError;
use crate::plan::{Job, JobState, Study};
use crate::runs::read_run;

/// Time between two looks at the processes.
const PAUSE: Duration = Duration::from_millis(100);
/// Time between two reports of progress.
const REPORT: Duration = Duration::from_secs(2);
/// Lines of a failed run that are shown.
const LAST_LINES: usize = 12;

/// How the machine is shared between runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares {
    /// Runs at a time.
    pub jobs: usize,
    /// Worker threads of each.
    pub threads: usize,
}

impl Shares {
    /// As many runs at a time as asked for, or as there are cores; never more than there are runs. What
    /// cores are left over go to the runs as threads.
    pub fn new(cores: usize, asked: Option<usize>, runs: usize) -> Self {
        let jobs = asked.unwrap_or(cores).min(runs).max(1);
        Self { jobs, threads: (cores / jobs).max(1) }
    }
}

/// Something that happened in a sitting.
#[derive(Debug, Clone, PartialEq)]
pub enum StudyEvent {
    /// A run has been started.
    Started {
        /// `ARM/sSEED`.
        name: String,
        /// Whether it goes on from a checkpoint.
        resumed: bool,
    },
    /// A run came to its end.
    Finished {
        /// `ARM/sSEED`.
        name: String,
        /// What it reached.
        summary: Box<Summary>,
    },
    /// A run failed; the others go on.
    Failed(FailedRun),
    /// How far all runs are.
    Progress {
        /// Runs that came to their end, in this sitting or before.
        finished: usize,
        /// Runs going on.
        running: Vec<String>,
        /// Environment steps taken in all runs.
        steps: u64,
        /// Environment steps of all runs together.
        total_steps: u64,
        /// Seconds to the end at the speed of this sitting, once one is known.
        eta_s: Option<f64>,
    },
    /// A signal has come; the runs going on are asked to save and end.
    Stopping,
}

/// A run that failed.
#[derive(Debug, Clone, PartialEq)]
pub struct FailedRun {
    /// `ARM/sSEED`.
    pub name: String,
    /// How its process ended.
    pub reason: String,
    /// Everything it printed.
    pub log: PathBuf,
    /// The last lines of that.
    pub last_lines: String,
}

/// How a sitting ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The runs that failed.
    pub failed: Vec<FailedRun>,
    /// Whether a signal ended it before all runs had come to theirs.
    pub stopped: bool,
}

/// A run with its process.
struct Running<'a> {
    job: &'a Job,
    child: Child,
    /// Bytes of the log from earlier sittings.
    log_start: u64,
}

impl Study {
    /// Runs what is left: absent runs are trained and begun ones resumed, each by its own process of
    /// `program`, which takes the arguments of the `gatefold` command.
    ///
    /// A run that fails is reported and does not end the others. At a stop every process is asked once
    /// to save and end, and is waited for.
    pub fn sit(
        &self,
        original: &Path,
        program: &Path,
        shares: &Shares,
        stop: &Stop,
        watch: &mut dyn FnMut(&StudyEvent),
    ) -> Result<Outcome, StudyError> {
        self.write_copy(original)?;
        let mut waiting = self.jobs.iter().filter(|job| job.state != JobState::Finished);
        let mut running: Vec<Running<'_>> = Vec::new();
        let mut failed = Vec::new();
        let mut asked = false;
        let mut pace = Pace::new(self);
        loop {
            if stop.requested() && !asked {
                asked = true;
                watch(&StudyEvent::Stopping);
                running.iter().for_each(|run| ask_to_end(&run.child));
            }
            while !asked && running.len() < shares.jobs {
                let Some(job) = waiting.next() else { break };
                match start(job, program, shares.threads) {
                    Ok(run) => {
                        let resumed = job.state == JobState::Begun;
                        watch(&StudyEvent::Started { name: job.name(), resumed });
                        running.push(run);
                    }
                    Err(error) => report(&mut failed, job, error.to_string(), String::new(), watch),
                }
            }
            if running.is_empty() {
                break;
            }
            sleep(PAUSE);
            let mut at = 0;
            while at < running.len() {
                match running[at].child.try_wait() {
                    Ok(None) => at += 1,
                    ended => {
                        let run = running.swap_remove(at);
                        settle(
                            &run,
                            ended.map(|status| status.expect("just seen")),
                            asked,
                            &mut failed,
                            watch,
                        );
                    }
                }
            }
            if let Some(progress) = pace.due(self, &running) {
                watch(&progress);
            }
        }
        let left = self.jobs.iter().filter(|job| job.look() != JobState::Finished).count();
        Ok(Outcome { stopped: asked && left > failed.len(), failed })
    }
}

/// What became of a run whose process has ended. Of one that was asked to end anything is accepted: what
/// is left of it shows in its folder.
fn settle(
    run: &Running<'_>,
    status: std::io::Result<ExitStatus>,
    asked: bool,
    failed: &mut Vec<FailedRun>,
    watch: &mut dyn FnMut(&StudyEvent),
) {
    let reason = match (status, read_run(&run.job.run_dir)) {
        (Ok(status), Ok(finished)) if status.success() => {
            let summary = Box::new(finished.summary);
            return watch(&StudyEvent::Finished { name: run.job.name(), summary });
        }
        _ if asked => return,
        (Ok(status), Err(error)) if status.success() => error.to_string(),
        (Ok(status), _) => status.to_string(),
        (Err(error), _) => error.to_string(),
    };
    report(failed, run.job, reason, run.last_lines(), watch);
}

fn report(
    failed: &mut Vec<FailedRun>,
    job: &Job,
    reason: String,
    last_lines: String,
    watch: &mut dyn FnMut(&StudyEvent),
) {
    let run = FailedRun { name: job.name(), reason, log: job.log(), last_lines };
    watch(&StudyEvent::Failed(run.clone()));
    failed.push(run);
}

/// Starts the process of a run, its output going to its log.
fn start<'a>(job: &'a Job, program: &Path, threads: usize) -> Result<Running<'a>, StudyError> {
    let path = job.log();
    let folder = path.parent().expect("a log stands beside its run");
    fs::create_dir_all(folder).map_err(|e| StudyError::io(folder, "write", e))?;
    let log = File::options().append(true).create(true).open(&path);
    let log = log.map_err(|e| StudyError::io(&path, "write", e))?;
    let log_start = log.metadata().map_or(0, |metadata| metadata.len());
    let other = log.try_clone().map_err(|e| StudyError::io(&path, "write", e))?;
    let mut command = Command::new(program);
    match job.state {
        JobState::Begun => command.arg("resume").arg(&job.run_dir),
        _ => command.arg("train").arg(&job.base).args(&job.overrides).arg("--run-dir").arg(&job.run_dir),
    };
    command.args(["--threads", &threads.to_string()]);
    command.stdin(Stdio::null()).stdout(log).stderr(other);
    // Ctrl-C goes to every process of a group, and a second signal would end a run without saving: only
    // this process is to be in the terminal's group, and it passes the signal on once.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let child = command.spawn().map_err(|e| StudyError::io(program, "start", e))?;
    Ok(Running { job, child, log_start })
}

/// Asks a process to save and end. One that has ended already is none the worse for it.
#[cfg(unix)]
fn ask_to_end(child: &Child) {
    use rustix::process::{Pid, Signal, kill_process};
    if let Some(pid) = Pid::from_raw(child.id() as i32) {
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// Processes of one console get its Ctrl-C themselves.
#[cfg(not(unix))]
fn ask_to_end(_child: &Child) {}

impl Running<'_> {
    /// The last lines that the process printed in this sitting.
    fn last_lines(&self) -> String {
        last_lines(&tail(&self.job.log(), self.log_start, 65_536).unwrap_or_default())
    }
}

/// What a failed process said last: its panic without the backtrace, or else its last lines.
fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let said = match lines.iter().rposition(|line| line.contains(" panicked at ")) {
        Some(panic) => {
            lines[panic..].iter().take_while(|line| !line.starts_with("stack backtrace")).collect()
        }
        None => lines.iter().collect::<Vec<_>>(),
    };
    said[said.len().saturating_sub(LAST_LINES)..].iter().map(|line| format!("{line}\n")).collect()
}

/// The end of a file: at most `most` bytes, none before `start`.
fn tail(path: &Path, start: u64, most: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(start.max(length.saturating_sub(most))))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Environment steps that a run has taken, by its metrics.
fn steps_of(job: &Job) -> u64 {
    let text = tail(&job.run_dir.join("metrics.jsonl"), 0, 32_768).unwrap_or_default();
    let step = |line: &str| serde_json::from_str::<Value>(line).ok()?["step"].as_u64();
    text.lines().rev().find_map(step).unwrap_or(0)
}

/// Speed over the sitting.
struct Pace {
    begun: Instant,
    reported: Instant,
    steps_at_start: u64,
}

impl Pace {
    fn new(study: &Study) -> Self {
        let now = Instant::now();
        Self { begun: now, reported: now, steps_at_start: Self::steps(study) }
    }

    fn steps(study: &Study) -> u64 {
        study.jobs.iter().map(|job| steps_of(job).min(job.total_steps)).sum()
    }

    /// Progress, if it is time for it.
    fn due(&mut self, study: &Study, running: &[Running<'_>]) -> Option<StudyEvent> {
        if self.reported.elapsed() < REPORT {
            return None;
        }
        self.reported = Instant::now();
        let steps = Self::steps(study);
        let total_steps: u64 = study.jobs.iter().map(|job| job.total_steps).sum();
        let per_second = (steps - self.steps_at_start.min(steps)) as f64 / self.begun.elapsed().as_secs_f64();
        Some(StudyEvent::Progress {
            finished: study.jobs.iter().filter(|job| read_run(&job.run_dir).is_ok()).count(),
            running: running.iter().map(|run| run.job.name()).collect(),
            steps,
            total_steps,
            eta_s: (per_second > 0.0).then(|| (total_steps.saturating_sub(steps)) as f64 / per_second),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_shared_between_runs_and_their_threads() {
        let cases = [
            ((8, None, 25), (8, 1)),
            ((8, None, 3), (3, 2)),
            ((2, None, 25), (2, 1)),
            ((8, Some(2), 25), (2, 4)),
            ((2, Some(6), 25), (6, 1)),
            ((4, None, 0), (1, 4)),
        ];
        for ((cores, asked, runs), (jobs, threads)) in cases {
            assert_eq!(Shares::new(cores, asked, runs), Shares { jobs, threads }, "{cores} {asked:?} {runs}");
        }
    }

    #[test]
    fn a_panic_is_told_without_its_backtrace() {
        let panic = "thread 'main' (7) panicked at src/x.rs:1:2:\nthe fact that should have held\n";
        let text = format!("training\n{panic}stack backtrace:\n   0: main\n  at x\n");
        assert_eq!(last_lines(&text), panic);
        let many: String = (0..20).map(|line| format!("{line}\n")).collect();
        assert_eq!(last_lines(&many).lines().next(), Some("8"));
    }

    #[test]
    fn the_tail_of_a_file_begins_where_the_sitting_did() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s1.log");
        fs::write(&path, "before\nafter\nend\n").unwrap();
        assert_eq!(tail(&path, 7, 100).unwrap(), "after\nend\n");
        assert_eq!(tail(&path, 0, 4).unwrap(), "end\n");
    }
}
