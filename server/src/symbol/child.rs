//! The converting child: a process of the server's program that makes one index and exits.
//!
//! In: the file as standard input, the index's file as standard output. Out: the index, or one line on standard
//! error. The file may crash it; the server reports that and goes on.
//!
//! It has no capabilities, no files but the three that it inherits, limits on memory, CPU time and written bytes, and
//! runs alone. Its index is checked like any other file. An upload is a file without a name until then, so a crash
//! leaves nothing. The server's own process does not parse it; its readers of indexes (heads, layouts, look-ups in a
//! symcache) have bounds and a fuzz target, `symbols`.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

use elf::BuildId;
use sandbox::{CapabilitySet, Confinement};
use serde::{Deserialize, Serialize};
use symbolic_common::ByteView;
use symbolize::index::{ConvertError, FileRefusal, RefusalKind, convert};

/// First argument of a converting child; the others are the build id, the origin of the file, and [`ChildLimits`].
/// Internal.
pub const CHILD_ARGUMENT: &str = "convert-child";

/// Descriptors: the three inherited ones, and the few that the runtime opens.
const OPEN_FILES_MAX: u64 = 16;

/// Requests have priority over making indexes.
const NICE: i32 = 10;

/// Limits of the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildLimits {
    /// Private memory in bytes; the file itself is mapped and does not count. An allocation beyond it aborts the
    /// child.
    pub data_bytes_max: u64,
    /// Seconds of processor time.
    pub cpu_seconds_max: u64,
    /// Bytes of the index.
    pub index_bytes_max: u64,
}

impl Default for ChildLimits {
    /// - 2 GiB of memory: 55 MiB of a Rust program with line tables take 74 MiB. Files with sections that are compressed
    ///   are decompressed in memory, and some GB of debug information make some hundred million rows. One child runs at a time.
    ///   Below a cgroup's limit it gets less ([`MemoryNeeds`](crate::memory::MemoryNeeds)).
    /// - 300 s: that file takes 10 s without optimization.
    /// - 1 GiB of index: that file has 32 MiB of it.
    fn default() -> Self {
        Self {
            data_bytes_max: 2 << 30,
            cpu_seconds_max: 300,
            index_bytes_max: 1 << 30,
        }
    }
}

/// Runs the child. `arguments` are those after [`CHILD_ARGUMENT`].
pub fn run_child(arguments: impl Iterator<Item = String>) -> ExitCode {
    // It was started as `/proc/self/exe`, and would be `exe` in profiles and in `ps`.
    let _ = rustix::thread::set_name(c"pilotlight-conv");
    let refusal = match serve(arguments) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(ConvertError::Refused(refusal)) => refusal,
        Err(ConvertError::Io(err)) => FileRefusal::new(
            RefusalKind::Limit,
            format!("the index of this file could not be written: {err}"),
        ),
    };
    match serde_json::to_string(&refusal) {
        Ok(line) => eprintln!("{line}"),
        Err(err) => eprintln!("{err}"),
    }
    ExitCode::FAILURE
}

fn serve(mut arguments: impl Iterator<Item = String>) -> Result<(), ConvertError> {
    let usage = || io::Error::new(io::ErrorKind::InvalidInput, "is started by the server");
    let mut argument = || arguments.next().ok_or_else(usage);
    let build_id: BuildId = argument()?.parse().map_err(|_| usage())?;
    let origin = argument()?;
    let limits = serde_json::from_str(&argument()?).map_err(|_| usage())?;
    let source = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut index = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    confinement(limits).enter().map_err(io::Error::from)?;
    let bytes = ByteView::map_file(source)?;
    convert(&bytes, &build_id, &origin, &mut index)?;
    index.sync_all()?;
    Ok(())
}

/// The child inherits all of its files. The sandbox may leave it its root directory, but it opens no other file: no
/// reader takes a path from the input.
fn confinement(limits: ChildLimits) -> Confinement {
    Confinement {
        capabilities: CapabilitySet::empty(),
        data_bytes_max: limits.data_bytes_max,
        open_files_max: OPEN_FILES_MAX,
        cpu_seconds_max: Some(limits.cpu_seconds_max),
        file_bytes_max: Some(limits.index_bytes_max),
        nice: NICE,
    }
}
