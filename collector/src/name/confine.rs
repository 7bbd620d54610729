//! What the naming child may still do once it runs.
//!
//! It reads files that any process of the node may have written, with parsers
//! that were not made for enemies, so it gives up what it does not need: its
//! view of the file system, its capabilities, and more memory than it should take.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::PathBuf;

use rustix::process::{
    Resource, Rlimit, Signal, chdir, chroot, nice, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs,
};

use super::naming::UnnamedReason;
use crate::process::open_unleased;

/// Descriptors: 32 files, each with a debug file, twice (ours and blazesym's), one more of each to read Go's tables, two
/// more that debug information is shared with or split into, and again as many to read those: 352. The 68 of a request,
/// which are opened once more, the child's own few, and for six programs 256 split files each.
const OPEN_FILES_MAX: u64 = 2048;
/// Names may wait for the node's own work: against one busy thread on each CPU
/// the child still gets a quarter of one. At 10 it would be a tenth, and time-outs
/// would hit files that are only waiting.
const NICE: i32 = 5;

/// By which path the child reaches a descriptor, and with it, which files it
/// could open by other paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileRoot {
    /// Its root directory is its own `/proc/PID/fd`: there are no other files.
    /// A debug link such as `/dev/watchdog` or `../../etc/shadow` leads nowhere.
    Descriptors,
    /// Changing the root directory was not permitted.
    Everything,
}

impl FileRoot {
    /// The path of a descriptor.
    pub(super) fn path_of(self, descriptor: RawFd) -> PathBuf {
        match self {
            Self::Descriptors => format!("/{descriptor}").into(),
            Self::Everything => format!("/proc/self/fd/{descriptor}").into(),
        }
    }

    /// Opens a descriptor, which may only stand for a file, for reading. Not while a process holds a lease on it.
    pub(super) fn open(self, descriptor: &OwnedFd) -> Result<File, UnnamedReason> {
        let path = self.path_of(descriptor.as_raw_fd());
        open_unleased(&path).map_err(|err| match err.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::WouldBlock => {
                UnnamedReason::Permission
            }
            _ => UnnamedReason::FileGone,
        })
    }
}

/// Gives up what is not needed. What needs privileges or paths (the kernel's
/// symbols, the vDSO) must have been opened before.
///
/// # Errors
///
/// When a limit could not be set or a capability not be dropped; the child must
/// not go on then.
pub(super) fn confine(data_bytes_max: u64) -> io::Result<FileRoot> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Best effort: a lower priority is a courtesy.
    let _ = nice(NICE);
    // Private memory only: the files that are mapped may be larger than memory.
    limit(Resource::Data, data_bytes_max)?;
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, OPEN_FILES_MAX)?;
    let root = change_root();
    keep_capabilities(CapabilitySet::DAC_READ_SEARCH)?;
    set_no_new_privs(true)?;
    Ok(root)
}

fn limit(resource: Resource, max: u64) -> io::Result<()> {
    let limit = Rlimit {
        current: Some(max),
        maximum: Some(max),
    };
    Ok(setrlimit(resource, limit)?)
}

fn change_root() -> FileRoot {
    // `self` is resolved here, once, to this process.
    match chroot("/proc/self/fd").and_then(|()| chdir("/")) {
        Ok(()) => FileRoot::Descriptors,
        Err(_) => FileRoot::Everything,
    }
}

/// Reaching a file of another user through its descriptor needs
/// `CAP_DAC_READ_SEARCH`, since blazesym opens it again.
fn keep_capabilities(wanted: CapabilitySet) -> io::Result<()> {
    let kept = capabilities(None)?.permitted & wanted;
    Ok(set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )?)
}
