//! The example environment keeps the contract of environments.

#[allow(dead_code, unreachable_pub)]
#[path = "../examples/coin.rs"]
mod coin;

use gatefold::env::conformance::{Settings, check};

#[test]
fn the_example_environment_keeps_the_contract() {
    let report = check(&coin::ENTRY, &Settings::default()).unwrap_or_else(|faults| panic!("{faults}"));
    assert!(report.passed.len() > 20, "{report}");
}
