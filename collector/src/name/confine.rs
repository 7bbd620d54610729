//! The confinement of the naming child, and how it opens its descriptors.
//!
//! The child reads files that any process of the node may have written, with parsers that were not
//! made for hostile input.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use sandbox::{CapabilitySet, Confinement, FileRoot};

use super::options::ChildLimits;
use crate::file::UnnamedReason;
use crate::procfs::open_unleased;

/// Descriptors: 32 files with a debug file each, opened twice (by us and by blazesym), once more
/// each for Go's tables, two more each for shared and split debug information, and as many again to
/// read those: 352. In addition the 68 of a request, which are opened once more, the child's own
/// few, and 256 split files for each of six programs.
const OPEN_FILES_MAX: u64 = 2048;
/// Naming yields to the node's own work: against one busy thread on each CPU the child still gets a
/// quarter of one. At 10 it would get a tenth, and requests would time out only because they wait
/// for the CPU.
const NICE: i32 = 5;

/// The confinement of a naming child. The kernel's symbols and the vDSO need privileges or paths, and are opened before the child
/// enters it.
pub(super) fn confinement(limits: ChildLimits) -> Confinement {
    Confinement {
        // blazesym opens a descriptor again by its path, and another user may own the file.
        capabilities: CapabilitySet::DAC_READ_SEARCH,
        data_bytes_max: limits.data_bytes_max,
        open_files_max: OPEN_FILES_MAX,
        cpu_seconds_max: None,
        file_bytes_max: None,
        nice: NICE,
    }
}

/// Opens a descriptor that can only be used as a path, for reading. Fails if a process holds a
/// lease on the file.
pub(super) fn open_descriptor(root: FileRoot, descriptor: &OwnedFd) -> Result<File, UnnamedReason> {
    let path = root.path_of(descriptor.as_raw_fd());
    open_unleased(&path).map_err(|err| match err.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::WouldBlock => UnnamedReason::Permission,
        _ => UnnamedReason::FileGone,
    })
}
