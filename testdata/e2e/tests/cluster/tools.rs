//! The scripts of testdata/cluster/ and deploy/images/, and the tools that they build.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};

/// Output of a finished command.
pub(crate) struct Said {
    pub(crate) is_success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The root of the work tree.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The missing requirement of the tests of the `chart`, the `images`, or in the `cluster`.
pub(crate) fn find_missing(level: &str) -> Option<String> {
    let script = repository().join("testdata/cluster/missing");
    let said = match run(Command::new(script).arg(level)) {
        Ok(said) => said,
        Err(error) => return Some(format!("{error:#}")),
    };
    let reason = said.stdout.trim();
    if !reason.is_empty() {
        return Some(reason.to_owned());
    }
    let is_built = level == "images" || repository().join("target/cluster/stamp").exists();
    (!is_built).then(|| {
        "needs the cluster's programs, from Go modules; run: testdata/cluster/build".to_owned()
    })
}

/// Runs a command of the cluster's tools: `helm`, `kubectl`, `kubeconform`, `helm-docs`.
pub(crate) fn run_tool<S: AsRef<OsStr>>(arguments: &[S]) -> Result<Said> {
    run(Command::new(repository().join("testdata/cluster/with")).args(arguments))
}

/// The standard output of such a command, which must succeed.
pub(crate) fn ask_tool<S: AsRef<OsStr>>(arguments: &[S]) -> Result<String> {
    let said = run_tool(arguments)?;
    let words: Vec<_> = arguments
        .iter()
        .map(|word| word.as_ref().to_string_lossy())
        .collect();
    ensure!(
        said.is_success,
        "`{}` failed: {}{}",
        words.join(" "),
        said.stdout,
        said.stderr
    );
    Ok(said.stdout)
}

/// Runs a script of the repository, which must succeed, and returns its standard output.
pub(crate) fn run_script<S: AsRef<OsStr>>(script: &str, arguments: &[S]) -> Result<String> {
    let said = run(command_of(script).args(arguments))?;
    ensure!(
        said.is_success,
        "`{script}` failed: {}{}",
        said.stdout,
        said.stderr
    );
    Ok(said.stdout)
}

/// A script of the repository. It uses the programs that were built before the tests: a cargo that a test starts builds them again,
/// since it has other variables.
pub(crate) fn command_of(script: &str) -> Command {
    let mut command = Command::new(repository().join(script));
    if env::var_os("PILOTLIGHT_BIN_DIR").is_none() {
        command.env("PILOTLIGHT_BIN_DIR", repository().join("target/release"));
    }
    command
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Result<Said> {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .with_context(|| format!("failed to run `{}`", command.get_program().display()))?;
    Ok(Said {
        is_success: status.success(),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    })
}
