//! The PID namespace of the collector: `/proc`, perf's records and samples have its process ids.

use std::{ffi::OsStr, fs, os::unix::fs::MetadataExt as _};

/// The initial namespace: `PROC_PID_INIT_INO` in include/linux/proc_ns.h.
const INITIAL: &str = "pid:[4026531836]";

/// The collector's PID namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PidNamespace {
    /// The host's.
    Host,
    /// That of a container: a node of kind, minikube or k3d.
    Container {
        /// Its inode number.
        inode: u32,
    },
    /// One that began with the collector.
    Own {
        /// Its inode number.
        inode: u32,
    },
    /// `/proc` has the process ids of another one, or cannot be read.
    OtherProc,
}

impl PidNamespace {
    /// Finds out.
    pub fn detect() -> Self {
        let own = std::process::id();
        let Ok(link) = fs::read_link("/proc/self/ns/pid") else {
            return Self::OtherProc;
        };
        if link.as_os_str() == INITIAL {
            return Self::Host;
        }
        let in_proc = fs::read_link("/proc/self");
        let is_same = in_proc.is_ok_and(|link| link.as_os_str() == OsStr::new(&own.to_string()));
        let inode = fs::metadata("/proc/self/ns/pid").map(|file| file.ino());
        match inode.ok().and_then(|inode| u32::try_from(inode).ok()) {
            Some(inode) if is_same && own == 1 => Self::Own { inode },
            Some(inode) if is_same => Self::Container { inode },
            _ => Self::OtherProc,
        }
    }

    /// The inode number of one that is not the host's.
    pub fn nested(self) -> Option<u32> {
        match self {
            Self::Container { inode } | Self::Own { inode } => Some(inode),
            Self::Host | Self::OtherProc => None,
        }
    }
}
