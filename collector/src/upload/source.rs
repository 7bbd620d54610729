//! Opens a file that is to be sent, and reads it.
//!
//! In: a file as it was seen. Out: the best of it and of the file with its debug information, and its bytes as long as it does
//! not change. Reads and never maps: a file that is cut meanwhile is a short read and not a signal.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use elf::{BuildId, Layout, Segment, find_build_id};
use thiserror::Error;

use super::offers::Offer;
use super::parts::{FileParts, find_parts};
use crate::blocking_pool::{BlockingPool, Resource};
use crate::file::{
    ElfFile, FileKey, FileStamp, LinkedFiles, Origin, UnnamedReason, find_elf, reopen,
};

/// The largest file that is opened, the server's own limit by default: a browser's debug information has 3 GB.
const FILE_BYTES_MAX: u64 = 4 << 30;

/// Deadline for reading a piece of a file: no other thread waits for it.
const READ_TIME: Duration = Duration::from_secs(10);

/// Deadline for reading everything that has been sent: 4 GiB at the 50 MB a second that a slow disk has.
const DIGEST_TIME: Duration = Duration::from_secs(90);

/// The error for a read that missed its deadline.
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
    /// It has changed since it was opened.
    #[error("the file has changed while it was sent")]
    Changed,
}

/// A file that is to be sent.
#[derive(Debug)]
pub struct FileSource {
    build_id: Option<BuildId>,
    content: Arc<Content>,
    /// The load segments of the program, which its debug file may lack.
    layout: Layout,
    resource: Resource,
    pool: BlockingPool,
}

/// An open file and its parts.
#[derive(Debug)]
struct Content {
    file: File,
    stamp: FileStamp,
    parts: FileParts,
}

/// Opens the file, or the one with its debug information if that has more. Both must have the file's build id.
///
/// # Errors
/// There is no such file any more, or nothing in it.
pub fn open_source(file: &ElfFile, pool: &BlockingPool) -> Result<FileSource, SourceError> {
    let build_id = file.build_id;
    let resource = file.resource();
    let found = find_elf(&Arc::new(file.clone()), FILE_BYTES_MAX, pool);
    let own = found.map_err(SourceError::Missing).and_then(|found| {
        let read = move || {
            let file = reopen(&found.file).map_err(SourceError::Missing)?;
            Content::read(file)
        };
        let read = pool.run(resource, READ_TIME, read);
        let content = read.unwrap_or(Err(NOT_ANSWERING))?;
        // It is sent under the id of the file that was offered.
        let is_same = !matches!(file.key, FileKey::Stamp(stamp) if stamp != content.stamp);
        is_same.then_some(content).ok_or(SourceError::Changed)
    });
    let own_offer = own
        .as_ref()
        .map_or(Offer::None, |content| content.parts.offer);
    let content = own.as_ref().ok();
    let linked = LinkedFiles {
        file,
        origin: content.and_then(|content| Origin::of(&content.file)),
        bytes_max: FILE_BYTES_MAX,
        pool,
    };
    let link = content.and_then(|content| content.parts.debug_link.as_deref());
    let separate = match own_offer {
        Offer::DebugInfo => None,
        _ => linked.debug_file(link),
    };
    let separate = separate.and_then(|(opened, _)| {
        let read = move || {
            let file = reopen(&opened).ok()?;
            let is_of_build = find_build_id(&file) == build_id;
            is_of_build.then(|| Content::read(file).ok())?
        };
        pool.run(resource, READ_TIME, read).flatten()
    });
    let layout = own.as_ref().map_or_else(
        |_| Layout::default(),
        |content| content.parts.layout.clone(),
    );
    let content = match separate {
        Some(separate) if separate.parts.offer > own_offer => separate,
        _ if own_offer == Offer::None => return Err(own.err().unwrap_or(SourceError::Nothing)),
        _ => own?,
    };
    Ok(FileSource {
        build_id,
        content: Arc::new(content),
        layout,
        resource,
        pool: pool.clone(),
    })
}

impl FileSource {
    /// The build id that the program claims, in hexadecimal, or nothing.
    pub fn build_id(&self) -> String {
        self.build_id
            .map_or_else(String::new, |build_id| build_id.to_string())
    }

    /// The parts that are sent.
    pub fn parts(&self) -> &FileParts {
        &self.content.parts
    }

    /// The load segments of the program.
    pub fn segments(&self) -> &[Segment] {
        self.layout.segments()
    }

    /// Reads what lies at a position in all parts, at most so many bytes.
    ///
    /// # Errors
    /// The file has changed, or its file system does not answer.
    pub fn read(&self, position: u64, bytes_max: usize) -> Result<Vec<u8>, SourceError> {
        let content = self.content.clone();
        let read = move || {
            let mut piece = vec![0; bytes_max];
            let bytes = content.read_into(position, &mut piece)?;
            piece.truncate(bytes);
            Ok(piece)
        };
        let read = self.pool.run(self.resource, READ_TIME, read);
        read.unwrap_or(Err(NOT_ANSWERING))
    }

    /// The BLAKE3 digest of the first bytes of all parts.
    ///
    /// # Errors
    /// The file has changed, or its file system does not answer.
    pub fn digest(&self, bytes: u64) -> Result<[u8; 32], SourceError> {
        let content = self.content.clone();
        let digest = move || content.digest(bytes);
        let digest = self.pool.run(self.resource, DIGEST_TIME, digest);
        digest.unwrap_or(Err(NOT_ANSWERING))
    }
}

impl Content {
    /// Finds the parts of a file.
    fn read(file: File) -> Result<Self, SourceError> {
        let stamp = FileStamp::of(&file).ok_or(SourceError::Changed)?;
        let parts = find_parts(stamp.size, &file).ok_or(SourceError::Nothing)?;
        Ok(Self { file, stamp, parts })
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
        // After the bytes, so that these are of the stamp that is compared.
        if FileStamp::of(&self.file) == Some(self.stamp) {
            Ok(filled)
        } else {
            Err(SourceError::Changed)
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
