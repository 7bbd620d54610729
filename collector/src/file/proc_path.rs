//! Paths below `/proc`: of processes' roots, and of descriptors.

use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use profile::UnnamedReason;

use crate::procfs::open_unleased;

/// The node's own root.
pub(crate) const OWN_ROOT: &str = "/";

/// The root directory of a process.
pub(crate) fn root_of(pid: u32) -> String {
    format!("/proc/{pid}/root")
}

/// Opens the regular file of an `O_PATH` descriptor for reading. Fails while a process holds a lease on the file.
pub(crate) fn reopen(file: &OwnedFd) -> Result<File, UnnamedReason> {
    open_unleased(Path::new(&descriptor_path(file))).map_err(|_| UnnamedReason::Permission)
}

pub(super) fn descriptor_path(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}
