//! Opens files on which a process of the node may hold a lease.
//!
//! The collector does not wait for a file with a write lease (`F_SETLEASE`): it opens every file
//! that a process may have created with `O_NONBLOCK`. A leased file has the reason `permission`, or
//! `file_gone` if its build id had to be compared.

use std::{fs::File, io, os::unix::fs::OpenOptionsExt as _, path::Path};

/// Opens a file for reading without blocking.
///
/// A process that may write to a file may take a write lease on it (`fcntl(2)`, `F_SETLEASE`). An
/// open then blocks until the lease is released, or for 45 s (`/proc/sys/fs/lease-break-time`).
/// With `O_NONBLOCK` it fails with [`io::ErrorKind::WouldBlock`] instead; reads of a regular file
/// ignore the flag. While the file is open, no process gets a lease that a second open would wait
/// for.
pub(crate) fn open_unleased(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NONBLOCK).open(path)
}
