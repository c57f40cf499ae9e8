//! `gatefold chaos`: faults put into an experiment, and what it did about each.

#[cfg(feature = "chaos")]
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
#[cfg(feature = "chaos")]
use gatefold_env::EnvEntry;
use miette::Diagnostic;

#[cfg(feature = "chaos")]
use super::{arguments::Machine, terminal::Terminal};

/// What `gatefold chaos` is told.
#[cfg(feature = "chaos")]
#[derive(Debug, Args)]
pub(super) struct ChaosArgs {
    /// The file of faults, such as experiments/chaos.toml
    file: PathBuf,
    /// Folder for chaos.json and chaos.md, the table [default: runs/<name of the file>]
    #[arg(long, value_name = "D")]
    out: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
}

/// What a build without faults is told, for its answer.
#[cfg(not(feature = "chaos"))]
#[derive(Debug, Args)]
pub(super) struct ChaosArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Says how to build it.
#[cfg(not(feature = "chaos"))]
pub(super) fn carry_out(args: &ChaosArgs) -> Result<ExitCode, Box<dyn Diagnostic>> {
    Err(Box::new(super::commands::Refused(format!(
        "chaos: this build cannot put faults into a run; use `cargo run --release --features chaos -- chaos {}`",
        if args.arguments.is_empty() {
            "experiments/chaos.toml".to_string()
        } else {
            args.arguments.join(" ")
        }
    ))))
}

/// Tries every fault and writes the table. Exit code 1 if a fault was not found in time.
#[cfg(feature = "chaos")]
pub(super) fn carry_out(
    args: ChaosArgs,
    entries: &[EnvEntry],
    terminal: &mut Terminal,
) -> Result<ExitCode, Box<dyn Diagnostic>> {
    use gatefold_runner::RunError;
    use gatefold_runner::chaos::{Outcome, chaos};

    let ChaosArgs { file, out, machine } = args;
    let out = out.unwrap_or_else(|| PathBuf::from("runs").join(file.file_stem().unwrap_or_default()));
    let told = |outcome: &Outcome| match (outcome.detected_after, &outcome.by) {
        (Some(after), Some(by)) => format!("found by {by} after {after} iterations, {}", outcome.action),
        _ => "not found".to_string(),
    };
    let report = chaos(&file, &machine.options(), entries, &mut |outcome, done, total| {
        let held = if outcome.held() { "" } else { "NOT AS IT SHOULD BE: " };
        let (kind, site) = (outcome.fault.kind.name(), &outcome.site);
        terminal.note(&format!("{done}/{total}  {kind} at {site}: {held}{}", told(outcome)));
    })?;
    std::fs::create_dir_all(&out).map_err(|e| RunError::io(&out, "write", e))?;
    super::compare::write_json(&out.join("chaos.json"), &report)?;
    let (table, text) = (out.join("chaos.md"), report.markdown());
    std::fs::write(&table, &text).map_err(|e| RunError::io(&table, "write", e))?;
    terminal.say(&text);
    terminal.note(&format!("written to {}", out.display()));
    let failures = report.failures().count();
    if failures == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let all = report.outcomes.len();
    terminal.note(&format!("{failures} of {all} faults were not found in time, or reached a checkpoint"));
    Ok(ExitCode::FAILURE)
}
