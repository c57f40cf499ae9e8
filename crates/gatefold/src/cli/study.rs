//! `gatefold study`: arms times seeds, then the comparison.

use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use clap::Args;
use gatefold_env::EnvEntry;
use gatefold_runner::{RunError, Stop};
use gatefold_study::{
    Comparison, FailedRun, JobState, Outcome, Question, Shares, Study, StudyError, StudyEvent, compare,
};
use indicatif::{ProgressBar, ProgressStyle};
use miette::Diagnostic;
use serde::Serialize;

use super::compare::write_json;
use super::progress::{duration, grouped};
use super::terminal::Terminal;

/// What `gatefold study` is told.
#[derive(Debug, Args)]
pub(super) struct StudyArgs {
    /// The study, such as experiments/five-arms.toml
    file: PathBuf,
    /// Runs at a time [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    jobs: Option<u64>,
    /// Seeds in place of the file's
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    seeds: Vec<u64>,
    /// Folder of the study [default: runs/<name of the file>]
    #[arg(long, value_name = "D")]
    dir: Option<PathBuf>,
    /// Check every arm and say what is left to do, without doing it
    #[arg(long)]
    dry_run: bool,
}

/// What `study.json` holds.
#[derive(Serialize)]
struct Report<'a> {
    about: &'a str,
    seeds: &'a [u64],
    revision: &'static str,
    /// Runs that failed and are missing below.
    failed: Vec<&'a str>,
    #[serde(flatten)]
    comparison: &'a Comparison,
}

pub(super) fn carry_out(
    args: StudyArgs,
    entries: &[EnvEntry],
    terminal: &mut Terminal,
) -> Result<(), Box<dyn Diagnostic>> {
    let folder = args.dir.unwrap_or_else(|| default_folder(&args.file));
    let study = Study::plan(&args.file, &folder, &args.seeds, entries)?;
    if args.dry_run {
        terminal.say(&what_is_left(&study));
        return Ok(());
    }
    let left = study.jobs.iter().filter(|job| job.state != JobState::Finished).count();
    let cores = available_parallelism().map_or(1, usize::from);
    let shares = Shares::new(cores, args.jobs.map(|jobs| jobs as usize), left);
    if left > 0 {
        terminal.note(&format!(
            "{left} of {} runs to do, {} at a time with {} threads each; everything goes to {}",
            study.jobs.len(),
            shares.jobs,
            shares.threads,
            folder.display()
        ));
    }
    let program = std::env::current_exe().map_err(|e| RunError::io("gatefold", "find", e))?;
    let mut live = Live::new(terminal);
    let stop = Stop::on_signals();
    let outcome = study.sit(&args.file, &program, &shares, &stop, &mut |event| live.show(event))?;
    drop(live);
    conclude(&study, &outcome, terminal)
}

/// `runs/five-arms` of `experiments/five-arms.toml`.
fn default_folder(file: &Path) -> PathBuf {
    Path::new("runs").join(file.file_stem().unwrap_or_default())
}

/// The table and `study.json`, or how to go on.
fn conclude(study: &Study, outcome: &Outcome, terminal: &mut Terminal) -> Result<(), Box<dyn Diagnostic>> {
    if outcome.stopped {
        terminal.say("stopped before its end; the same command goes on with it");
        return Ok(());
    }
    let arms = study.finished_arms();
    if !arms.is_empty() {
        let common = &study.file.study;
        let question =
            Question { metric: common.metric.clone(), target: common.target, thresholds: Vec::new() };
        let comparison = compare(&arms, &question)?;
        let path = study.folder.join("study.json");
        let report = Report {
            about: &study.file.about,
            seeds: &common.seeds,
            revision: env!("GATEFOLD_REVISION"),
            failed: outcome.failed.iter().map(|run| run.name.as_str()).collect(),
            comparison: &comparison,
        };
        write_json(&path, &report)?;
        terminal.say(&format!("{comparison}\n{}   the same with scores and all intervals", path.display()));
    }
    if outcome.failed.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = outcome.failed.iter().map(|run| run.name.as_str()).collect();
    let (failed, runs) = (outcome.failed.len(), study.jobs.len());
    Err(StudyError::Failed { failed, runs, names: names.join(", ") }.into())
}

fn what_is_left(study: &Study) -> String {
    let line = |job: &gatefold_study::Job| {
        let state = match job.state {
            JobState::Absent => "to train",
            JobState::Begun => "to resume",
            JobState::Finished => "finished",
        };
        format!("{state:9}  {}  {}\n", job.run_dir.display(), job.overrides.join(" "))
    };
    study.jobs.iter().map(line).collect()
}

/// Shows a sitting: a line for each run, and one live line on a terminal.
struct Live<'a> {
    terminal: &'a mut Terminal,
    bar: Option<ProgressBar>,
}

impl<'a> Live<'a> {
    fn new(terminal: &'a mut Terminal) -> Self {
        let style = ProgressStyle::with_template("{bar:24} {percent:>3}%  {msg}").expect("a valid template");
        let bar = stderr().is_terminal().then(|| ProgressBar::new(0).with_style(style));
        Self { terminal, bar }
    }

    fn line(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.terminal.note(text)),
            None => self.terminal.note(text),
        }
    }

    fn show(&mut self, event: &StudyEvent) {
        match event {
            StudyEvent::Started { name, resumed } => {
                self.line(&format!("{name}: {}", if *resumed { "resumed" } else { "started" }));
            }
            StudyEvent::Finished { name, summary } => {
                let score =
                    summary.eval_score_mean.map_or(String::new(), |score| format!(", score {score:.2}"));
                self.line(&format!("{name}: finished after {}{score}", duration(summary.wall_s)));
            }
            StudyEvent::Failed(FailedRun { name, reason, log, last_lines }) => {
                let lines = last_lines.trim_end().replace('\n', "\n    ");
                self.line(&format!("{name}: failed, {reason}; {}\n    {lines}", log.display()));
            }
            StudyEvent::Progress { finished, running, steps, total_steps, eta_s } => {
                let Some(bar) = &self.bar else { return };
                let eta = eta_s.map_or(String::new(), |seconds| format!("  ETA {}", duration(seconds)));
                bar.set_length(*total_steps);
                bar.set_position(*steps);
                bar.set_message(format!(
                    "{finished} finished, {} running, {} of {} steps{eta}",
                    running.len(),
                    grouped(*steps),
                    grouped(*total_steps)
                ));
            }
            StudyEvent::Stopping => self.line("stopping: every run saves its state"),
        }
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
