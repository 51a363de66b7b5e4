//! Runs the executable.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a run left behind.
pub struct Ran {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    fn of(output: Output) -> Ran {
        let text = |bytes| String::from_utf8(bytes).expect("it prints UTF-8");
        Ran {
            status: output.status.code().expect("it was not killed"),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// The run must have ended with this status; shows what it said if not.
    #[track_caller]
    pub fn expect(self, status: i32) -> Ran {
        let Ran { stdout, stderr, .. } = &self;
        assert_eq!(self.status, status, "stdout:\n{stdout}\nstderr:\n{stderr}");
        self
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).expect("--json prints JSON")
    }
}

/// The executable, standing in the repository's root, where README's commands stand.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_etalon"));
    command.current_dir(root()).env_remove("ETALON_KERNELS");
    command
}

/// Runs it.
pub fn etalon<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Ran {
    Ran::of(command().args(arguments).output().expect("the executable is there"))
}

/// Runs it on arguments that hold no spaces.
pub fn words(line: &str) -> Ran {
    etalon(line.split_whitespace())
}

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A path under `fixtures/`.
pub fn fixture(path: &str) -> PathBuf {
    root().join("fixtures").join(path)
}
