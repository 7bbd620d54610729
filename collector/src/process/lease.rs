//! Opens files on which a process of the node may hold a lease.

use std::{fs::File, io, os::unix::fs::OpenOptionsExt as _, path::Path};

/// Opens a file to read from, at once or not at all.
///
/// Who may write to a file may take a write lease on it (`fcntl(2)`, `F_SETLEASE`), and whoever opens it then waits until the
/// lease is given up, or for 45 s (`/proc/sys/fs/lease-break-time`). With `O_NONBLOCK` that is an error of
/// [`io::ErrorKind::WouldBlock`]; to reads of a regular file it means nothing. While the file is open, nobody gets a lease that
/// a second open would wait for.
pub(crate) fn open_unleased(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NONBLOCK).open(path)
}
