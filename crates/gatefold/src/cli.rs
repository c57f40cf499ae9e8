//! The command line: the only place that prints.

mod arguments;
mod bench;
mod chaos;
mod commands;
mod compare;
mod growth;
mod progress;
mod study;
mod terminal;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use gatefold_env::EnvEntry;

use arguments::Cli;
use terminal::Terminal;

/// Exit code after a mistake of the user.
const USER_ERROR: u8 = 2;

/// Carries out one command line.
pub(crate) fn execute(entries: &[EnvEntry], arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut terminal = Terminal::new();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come as errors too, and belong on standard output.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USER_ERROR } else { 0 });
        }
    };
    let Some(command) = cli.command else {
        terminal.say(&Cli::command().render_help().to_string());
        return ExitCode::SUCCESS;
    };
    match commands::carry_out(command, entries, &mut terminal) {
        Ok(code) => code,
        Err(failure) => {
            terminal.complain(&*failure);
            ExitCode::from(USER_ERROR)
        }
    }
}
