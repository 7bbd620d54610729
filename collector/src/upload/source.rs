//! Opens a file that is to be sent, and reads it.
//!
//! In: a file as it was seen. Out: the best of it and of the file with its debug information, and its bytes as long as it does
//! not change. Reads and never maps: a file that is cut meanwhile is a short read and not a signal.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::offers::Offer;
use super::parts::{FileParts, find_parts};
use crate::name::{
    ElfFile, Segment, UnnamedReason, find_debug_file, is_of_build, open_elf_that, parse_debug_link,
    reopen,
};
use crate::patience::{Patience, Place};
use crate::process::{BuildId, FilePart};

/// The largest file that is opened, the server's own limit by default: a browser's debug information has 3 GB.
const FILE_BYTES_MAX: u64 = 4 << 30;

/// Bytes of a section with a debug link: a name, its end, padding and a checksum.
const DEBUG_LINK_BYTES_MAX: u64 = 264;

/// How long opening a file, or reading a piece of it, may take: nobody waits for it.
const READ_TIME: Duration = Duration::from_secs(10);

/// How long reading all that has been sent may take: 4 GiB at the 50 MB a second that a slow disk has.
const DIGEST_TIME: Duration = Duration::from_secs(90);

/// What stands for a result that did not come.
const NOT_ANSWERING: SourceError = SourceError::Missing(UnnamedReason::NotAnswering);

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
    content: Arc<Content>,
    /// Where the program is loaded, which its debug file may not say.
    segments: Vec<Segment>,
    place: Place,
    patience: Patience,
}

/// What is read of a file.
#[derive(Debug)]
struct Content {
    file: File,
    state: State,
    parts: FileParts,
}

/// Opens the file, or the one with its debug information if that has more. Only what has the build id is taken.
///
/// # Errors
/// There is no such file any more, or nothing in it.
pub fn open_source(
    file: &ElfFile,
    build_id: BuildId,
    patience: &Patience,
) -> Result<FileSource, SourceError> {
    let is_it = move |opened: &OwnedFd| is_of_build(opened, Some(build_id));
    let place = file.place();
    let wanted = file.clone();
    let open = move || {
        open_elf_that(&wanted, FILE_BYTES_MAX, is_it)
            .and_then(|opened| reopen(&opened.file))
            .map_err(SourceError::Missing)
            .and_then(Content::read)
    };
    let own = patience.run(place, READ_TIME, open);
    let own = own.unwrap_or(Err(NOT_ANSWERING));
    let own_offer = own.as_ref().map_or(Offer::None, |it| it.0.parts.offer);
    let link = own.as_ref().ok().and_then(|it| it.1.as_deref());
    let separate = match own_offer {
        Offer::DebugInfo => None,
        _ => find_debug_file(file, link, FILE_BYTES_MAX, patience),
    };
    let separate = separate.and_then(|(opened, _)| {
        let read = move || is_it(&opened).then(|| Content::read(reopen(&opened).ok()?).ok())?;
        patience.run(place, READ_TIME, read).flatten()
    });
    let segments = own
        .as_ref()
        .map_or_else(|_| Vec::new(), |it| it.0.parts.segments.clone());
    let content = match separate {
        Some((separate, _)) if separate.parts.offer > own_offer => separate,
        _ if own_offer == Offer::None => return Err(own.err().unwrap_or(SourceError::Nothing)),
        _ => own?.0,
    };
    Ok(FileSource {
        content: Arc::new(content),
        segments,
        place,
        patience: patience.clone(),
    })
}

fn reader(file: &File) -> impl FnMut(u64, &mut [u8]) -> bool + '_ {
    |at, buffer| file.read_exact_at(buffer, at).is_ok()
}

impl FileSource {
    /// What of it is sent.
    pub fn parts(&self) -> &FileParts {
        &self.content.parts
    }

    /// Where the program is loaded.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Reads what lies at a position in all parts, at most so many bytes.
    ///
    /// # Errors
    /// The file is not what it was, or its file system does not answer.
    pub fn read(&self, position: u64, bytes_max: usize) -> Result<Vec<u8>, SourceError> {
        let content = self.content.clone();
        let read = move || {
            let mut piece = vec![0; bytes_max];
            let bytes = content.read_into(position, &mut piece)?;
            piece.truncate(bytes);
            Ok(piece)
        };
        let read = self.patience.run(self.place, READ_TIME, read);
        read.unwrap_or(Err(NOT_ANSWERING))
    }

    /// The BLAKE3 digest of the first bytes of all parts.
    ///
    /// # Errors
    /// The file is not what it was, or its file system does not answer.
    pub fn digest(&self, bytes: u64) -> Result<[u8; 32], SourceError> {
        let content = self.content.clone();
        let digest = move || content.digest(bytes);
        let digest = self.patience.run(self.place, DIGEST_TIME, digest);
        digest.unwrap_or(Err(NOT_ANSWERING))
    }
}

impl Content {
    /// Finds the parts of a file, and the debug link in it.
    fn read(file: File) -> Result<(Self, Option<String>), SourceError> {
        let state = State::of(&file).ok_or(SourceError::Changed)?;
        let parts = find_parts(state.bytes, reader(&file)).ok_or(SourceError::Nothing)?;
        let content = Self { file, state, parts };
        let link = content.read_debug_link();
        Ok((content, link))
    }

    fn read_debug_link(&self) -> Option<String> {
        let FilePart { offset, bytes } = self.parts.debug_link?;
        let mut section = vec![0; bytes.min(DEBUG_LINK_BYTES_MAX) as usize];
        self.file.read_exact_at(&mut section, offset).ok()?;
        parse_debug_link(&section).map(|(name, _)| name.to_owned())
    }

    /// Reads into as much of the buffer as there is; gives how much that is.
    fn read_into(&self, position: u64, buffer: &mut [u8]) -> Result<usize, SourceError> {
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

    fn digest(&self, bytes: u64) -> Result<[u8; 32], SourceError> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 256 << 10];
        let mut position = 0;
        while position < bytes {
            let left = (bytes - position).min(buffer.len() as u64) as usize;
            match self.read_into(position, &mut buffer[..left])? {
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
