//! Opens files for the naming child.
//!
//! In: a file and the links that were read in it. Out: descriptors of the file and of those files with its debug information that
//! exist and whose file systems answer.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use symbolize::dwarf::SplitFile;
use symbolize::{FileFacts, FoundBy};

use crate::blocking_pool::BlockingPool;
use crate::file::{ElfFile, LinkedFiles, Origin, UnnamedReason, open_elf};

/// Opens files of at most so many bytes.
#[derive(Debug)]
pub(super) struct FileOpener {
    bytes_max: u64,
    pool: BlockingPool,
}

/// Files with the debug information of another one.
#[derive(Default)]
pub(super) struct FoundFiles {
    pub(super) debug_file: Option<(OwnedFd, FoundBy)>,
    /// The file with the debug information that several files share.
    pub(super) alternative: Option<OwnedFd>,
    /// The package with its split units.
    pub(super) package: Option<OwnedFd>,
}

impl FileOpener {
    pub(super) fn new(bytes_max: u64, pool: BlockingPool) -> Self {
        Self { bytes_max, pool }
    }

    /// Opens a file.
    ///
    /// # Errors
    /// The reason why the file cannot be opened.
    pub(super) fn open(&self, file: &Arc<ElfFile>) -> Result<OwnedFd, UnnamedReason> {
        open_elf(file, self.bytes_max, &self.pool)
    }

    /// Finds the files that have the debug information of `file`, or parts of it. `program` is its descriptor, and `facts` were
    /// read in it.
    pub(super) fn find_linked(
        &self,
        file: &ElfFile,
        program: Option<&OwnedFd>,
        facts: Option<&FileFacts>,
    ) -> FoundFiles {
        let linked = self.search(file, program);
        let has_own = facts.is_some_and(|facts| facts.has_debug_info);
        let debug_link = facts.and_then(|facts| facts.debug_link.as_deref());
        let alternative = facts.and_then(|facts| facts.alternative.as_ref());
        let is_split = facts.is_some_and(|facts| facts.is_split);
        FoundFiles {
            debug_file: if has_own {
                None
            } else {
                linked.debug_file(debug_link)
            },
            alternative: alternative.and_then(|link| linked.alternative(link)),
            package: is_split.then(|| linked.package()).flatten(),
        }
    }

    /// Finds split files by their numbers. A file that does not exist is `None`.
    pub(super) fn find_split(
        &self,
        file: &Arc<ElfFile>,
        wanted: &[SplitFile],
    ) -> Vec<(u64, Option<OwnedFd>)> {
        let program = self.open(file).ok();
        let linked = self.search(file, program.as_ref());
        let found = wanted.iter().map(|split| (split.id, linked.split(split)));
        found.collect()
    }

    fn search<'a>(&'a self, file: &'a ElfFile, program: Option<&OwnedFd>) -> LinkedFiles<'a> {
        LinkedFiles {
            file,
            origin: program.and_then(Origin::of),
            bytes_max: self.bytes_max,
            pool: &self.pool,
        }
    }
}
