//! The ELF files that are open in the child, and requests for names of offsets in them.
//!
//! In: an open file and offsets in it. Out: answers. While the child is confined (see `confine`), it
//! opens no file by a path that is written in a file.

use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use elf::{BlockCache, BuildId, HeadersError};
use sandbox::{FileRoot, ResidentMemory};
use symbolize::dwarf::{Linking, SplitFile};
use symbolize::{
    Answer, DebugInfoReader, DebugOutcome, ElfResolver, FileFacts, FoundBy, ObjectFile, Resolved,
    UseDebugInfo,
};

use super::answers::Answers;
use super::confine::open_descriptor;
use super::protocol::SPLIT_FILES_MAX;
use crate::file::UnnamedReason;

/// Files that stay open with their parsed data. A busy node uses some 20 to 40 in a window; small ones cost
/// little, and the child's memory limit bounds the large ones.
const OPEN_FILES_MAX: usize = 32;
/// Time after which an unused file is closed: its file system cannot be unmounted while it is open.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Offsets between two checks of the memory. A check takes 2 µs; this many scattered offsets make 2 to 4 MB
/// of debug information resident.
const CHUNK_OFFSETS: usize = 32;
/// Evictions of parsed data within one request. A file that needs more is too large for the limit, and
/// parsing it again would only take time.
const FORGET_MAX: usize = 4;

/// Blocks of files and sections that are resident: 2 MB.
const BLOCKS_MAX: usize = 512;

/// A question about one file.
pub(super) struct ElfRequest<'a> {
    /// The collector's number of the file.
    pub(super) file: u64,
    /// The file itself; `None` if the collector could no longer open it.
    pub(super) opened: Option<OwnedFd>,
    /// The file that may have its debug information.
    pub(super) debug_file: Option<(OwnedFd, FoundBy)>,
    /// Files that may have parts of its debug information.
    pub(super) linked: LinkedRequest,
    /// The build id it must have.
    pub(super) build_id: Option<BuildId>,
    /// Whether to use debug information.
    pub(super) debug: UseDebugInfo,
    /// Offsets in the file.
    pub(super) offsets: &'a [u64],
}

/// Files that may have parts of a file's debug information.
#[derive(Default)]
pub(super) struct LinkedRequest {
    /// The one that several files share.
    pub(super) alternative: Option<OwnedFd>,
    /// A package of split ones.
    pub(super) package: Option<OwnedFd>,
    /// Split ones by their numbers; without a file, there is none.
    pub(super) split: Vec<(u64, Option<OwnedFd>)>,
}

/// The files that are open.
pub(super) struct ElfFiles {
    /// Made when needed. Dropping it is the only way to free its parsed data.
    reader: Option<DebugInfoReader>,
    root: FileRoot,
    open: Vec<OpenFile>,
    blocks: Rc<BlockCache>,
    /// Split files that the last request lacked, each once.
    wanted: Vec<SplitFile>,
}

struct OpenFile {
    file: u64,
    used: Instant,
    resolver: ElfResolver,
}

impl ElfFiles {
    /// No file yet. `root` has the path by which the child reaches a descriptor.
    pub(super) fn new(root: FileRoot) -> Self {
        Self {
            reader: None,
            root,
            open: Vec::new(),
            blocks: Rc::new(BlockCache::new(BLOCKS_MAX)),
            wanted: Vec::new(),
        }
    }

    /// Adds one answer for each of `request.offsets` to `answers`. Frees parsed data when `memory` is over its
    /// limit.
    pub(super) fn name(
        &mut self,
        request: ElfRequest<'_>,
        memory: &ResidentMemory,
        answers: &mut Answers,
    ) -> DebugOutcome {
        self.wanted.clear();
        // In ascending order, so that each unit of debug information is parsed once.
        let mut places: Vec<usize> = (0..request.offsets.len()).collect();
        places.sort_unstable_by_key(|place| request.offsets[*place]);
        let offsets: Vec<u64> = places.iter().map(|place| request.offsets[*place]).collect();
        let offsets = &offsets[..];
        let debug = match self.root {
            FileRoot::Descriptors => request.debug,
            FileRoot::Everything => UseDebugInfo::No,
        };
        let (number, build_id) = (request.file, request.build_id);
        let place = match self.open(number, request.opened, build_id) {
            Ok(place) => place,
            Err(reason) => {
                offsets.iter().for_each(|_| answers.push_unnamed(reason));
                return DebugOutcome::Fine;
            }
        };
        let mut found: Vec<Answer> = offsets.iter().map(|_| Answer::default()).collect();
        if debug == UseDebugInfo::Yes {
            if let Some((file, found_by)) = request.debug_file {
                self.attach(place, file, found_by, build_id);
            }
            let linked = request.linked.open(self.root);
            self.open[place].resolver.link(linked);
            self.read_debug_info(place, offsets, memory, &mut found);
        }
        let resolver = &mut self.open[place].resolver;
        resolver.read_tables(debug, offsets, &mut found);
        let mut found: Vec<(usize, Answer)> = places.into_iter().zip(found).collect();
        found.sort_unstable_by_key(|(place, _)| *place);
        for (_, answer) in &found {
            match answer.resolved() {
                Resolved::Frames(frames) => answers.push_named(frames),
                Resolved::InFunction(distance) => answers.push_in_function(distance),
                Resolved::NoSymbol => answers.push_unnamed(UnnamedReason::NoSymbol),
                Resolved::Corrupt => answers.push_unnamed(UnnamedReason::Corrupt),
            }
        }
        resolver.debug_outcome()
    }

    /// Answers by debug information, where there is any.
    fn read_debug_info(
        &mut self,
        place: usize,
        offsets: &[u64],
        memory: &ResidentMemory,
        answers: &mut [Answer],
    ) {
        let mut forget_left = FORGET_MAX;
        let chunks = offsets.chunks(CHUNK_OFFSETS);
        for (offsets, answers) in chunks.zip(answers.chunks_mut(CHUNK_OFFSETS)) {
            if memory.is_over() {
                self.close_units();
            }
            if forget_left > 0 && memory.is_over() {
                forget_left -= 1;
                self.forget();
            }
            let reader = self.reader.get_or_insert_default();
            let resolver = &mut self.open[place].resolver;
            resolver.read_debug_info(reader, offsets, answers, &mut self.wanted, SPLIT_FILES_MAX);
        }
    }

    /// The facts of an open file, with the links of its debug file.
    pub(super) fn facts(&self, file: u64) -> Option<FileFacts> {
        let open = self.open.iter().find(|open| open.file == file)?;
        Some(open.resolver.facts())
    }

    /// The split files that the last request lacked.
    pub(super) fn take_wanted(&mut self) -> Vec<SplitFile> {
        std::mem::take(&mut self.wanted)
    }

    /// Frees the parsed units of all files.
    pub(super) fn close_units(&mut self) {
        for open in &mut self.open {
            open.resolver.close_units();
        }
    }

    /// Frees the parsed data of all files. They stay open.
    pub(super) fn forget(&mut self) {
        self.reader = None;
        for open in &mut self.open {
            open.resolver.forget();
        }
        // Blocks lie between the parsed data on the heap, and would keep the allocator from returning its memory.
        self.blocks.clear();
    }

    /// Opens the file, if it is not open. It stays open. Returns its place.
    fn open(
        &mut self,
        file: u64,
        opened: Option<OwnedFd>,
        build_id: Option<BuildId>,
    ) -> Result<usize, UnnamedReason> {
        let used = Instant::now();
        if let Some(place) = self.open.iter().position(|open| open.file == file) {
            self.open[place].used = used;
            return Ok(place);
        }
        let descriptor = opened.ok_or(UnnamedReason::FileGone)?;
        let main = self.read(&descriptor)?;
        if build_id.is_some() && main.build_id() != build_id {
            return Err(UnnamedReason::FileGone);
        }
        if self.open.len() >= OPEN_FILES_MAX {
            self.close_oldest();
        }
        self.open.push(OpenFile {
            file,
            used,
            resolver: ElfResolver::new(main, &self.blocks),
        });
        Ok(self.open.len() - 1)
    }

    /// Opens a descriptor and reads the headers. While it is open, blazesym can open the file again without waiting.
    fn read(&self, descriptor: &OwnedFd) -> Result<ObjectFile, UnnamedReason> {
        let file = open_descriptor(self.root, descriptor)?;
        let path = self.root.path_of(file.as_raw_fd());
        ObjectFile::read(file, path).map_err(|err| match err {
            HeadersError::NotElf => UnnamedReason::Corrupt,
            HeadersError::TooLarge => UnnamedReason::Limit,
        })
    }

    /// Takes a debug file for an open file, if that needs one.
    fn attach(
        &mut self,
        place: usize,
        descriptor: OwnedFd,
        found_by: FoundBy,
        build_id: Option<BuildId>,
    ) {
        if self.open[place].resolver.wants_debug_file() {
            let file = self.read(&descriptor).ok();
            let resolver = &mut self.open[place].resolver;
            resolver.attach(file, found_by, build_id);
        }
    }

    fn close_oldest(&mut self) {
        let open = self.open.iter().enumerate();
        let oldest = open.min_by_key(|(_, open)| open.used);
        if let Some((place, _)) = oldest {
            self.close(place);
        }
    }

    /// Closes the files that have been unused for a while.
    pub(super) fn close_idle(&mut self) {
        let idle = |open: &OpenFile| open.used.elapsed() > IDLE_MAX;
        while let Some(place) = self.open.iter().position(idle) {
            self.close(place);
        }
    }

    fn close(&mut self, place: usize) {
        let open = self.open.swap_remove(place);
        if let Some(reader) = &mut self.reader {
            reader.evict(&open.resolver);
        }
    }
}

impl LinkedRequest {
    fn open(self, root: FileRoot) -> Linking {
        let reopen = |file: OwnedFd| open_descriptor(root, &file).ok();
        let split = self.split.into_iter();
        Linking {
            alternative: self.alternative.and_then(reopen),
            package: self.package.and_then(reopen),
            split: split
                .map(|(id, file)| (id, file.and_then(reopen)))
                .collect(),
        }
    }
}
