//! The converting child as the server sees it: started, waited for, ended.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::build_id::BuildId;
use super::child::{CHILD_ARGUMENT, ChildLimits};
use super::convert::{FileRefusal, RefusalKind};

/// Wall time for a child, beside its limit of processor time: the disk and other work may hold it up.
const WALL_TIME_MAX: Duration = Duration::from_secs(900);

/// How often it is looked whether the child has ended. The smallest file takes some 5 ms.
const LOOK_TIME: Duration = Duration::from_millis(3);

/// What is read of the child's standard error: its one line, or how it panicked.
const MESSAGE_BYTES_MAX: u64 = 16 << 10;

/// A file that becomes an index.
pub struct Conversion<'a> {
    /// The server's own program.
    pub program: &'a Path,
    /// The file.
    pub source: File,
    /// Where the index goes; empty.
    pub index: File,
    /// The build id that the file must have.
    pub build_id: &'a BuildId,
    /// Where it came from.
    pub origin: &'a str,
    /// What the child may take.
    pub limits: ChildLimits,
}

/// Why there is no index.
#[derive(Debug, thiserror::Error)]
pub enum ConversionError {
    /// The file is not taken.
    #[error("{0}")]
    Refused(FileRefusal),
    /// The child could not be started.
    #[error("failed to start the converting child: {0}")]
    Start(#[from] io::Error),
}

/// This program, also when its file was replaced since it was started.
pub fn own_program() -> PathBuf {
    "/proc/self/exe".into()
}

/// Makes an index in a child. Blocks until it has ended.
///
/// # Errors
/// The file is not taken, the child died of it, or could not be started.
pub fn run_conversion(conversion: Conversion<'_>) -> Result<(), ConversionError> {
    let Conversion {
        program,
        source,
        index,
        build_id,
        origin,
        limits,
    } = conversion;
    let mut child = Command::new(program)
        .arg(CHILD_ARGUMENT)
        .arg(build_id.as_str())
        .arg(origin)
        .args(
            [
                limits.data_bytes_max,
                limits.cpu_seconds_max,
                limits.index_bytes_max,
            ]
            .map(|limit| limit.to_string()),
        )
        .env_clear()
        // Ctrl-C in a terminal goes to the whole group; the server ends its children itself.
        .process_group(0)
        .stdin(source)
        .stdout(index)
        .stderr(Stdio::piped())
        .spawn()?;
    let stderr = child.stderr.take();
    // Read beside the waiting: a child that writes more than a pipe holds would wait for ever.
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut stderr) = stderr {
            let _ = stderr
                .by_ref()
                .take(MESSAGE_BYTES_MAX)
                .read_to_end(&mut text);
            let _ = io::copy(&mut stderr, &mut io::sink());
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    let until = Instant::now() + WALL_TIME_MAX;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break Some(status),
            None if Instant::now() < until => std::thread::sleep(LOOK_TIME),
            None => {
                // It may have ended, which is what is wanted.
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
        }
    };
    let message = reader.join().unwrap_or_default();
    match status {
        Some(status) if status.success() => Ok(()),
        status => Err(ConversionError::Refused(explain(status, &message))),
    }
}

/// What the child said of the file, or what its end says.
fn explain(status: Option<ExitStatus>, message: &str) -> FileRefusal {
    let limit = |message: &str| FileRefusal::new(RefusalKind::Limit, message);
    let Some(status) = status else {
        return limit("making an index of this file took too long");
    };
    let said = message
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str(line).ok());
    if let Some(refusal) = said {
        return refusal;
    }
    let is = |signal: Signal| status.signal() == Some(signal.as_raw());
    if is(Signal::XCPU) {
        limit("making an index of this file took more processor time than the server gives")
    } else if is(Signal::XFSZ) {
        limit("the index of this file is larger than the server keeps")
    } else if is(Signal::ABORT) || is(Signal::KILL) {
        // Rust aborts when an allocation fails; the kernel's own killer uses SIGKILL.
        limit("making an index of this file took more memory than the server gives")
    } else {
        let last = message
            .lines()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("no message");
        FileRefusal::new(
            RefusalKind::Corrupt,
            format!("what reads this file died of it ({status}): {last}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that each end of a child has its reason, and that only the child's own line is taken for its word.
    #[test]
    fn the_end_of_a_child_is_explained() {
        let check = |status: Option<i32>, message: &str, kind: RefusalKind, words: &str| {
            let refusal = explain(status.map(ExitStatus::from_raw), message);
            assert_eq!(refusal.kind, kind, "{refusal}");
            assert!(refusal.message.contains(words), "{refusal}");
        };
        let line = r#"{"kind":"no_symbols","message":"stripped"}"#;
        check(Some(1 << 8), line, RefusalKind::NoSymbols, "stripped");
        check(
            Some(1 << 8),
            &format!("noise\n{line}\n"),
            RefusalKind::NoSymbols,
            "stripped",
        );
        check(
            Some(101 << 8),
            "panicked at x",
            RefusalKind::Corrupt,
            "panicked at x",
        );
        check(Some(11), "", RefusalKind::Corrupt, "no message");
        check(
            Some(6),
            "memory allocation failed",
            RefusalKind::Limit,
            "memory",
        );
        check(Some(9), "", RefusalKind::Limit, "memory");
        check(Some(24), "", RefusalKind::Limit, "processor time");
        check(Some(25), "", RefusalKind::Limit, "larger");
        check(None, "", RefusalKind::Limit, "too long");
    }
}
