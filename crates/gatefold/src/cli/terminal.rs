//! Standard output and standard error.

use std::io::{IsTerminal, Write, stderr, stdout};

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};

/// Where a command prints.
///
/// A reader that has gone away (`| head`) ends nothing and is no panic: what it does not read is lost.
#[derive(Debug)]
pub(super) struct Terminal {
    colours: bool,
}

impl Terminal {
    pub(super) fn new() -> Self {
        Self { colours: stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    /// Prints a result on standard output; a line end is added where it lacks.
    pub(super) fn say(&mut self, text: &str) {
        let end = if text.ends_with('\n') { "" } else { "\n" };
        let _ = stdout().lock().write_fmt(format_args!("{text}{end}")).and_then(|()| stdout().flush());
    }

    /// Prints a line about how it goes on standard error.
    pub(super) fn note(&mut self, line: &str) {
        let _ = writeln!(stderr(), "{line}");
    }

    /// Prints a mistake of the user with the place in the file and the remedy.
    pub(super) fn complain(&mut self, error: &dyn Diagnostic) {
        let theme = if self.colours { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_wrap_lines(false);
        let mut text = String::new();
        handler.render_report(&mut text, error).expect("a string takes any text");
        let _ = writeln!(stderr(), "{}", text.trim_end());
    }
}
