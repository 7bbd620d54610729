//! A file that is held open.
//!
//! A descriptor keeps the blocks of a deleted file, and its file system mounted. So its holder drops it as soon as the file has
//! its names.

use std::fs::File;
use std::os::fd::OwnedFd;

use elf::Segment;
use symbolize::{FileFacts, FoundBy};

use super::format::FileFormat;
use super::proc_path::reopen;

/// A file that is held open.
#[derive(Debug)]
pub struct HeldFile {
    pub(crate) file: OwnedFd,
    /// Its format.
    pub(super) format: Option<FileFormat>,
    /// Its facts, if it is an ELF file.
    pub(super) facts: Option<FileFacts>,
    /// The file that may have its debug information.
    pub(super) debug_file: Option<(OwnedFd, FoundBy)>,
}

impl HeldFile {
    /// The file with its debug information that was found when it was opened.
    pub(crate) fn debug_file(&self) -> Option<(OwnedFd, FoundBy)> {
        let (file, found_by) = self.debug_file.as_ref()?;
        Some((file.try_clone().ok()?, *found_by))
    }

    /// The load segments of the file.
    pub(crate) fn segments(&self) -> &[Segment] {
        self.facts.as_ref().map_or(&[], |facts| &facts.segments)
    }

    /// The format of the file, if that could be read.
    pub fn format(&self) -> Option<FileFormat> {
        self.format
    }

    /// A descriptor to read from.
    pub fn read(&self) -> Option<File> {
        reopen(&self.file).ok()
    }
}
