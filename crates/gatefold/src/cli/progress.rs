//! A run as it goes on: one live line on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use gatefold_monitor::Severity;
use gatefold_runner::Summary;
use gatefold_runner::events::{Event, Happening, Progress, Reporter, RunEvent, Rung};
use indicatif::{ProgressBar, ProgressStyle};

use super::commands::evaluation_table;
use super::terminal::Terminal;

/// Time between two plain lines.
const PAUSE: Duration = Duration::from_secs(2);

/// Shows a run.
pub(super) struct LiveReporter<'a> {
    terminal: &'a mut Terminal,
    live: bool,
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
    phase: String,
}

impl<'a> LiveReporter<'a> {
    pub(super) fn new(terminal: &'a mut Terminal) -> Self {
        Self { terminal, live: stderr().is_terminal(), bar: None, last_line: None, phase: String::new() }
    }

    /// Prints a line, above the live one if there is one.
    fn line(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.terminal.note(text)),
            None => self.terminal.note(text),
        }
    }

    fn start_bar(&mut self, step: u64, total_steps: u64) {
        let style = ProgressStyle::with_template("{bar:24} {percent:>3}%  {msg}").expect("a valid template");
        let bar = ProgressBar::new(total_steps).with_style(style);
        bar.set_position(step);
        self.bar = Some(bar);
    }

    fn iteration(&mut self, progress: &Progress) {
        if let Some(bar) = &self.bar {
            bar.set_position(progress.step);
            bar.set_message(progress_text(progress));
            return;
        }
        let new_phase = self.phase != progress.phase;
        let last = progress.step >= progress.total_steps;
        if new_phase || last || self.last_line.is_none_or(|at| at.elapsed() >= PAUSE) {
            self.terminal.note(&progress_text(progress));
            self.last_line = Some(Instant::now());
            self.phase.clone_from(&progress.phase);
        }
    }
}

impl Reporter for LiveReporter<'_> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Started { run_dir, env, step, total_steps, params, device, threads } => {
                let verb = if *step == 0 { "training" } else { "resuming" };
                self.line(&format!(
                    "{verb} on {env}: {} steps to {}, {} parameters, {device}, {threads} threads",
                    grouped(*step),
                    grouped(*total_steps),
                    grouped(*params as u64)
                ));
                self.line(&format!("everything goes to {}", run_dir.display()));
                if self.live {
                    self.start_bar(*step, *total_steps);
                }
            }
            Event::Iteration(progress) => self.iteration(progress),
            Event::CheckpointSaved { path, best: true, .. } => {
                self.line(&format!("best so far: {}", path.display()));
            }
            Event::Evaluated { step, evaluation } => {
                let table = evaluation_table(evaluation);
                self.line(&format!("evaluation at step {}\n{}", grouped(*step), table.trim_end()));
            }
            Event::Warning(text) => self.line(&format!("warning: {text}")),
            Event::Happened(event) => {
                if let Some(text) = happening_text(event) {
                    self.line(&text);
                }
            }
            Event::Finished { run_dir, interrupted, summary } => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
                let run_dir = run_dir.display();
                self.terminal.say(&closing(summary));
                self.terminal.say(&format!(
                    "{run_dir}/summary.json   what was reached\n\
                     {run_dir}/metrics.jsonl  one object per iteration\n\
                     {run_dir}/checkpoints    gatefold eval {run_dir} --episodes 100"
                ));
                if *interrupted {
                    self.terminal
                        .say(&format!("stopped before its end; go on with: gatefold resume {run_dir}"));
                }
            }
            // Routine saves are in the run directory; new events are not for this line until it says so.
            _ => {}
        }
    }
}

/// One line for what a person who watches should know; what is over, or goes on, is in `events.jsonl`.
fn happening_text(event: &RunEvent) -> Option<String> {
    let text = match &event.what {
        Happening::VerdictRaised { verdict } if verdict.severity == Severity::Alarm => {
            format!("alarm {}: {}. Healthy: {}", verdict.monitor, verdict.evidence, verdict.healthy)
        }
        Happening::UpdateDiscarded { evidence, attempt } => {
            format!("the update was discarded (attempt {attempt}): {evidence}")
        }
        Happening::DumpWritten { path } => format!("to replay it: gatefold replay-update <run>/{path}"),
        Happening::RolledBack { to_env_step, evidence } => {
            format!("back to the healthy state of step {}: {evidence}", grouped(*to_env_step))
        }
        Happening::LadderStep { from, to, by, evidence } => {
            format!("the ladder goes from {from} to {to} ({by}): {evidence}")
        }
        Happening::PhaseHeld { phase, evidence } => format!("the {phase} phase has to wait: {evidence}"),
        _ => return None,
    };
    Some(format!("iteration {}, step {}: {text}", event.iteration, grouped(event.env_step)))
}

fn closing(summary: &Summary) -> String {
    let mut text = format!(
        "{} steps in {}, {:.0} steps/s",
        grouped(summary.total_steps),
        duration(summary.wall_s),
        summary.steps_per_second
    );
    if let Some(mean) = summary.train_return_mean {
        text += &format!(", training return {mean:.2}");
    }
    if let (Some(step), Some(seconds)) = (summary.steps_to_target, summary.seconds_to_target) {
        text += &format!(", target reached at step {} after {}", grouped(step), duration(seconds));
    }
    text
}

/// Step, speed, phase, temperature, rung and alarms if there is trouble, return, score, gate entropy,
/// time left.
fn progress_text(progress: &Progress) -> String {
    let mut text = format!(
        "step {}/{}  {:.0} steps/s  {} tau {:.2}",
        grouped(progress.step),
        grouped(progress.total_steps),
        progress.steps_per_second,
        progress.phase,
        progress.temperature
    );
    if progress.rung != Rung::Full {
        text += &format!("  rung {}", progress.rung);
    }
    match progress.alarms {
        0 => {}
        1 => text += "  1 alarm",
        alarms => text += &format!("  {alarms} alarms"),
    }
    let numbers = [
        ("return", progress.return_mean),
        ("score", progress.score_mean),
        ("alpha entropy", progress.gate_entropy),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            text += &format!("  {name} {number:.2}");
        }
    }
    text + &format!("  ETA {}", duration(progress.eta_s))
}

/// `1234567` as `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `75.2` as `1m15s`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatefold_monitor::Verdict;

    #[test]
    fn numbers_and_times_are_readable() {
        let numbers = [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")];
        for (number, expected) in numbers {
            assert_eq!(grouped(number), expected);
        }
        let times = [(0.2, "0s"), (59.4, "59s"), (75.2, "1m15s"), (3600.0, "1h00m"), (f64::NAN, "0s")];
        for (seconds, expected) in times {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn alarms_discards_and_rungs_are_lines_and_mere_warnings_are_not() {
        let event = |what| RunEvent { iteration: 7, env_step: 57_344, what };
        let verdict = |severity| Happening::VerdictRaised {
            verdict: Verdict {
                monitor: "approx-kl".into(),
                severity,
                metric: "train/approx_kl".into(),
                value: 0.4,
                healthy: "below 0.05".into(),
                evidence: "median 0.4".into(),
                advice: "lower curriculum.lr_scale".into(),
                since: 7,
            },
        };
        let step = Happening::LadderStep {
            from: "full".into(),
            to: "freeze-gat".into(),
            by: "monitors".into(),
            evidence: "10 in a row".into(),
        };
        let cases = [
            (verdict(Severity::Warning), None),
            (
                verdict(Severity::Alarm),
                Some("iteration 7, step 57,344: alarm approx-kl: median 0.4. Healthy: below 0.05"),
            ),
            (
                step,
                Some(
                    "iteration 7, step 57,344: the ladder goes from full to freeze-gat (monitors): 10 in a row",
                ),
            ),
        ];
        for (what, expected) in cases {
            assert_eq!(happening_text(&event(what)).as_deref(), expected);
        }
    }

    #[test]
    fn the_progress_line_names_everything_that_is_known() {
        let mut progress = Progress {
            rung: Rung::Full,
            alarms: 0,
            iteration: 3,
            step: 24_576,
            total_steps: 327_680,
            steps_per_second: 3210.4,
            phase: "warmup".into(),
            temperature: 1.0,
            return_mean: Some(1.5),
            score_mean: Some(20.25),
            gate_entropy: Some(1.386),
            eta_s: 94.0,
        };
        let text = "step 24,576/327,680  3210 steps/s  warmup tau 1.00  return 1.50  score 20.25  \
            alpha entropy 1.39  ETA 1m34s";
        assert_eq!(progress_text(&progress), text);
        progress.rung = Rung::SoftmaxOnly;
        progress.alarms = 2;
        let text = progress_text(&progress);
        assert!(text.contains("tau 1.00  rung softmax-only  2 alarms  return 1.50"), "{text}");
        progress.gate_entropy = None;
        progress.return_mean = None;
        assert!(!progress_text(&progress).contains("alpha") && !progress_text(&progress).contains("return"));
    }
}
