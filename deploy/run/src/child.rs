//! A child program: in its own process group, with its standard error in a file.
//!
//! It has its own group because Ctrl-C in a terminal signals the whole foreground group. The server
//! must live longer than the collector, which still has a window to deliver, so each child is
//! stopped separately.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::wait::wait_for;

/// Lines of standard error to print when a child exits unexpectedly.
const LAST_LINES: usize = 12;

/// Command and environment of a child.
#[derive(Debug, Clone)]
pub struct Start<'a> {
    /// Its name in messages: `collector`.
    pub name: &'static str,
    /// The file to run.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Whether it needs root: through sudo if this program does not run as root.
    pub privilege: Privilege,
    /// File for its standard output and standard error; overwritten.
    pub log: PathBuf,
}

/// The privileges of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// The same as this program's.
    Same,
    /// Root's.
    Root,
}

/// A running child; killed when dropped, so that a failed test leaves nothing behind.
#[derive(Debug)]
pub struct Child {
    name: &'static str,
    process: Process,
    through_sudo: bool,
    log: PathBuf,
}

impl Child {
    /// Starts a program.
    ///
    /// # Errors
    /// The log cannot be created, or the program cannot be started.
    pub fn start(start: Start<'_>) -> Result<Self> {
        let Start {
            name,
            program,
            arguments,
            privilege,
            log,
        } = start;
        let output = File::create(&log)
            .with_context(|| format!("failed to make the log `{}`", log.display()))?;
        let errors = output
            .try_clone()
            .with_context(|| format!("failed to share the log `{}`", log.display()))?;
        let through_sudo = privilege == Privilege::Root && !geteuid().is_root();
        let mut command = if through_sudo {
            // sudo must not ask for a password here: it would read from a terminal of another
            // process group. `make run` has asked before.
            let mut sudo = Command::new("sudo");
            sudo.arg("-n").arg("--").arg(program);
            sudo
        } else {
            Command::new(program)
        };
        let process = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .with_context(|| format!("failed to start the {name}, `{}`", program.display()))?;
        Ok(Self {
            name,
            process,
            through_sudo,
            log,
        })
    }

    /// Its name in messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its process id, or sudo's if it runs through sudo.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Succeeds while the child runs.
    ///
    /// # Errors
    /// The child has ended. The error has its status and its last lines.
    pub fn check_alive(&mut self) -> Result<()> {
        match self
            .process
            .try_wait()
            .with_context(|| format!("failed to ask after the {}", self.name))?
        {
            None => Ok(()),
            Some(status) => bail!(
                "the {} ended by itself, {status}; its last lines:\n{}",
                self.name,
                self.last_lines()
            ),
        }
    }

    /// Asks the child to stop (SIGTERM) and waits for its end; kills it after `timeout`.
    ///
    /// # Errors
    /// The child cannot be signalled, had to be killed, or ended with a status other than 0.
    pub fn stop(&mut self, timeout: Duration) -> Result<()> {
        if self.ended()?.is_none() {
            self.signal(Signal::TERM)?;
        }
        let status = wait_for("its end", timeout, || self.ended());
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => bail!(
                "the {} stopped with {status}; its last lines:\n{}",
                self.name,
                self.last_lines()
            ),
            Err(error) => {
                self.kill()?;
                Err(error).with_context(|| format!("killed the {}, which did not stop", self.name))
            }
        }
    }

    /// Kills the child (SIGKILL) and waits for its end.
    ///
    /// # Errors
    /// The child cannot be signalled.
    pub fn kill(&mut self) -> Result<()> {
        if self.ended()?.is_none() {
            self.signal(Signal::KILL)?;
        }
        self.process
            .wait()
            .with_context(|| format!("failed to wait for the {}", self.name))?;
        Ok(())
    }

    /// The last lines of the child's output, indented.
    #[must_use]
    pub fn last_lines(&self) -> String {
        self.last_lines_of(LAST_LINES)
    }

    /// The same, at most so many.
    #[must_use]
    pub fn last_lines_of(&self, lines_max: usize) -> String {
        let text = match fs::read(&self.log) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => return format!("  (failed to read `{}`: {error})", self.log.display()),
        };
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(lines_max);
        if lines.is_empty() {
            return "  (it wrote nothing)".to_owned();
        }
        lines[from..]
            .iter()
            .map(|line| format!("  {line}"))
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.process
            .try_wait()
            .with_context(|| format!("failed to ask after the {}", self.name))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        if self.through_sudo {
            return self.signal_through_sudo(signal);
        }
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("the {} has no process id", self.name))?;
        kill_process(pid, signal).with_context(|| format!("failed to signal the {}", self.name))
    }

    /// sudo forwards SIGTERM to its command, but cannot forward SIGKILL: signal its whole group.
    fn signal_through_sudo(&self, signal: Signal) -> Result<()> {
        let target = match signal {
            Signal::KILL => format!("-{}", self.pid()),
            _ => self.pid().to_string(),
        };
        let status = Command::new("sudo")
            .args([
                "-n",
                "kill",
                "-s",
                &signal.as_raw().to_string(),
                "--",
                &target,
            ])
            .status()
            .context("failed to run sudo")?;
        if !status.success() {
            bail!(
                "failed to signal the {}: `sudo kill` ended with {status}",
                self.name
            );
        }
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // There is no caller to report a failure to.
        let _ = self.kill();
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn start_shell(dir: &TempDir, script: &str) -> Child {
        Child::start(Start {
            name: "shell",
            program: Path::new("/bin/sh"),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            privilege: Privilege::Same,
            log: dir.path().join("log"),
        })
        .unwrap()
    }

    fn wait_for_line(child: &Child, line: &str) {
        wait_for(line, Duration::from_secs(10), || {
            Ok(child.last_lines().contains(line).then_some(()))
        })
        .unwrap();
    }

    #[test]
    fn a_child_that_dies_is_told_with_its_last_lines() {
        let dir = TempDir::new().unwrap();
        let mut child = start_shell(&dir, "echo 'no such table' >&2; exit 3");
        let error = wait_for("its end", Duration::from_secs(10), || {
            Ok(child.check_alive().err())
        })
        .unwrap();
        let text = error.to_string();
        assert!(
            text.starts_with("the shell ended by itself, exit status: 3"),
            "{text}"
        );
        assert!(text.ends_with("\n  no such table"), "{text}");
    }

    #[test]
    fn stopping_lets_a_child_finish() {
        let dir = TempDir::new().unwrap();
        let mut child = start_shell(
            &dir,
            "trap 'echo flushed; exit 0' TERM; echo ready; while :; do sleep 0.05; done",
        );
        wait_for_line(&child, "ready");
        child.stop(Duration::from_secs(60)).unwrap();
        assert_eq!(child.last_lines(), "  ready\n  flushed");
    }

    #[test]
    fn a_child_that_does_not_stop_is_killed_and_told() {
        let dir = TempDir::new().unwrap();
        let mut child = start_shell(
            &dir,
            "trap '' TERM; echo ready; while :; do sleep 0.05; done",
        );
        wait_for_line(&child, "ready");
        let error = child.stop(Duration::from_millis(300)).unwrap_err();
        assert_eq!(error.to_string(), "killed the shell, which did not stop");
    }

    #[test]
    fn a_missing_program_is_named() {
        let dir = TempDir::new().unwrap();
        let error = Child::start(Start {
            name: "server",
            program: Path::new("/nonexistent/pilotlight-server"),
            arguments: Vec::new(),
            privilege: Privilege::Same,
            log: dir.path().join("log"),
        })
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to start the server, `/nonexistent/pilotlight-server`"
        );
    }
}
