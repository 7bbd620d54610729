//! The objects that addresses lie in: the kernel, the vDSO, or an ELF file.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::file::ElfFile;

/// Which readings of `/proc/kallsyms` name what the kernel has loaded: those of a time in which it was there. Its image stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Readings {
    /// The reading begins after this time, nanoseconds of CLOCK_MONOTONIC ...
    pub since_ns: u64,
    /// ... and ends before this.
    pub until_ns: u64,
}

impl Readings {
    /// All.
    pub const ALL: Self = Self {
        since_ns: 0,
        until_ns: u64::MAX,
    };
}

/// An object to name addresses in, which says how they are to be read.
#[derive(Clone, Debug)]
pub enum Object {
    /// The kernel, its modules and BPF programs. Addresses are relative to
    /// `_text`, wrapping where they lie below it.
    Kernel(Readings),
    /// The code the kernel maps into each process. Addresses are offsets in its image.
    Vdso,
    /// A file. Addresses are offsets in it.
    Elf(Arc<ElfFile>),
}

impl fmt::Display for Object {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(_) => out.write_str("[kernel]"),
            Self::Vdso => out.write_str("[vdso]"),
            Self::Elf(file) => file.path.display().fmt(out),
        }
    }
}
