//! Runs the converting child in the server: start, wait, and explanation of its exit.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use elf::BuildId;
use sandbox::{ChildProgram, EndCause, Finished, OneShot};
use symbolize::index::{FileRefusal, RefusalKind};

use super::child::{CHILD_ARGUMENT, ChildLimits};
use super::error::AddError;

/// Wall time for a child, beside its limit of processor time: the disk and other work may hold it up.
const WALL_TIME_MAX: Duration = Duration::from_secs(900);

/// Bytes read of the child's standard error: its one line, or its panic message.
const MESSAGE_BYTES_MAX: u64 = 16 << 10;

/// A file that becomes an index.
pub struct Conversion<'a> {
    /// The server's own program.
    pub program: &'a Path,
    /// The file.
    pub source: File,
    /// The file for the index; empty.
    pub index: File,
    /// The build id that the file must have.
    pub build_id: &'a BuildId,
    /// Its origin.
    pub origin: &'a str,
    /// Limits of the child.
    pub limits: ChildLimits,
}

/// This program, also when its file was replaced since it was started.
pub fn own_program() -> PathBuf {
    ChildProgram::OWN.into()
}

/// Makes an index in a child. Blocks until it has ended.
///
/// # Errors
/// The file is not taken, it crashed the child, or the child could not be started.
pub fn run_conversion(conversion: Conversion<'_>) -> Result<(), AddError> {
    let Conversion {
        program,
        source,
        index,
        build_id,
        origin,
        limits,
    } = conversion;
    let failed = |err: io::Error| {
        AddError::Failed(format!(
            "failed to start the child that makes an index: {err}"
        ))
    };
    let encoded = serde_json::to_string(&limits).map_err(|err| failed(err.into()))?;
    let arguments = [CHILD_ARGUMENT, &build_id.to_string(), origin, &encoded];
    let program = ChildProgram {
        path: program.to_owned(),
        arguments: arguments.map(Into::into).into(),
        environment: Vec::new(),
    };
    let task = OneShot {
        program: &program,
        input: source,
        output: index,
        time_max: WALL_TIME_MAX,
        message_bytes_max: MESSAGE_BYTES_MAX,
    };
    let Finished { status, message } = task.run().map_err(failed)?;
    match status {
        Some(status) if status.success() => Ok(()),
        status => Err(explain(status, &message, limits).into()),
    }
}

/// The refusal that the child printed, or one for its exit status.
fn explain(status: Option<ExitStatus>, message: &str, limits: ChildLimits) -> FileRefusal {
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
    match EndCause::of(status) {
        EndCause::CpuTime => {
            limit("making an index of this file took more processor time than the server gives")
        }
        EndCause::FileBytes => limit("the index of this file is larger than the server keeps"),
        EndCause::Memory => limit(&format!(
            "making an index of this file takes more memory than the {} MiB that its reader may use: what the server leaves of its \
             container's memory limit, at most 2048 MiB; raise that limit, or send the file without debug information (objcopy \
             --strip-debug)",
            limits.data_bytes_max >> 20
        )),
        EndCause::Killed => limit(
            "the reader of this file was killed, most likely by the kernel, which was out of memory",
        ),
        EndCause::Other => {
            let last = message
                .lines()
                .find(|line| !line.trim().is_empty())
                .unwrap_or("no message");
            FileRefusal::new(
                RefusalKind::Corrupt,
                format!("the reader of this file died ({status}): {last}"),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    /// Check that each exit status has its reason, and that only the child's own line is taken as its refusal.
    #[test]
    fn the_end_of_a_child_is_explained() {
        let check = |status: Option<i32>, message: &str, kind: RefusalKind, words: &str| {
            let status = status.map(ExitStatus::from_raw);
            let refusal = explain(status, message, ChildLimits::default());
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
            "the 2048 MiB",
        );
        check(Some(9), "", RefusalKind::Limit, "by the kernel");
        check(Some(24), "", RefusalKind::Limit, "processor time");
        check(Some(25), "", RefusalKind::Limit, "larger");
        check(None, "", RefusalKind::Limit, "too long");
    }
}
