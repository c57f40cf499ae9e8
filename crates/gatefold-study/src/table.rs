//! A comparison as a table of text.

use std::fmt;

use crate::bootstrap::RESAMPLES;
use crate::comparison::{ArmResult, Comparison, Estimate};

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} on {}; [95 % intervals] of {RESAMPLES} stratified bootstrap resamples",
            self.metric, self.env
        )?;
        writeln!(f)?;
        write_columns(f, &self.estimates())?;
        writeln!(f, "\nshare of runs above")?;
        write_columns(f, &self.profiles())?;
        if !self.warnings.is_empty() {
            writeln!(f)?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "note: {warning}"))
    }
}

impl Comparison {
    fn estimates(&self) -> Vec<Vec<String>> {
        let first = self.arms.first().map_or("", |arm| &arm.name);
        let mut head: Vec<String> =
            ["arm", "runs", "parameters", "IQM", "mean", "median"].map(String::from).to_vec();
        head.extend(self.target.map(|target| format!("gap to {}", number(target))));
        head.push(format!("P(higher than {first})"));
        let row = |arm: &ArmResult| {
            let mut row = vec![
                arm.name.clone(),
                arm.runs.len().to_string(),
                arm.params.map_or("differ".to_string(), |params| params.to_string()),
                with_interval(&arm.iqm),
                number(arm.mean.value),
                number(arm.median.value),
            ];
            row.extend(arm.optimality_gap.as_ref().map(with_interval));
            row.push(arm.improvement.as_ref().map_or("-".to_string(), with_interval));
            row
        };
        std::iter::once(head).chain(self.arms.iter().map(row)).collect()
    }

    fn profiles(&self) -> Vec<Vec<String>> {
        let head = std::iter::once(String::new()).chain(self.thresholds.iter().map(|&at| number(at)));
        let row = |arm: &ArmResult| {
            let shares = arm.profile.iter().map(|share| format!("{:.2}", share.value));
            std::iter::once(arm.name.clone()).chain(shares).collect()
        };
        std::iter::once(head.collect()).chain(self.arms.iter().map(row)).collect()
    }
}

/// Rows as columns: the first aligned to the left, the others to the right.
fn write_columns(f: &mut fmt::Formatter<'_>, rows: &[Vec<String>]) -> fmt::Result {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    for row in rows {
        let mut line = format!("{:width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            line += &format!("  {cell:>width$}");
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

fn with_interval(estimate: &Estimate) -> String {
    let Estimate { value, interval } = estimate;
    format!("{} [{}, {}]", number(*value), number(interval.low), number(interval.high))
}

/// A number with the digits that a reader compares by.
fn number(number: f64) -> String {
    match number.abs() {
        1000.0.. => format!("{number:.0}"),
        0.1.. | 0.0 => format!("{number:.2}"),
        _ => format!("{number:.4}"),
    }
}
