//! The conformance check on every row of the table.

use gatefold_env::conformance::{Settings, check};
use gatefold_envs::TABLE;

/// Environments that draw nothing.
const DETERMINISTIC: [&str; 1] = ["corridor"];

#[test]
fn every_row_of_the_table_keeps_the_contract() {
    let mut failures = Vec::new();
    for entry in TABLE {
        let deterministic = DETERMINISTIC.contains(&entry.name);
        match check(entry, &Settings { deterministic, ..Settings::default() }) {
            Ok(report) => assert!(report.passed.len() >= 30, "{report}"),
            Err(violations) => failures.push(violations.to_string()),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
