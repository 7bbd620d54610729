//! Attributes of an open file, from the kernel's cache.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Statx, StatxFlags, statx};
use rustix::io;

/// Reads attributes of an open file without a request to the server of a network file system, which may hang.
///
/// # Errors
/// As statx(2).
pub(crate) fn read_attributes(file: impl AsFd, wanted: StatxFlags) -> io::Result<Statx> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    statx(file, c"", flags, wanted)
}
