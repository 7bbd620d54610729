//! Opens a file that is to be sent, and reads it.
//!
//! In: a file as it was seen. Out: the best of it and of the file with its debug information, and its bytes as long as it does
//! not change. Reads and never maps: a file that is cut meanwhile is a short read and not a signal.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use thiserror::Error;

use super::offers::Offer;
use super::parts::{FileParts, find_parts};
use crate::name::{
    ElfFile, Segment, UnnamedReason, find_debug_file, is_of_build, open_elf_that, parse_debug_link,
    reopen,
};
use crate::process::{BuildId, FilePart};

/// The largest file that is opened, the server's own limit by default: a browser's debug information has 3 GB.
const FILE_BYTES_MAX: u64 = 4 << 30;

/// Bytes of a section with a debug link: a name, its end, padding and a checksum.
const DEBUG_LINK_BYTES_MAX: u64 = 264;

/// Why a file cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SourceError {
    /// It could not be opened.
    #[error("the file cannot be opened: {}", .0.as_str())]
    Missing(UnnamedReason),
    /// It has nothing to name anything by.
    #[error("the file has nothing to name anything by")]
    Nothing,
    /// It is not what it was when it was opened.
    #[error("the file has changed while it was sent")]
    Changed,
}

/// What tells that a file has not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    bytes: u64,
    modified: (i64, i64),
}

impl State {
    fn of(file: &File) -> Option<Self> {
        let metadata = file.metadata().ok()?;
        Some(Self {
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// A file that is to be sent.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    state: State,
    parts: FileParts,
    /// Where the program is loaded, which its debug file may not say.
    segments: Vec<Segment>,
}

/// Opens the file, or the one with its debug information if that has more. Only what has the build id is taken.
///
/// # Errors
/// There is no such file any more, or nothing in it.
pub fn open_source(file: &ElfFile, build_id: BuildId) -> Result<FileSource, SourceError> {
    let is_it = |opened: &OwnedFd| is_of_build(opened, Some(build_id));
    let own = open_elf_that(file, FILE_BYTES_MAX, is_it)
        .and_then(|opened| reopen(&opened.file))
        .map_err(SourceError::Missing)
        .and_then(FileSource::new);
    if own
        .as_ref()
        .is_ok_and(|it| it.parts.offer == Offer::DebugInfo)
    {
        return own;
    }
    let link = own.as_ref().ok().and_then(FileSource::read_debug_link);
    let separate = find_debug_file(file, link.as_deref(), FILE_BYTES_MAX)
        .filter(|(opened, _)| is_it(opened))
        .and_then(|(opened, _)| FileSource::new(reopen(&opened).ok()?).ok());
    let own_offer = own.as_ref().map_or(Offer::None, |it| it.parts.offer);
    match separate {
        Some(mut separate) if separate.parts.offer > own_offer => {
            separate.segments = own.map(|it| it.segments).unwrap_or_default();
            Ok(separate)
        }
        _ if own_offer == Offer::None => Err(own.err().unwrap_or(SourceError::Nothing)),
        _ => own,
    }
}

fn reader(file: &File) -> impl FnMut(u64, &mut [u8]) -> bool + '_ {
    |at, buffer| file.read_exact_at(buffer, at).is_ok()
}

impl FileSource {
    fn new(file: File) -> Result<Self, SourceError> {
        let state = State::of(&file).ok_or(SourceError::Changed)?;
        let parts = find_parts(state.bytes, reader(&file)).ok_or(SourceError::Nothing)?;
        Ok(Self {
            segments: parts.segments.clone(),
            file,
            state,
            parts,
        })
    }

    fn read_debug_link(&self) -> Option<String> {
        let FilePart { offset, bytes } = self.parts.debug_link?;
        let mut section = vec![0; bytes.min(DEBUG_LINK_BYTES_MAX) as usize];
        self.file.read_exact_at(&mut section, offset).ok()?;
        parse_debug_link(&section).map(|(name, _)| name.to_owned())
    }

    /// What of it is sent.
    pub fn parts(&self) -> &FileParts {
        &self.parts
    }

    /// Where the program is loaded.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Reads what lies at a position in all parts, into as much of the buffer as there is; gives how much that is.
    ///
    /// # Errors
    /// The file is not what it was.
    pub fn read(&self, position: u64, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let mut filled = 0;
        for place in self.parts.places(position, buffer.len() as u64) {
            let into = &mut buffer[filled..][..place.bytes as usize];
            let read = self.file.read_exact_at(into, place.offset);
            read.map_err(|_| SourceError::Changed)?;
            filled += into.len();
        }
        // After the bytes, so that these are of the state that is compared.
        match State::of(&self.file) {
            Some(state) if state == self.state => Ok(filled),
            _ => Err(SourceError::Changed),
        }
    }

    /// The BLAKE3 digest of the first bytes of all parts.
    ///
    /// # Errors
    /// The file is not what it was.
    pub fn digest(&self, bytes: u64) -> Result<[u8; 32], SourceError> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 256 << 10];
        let mut position = 0;
        while position < bytes {
            let left = (bytes - position).min(buffer.len() as u64) as usize;
            match self.read(position, &mut buffer[..left])? {
                0 => break,
                read => {
                    hasher.update(&buffer[..read]);
                    position += read as u64;
                }
            }
        }
        Ok(hasher.finalize().into())
    }
}
