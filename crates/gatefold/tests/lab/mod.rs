//! A folder to run the built binary in.

use std::path::PathBuf;
use std::process::Command;

/// What the binary printed, and its exit code.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A folder with experiments in it.
pub(crate) struct Lab(tempfile::TempDir);

impl Lab {
    /// With these files, by their paths in it.
    pub(crate) fn with(files: &[(&str, &str)]) -> Self {
        let lab = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            let path = lab.path(name);
            std::fs::create_dir_all(path.parent().expect("a path in the folder")).unwrap();
            std::fs::write(path, text).unwrap();
        }
        lab
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatefold"));
        command.args(arguments).current_dir(self.0.path());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output().expect("the binary starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        let ran = Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
        assert!(!ran.err.contains("panicked"), "{arguments:?}: {}", ran.err);
        ran
    }

    pub(crate) fn succeed(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}{}", ran.out, ran.err);
        ran
    }

    /// Expects one message and exit code 2.
    pub(crate) fn refuse(&self, arguments: &[&str], expected: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}{}", ran.out, ran.err);
        for part in expected {
            assert!(ran.err.contains(part), "{arguments:?}: no {part:?} in\n{}", ran.err);
        }
        ran
    }
}
