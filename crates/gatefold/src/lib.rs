//! Routed-expert policies trained with PPO: facade library and command line.
//!
//! [`run`] is the whole `gatefold` command. A program with environments of its own passes them in
//! and gets every command for them, beside the built-in ones:
//!
//! ```no_run
//! # use gatefold::env::*;
//! # #[derive(Clone, serde::Serialize, serde::Deserialize)]
//! # struct Coin;
//! # impl Environment for Coin {
//! #     type Config = NoOptions;
//! #     fn new(_: &NoOptions) -> Result<Self, EnvError> { Ok(Self) }
//! #     fn spec(&self) -> EnvSpec { EnvSpec::new(1, 2) }
//! #     fn reset(&mut self, _: &mut StreamRng) {}
//! #     fn step(&mut self, _: Action, _: &mut StreamRng) -> Transition {
//! #         Transition { reward: 0.0, score: 0.0, end: None }
//! #     }
//! #     fn observe(&self, _: &mut ObservationView<'_>) {}
//! # }
//! # const ENTRY: EnvEntry = EnvEntry::new::<Coin>("coin", "Guess the side that is shown");
//! fn main() -> std::process::ExitCode {
//!     gatefold::run(&[ENTRY])
//! }
//! ```
//!
//! The example `coin` is such a program in one file.

mod cli;

use std::ffi::OsString;
use std::process::ExitCode;

pub use gatefold_curriculum as curriculum;
pub use gatefold_env as env;
pub use gatefold_envs as envs;
pub use gatefold_graph as graph;
pub use gatefold_monitor as monitor;
pub use gatefold_policy as policy;
pub use gatefold_ppo as ppo;
pub use gatefold_runner as runner;
pub use gatefold_study as study;

use gatefold_env::EnvEntry;

/// The `gatefold` command with `entries` added to the built-in environments.
///
/// Reads the arguments of the process. An entry takes precedence over a built-in environment of the
/// same name. The exit code is 0, 1 if the answer to a question is no, or 2 after a mistake of the user, told
/// in one message.
pub fn run(entries: &[EnvEntry]) -> ExitCode {
    run_with(entries, std::env::args_os())
}

/// [`run`] with arguments given; the first is the name of the program.
pub fn run_with(entries: &[EnvEntry], arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut all = entries.to_vec();
    all.extend(
        gatefold_envs::TABLE.iter().filter(|built_in| entries.iter().all(|e| e.name != built_in.name)),
    );
    cli::execute(&all, arguments)
}
