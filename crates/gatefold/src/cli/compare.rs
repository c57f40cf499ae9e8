//! `gatefold compare`: arms of runs beside each other.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use gatefold_runner::RunError;
use gatefold_study::{Comparison, DEFAULT_METRIC, Question, compare, find_arms};
use miette::Diagnostic;
use serde::Serialize;

use super::terminal::Terminal;

/// What `gatefold compare` is told.
#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// A run, a folder of runs or a study's folder, grouped by the runs' names; or NAME=RUN,RUN
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<String>,
    /// A number of summary.json; more counts as better
    #[arg(long, value_name = "KEY", default_value = DEFAULT_METRIC)]
    metric: String,
    /// The score below which the optimality gap is measured
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true, value_parser = finite)]
    target: Option<f64>,
    /// Thresholds of the performance profile [default: five inside the range of the scores]
    #[arg(long, value_name = "SCORE,SCORE", value_delimiter = ',', allow_negative_numbers = true, value_parser = finite)]
    thresholds: Vec<f64>,
    /// Write everything to a file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A number that scores can be held against.
fn finite(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err("need a number".to_string()),
    }
}

pub(super) fn carry_out(args: CompareArgs, terminal: &mut Terminal) -> Result<(), Box<dyn Diagnostic>> {
    let question = Question { metric: args.metric, target: args.target, thresholds: args.thresholds };
    let comparison: Comparison = compare(&find_arms(&args.runs)?, &question)?;
    terminal.say(&comparison.to_string());
    if let Some(path) = &args.json {
        write_json(path, &comparison)?;
    }
    Ok(())
}

/// Writes a value as readable JSON.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), RunError> {
    let text = serde_json::to_string_pretty(value).expect("a report is JSON");
    fs::write(path, format!("{text}\n")).map_err(|e| RunError::io(path, "write", e))
}
