//! The program of a child.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// A program and how it is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildProgram {
    /// Path of the executable: [`Self::OWN`] for the caller's.
    pub path: PathBuf,
    /// Its arguments. The first is the one by which `main` becomes the child.
    pub arguments: Vec<OsString>,
    /// All of its environment.
    pub environment: Vec<(OsString, OsString)>,
}

impl ChildProgram {
    /// The running program's own executable, also after its file was replaced by an upgrade.
    pub const OWN: &str = "/proc/self/exe";

    pub(crate) fn command(&self) -> Command {
        let Self {
            path,
            arguments,
            environment,
        } = self;
        let mut command = Command::new(path);
        command
            .args(arguments)
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)))
            // Ctrl-C in a terminal signals the whole foreground group. The parent still needs the child then, to name the last
            // samples.
            .process_group(0);
        command
    }
}
