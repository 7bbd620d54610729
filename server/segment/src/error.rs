//! Errors of segments.

use std::fmt;
use std::io;

use crate::section::Section;

/// Bytes that are not as the format says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Why a chunk cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The read failed.
    Read(String),
    /// The checksum of its bytes differs from the footer's.
    Checksum,
    /// Its bytes are those that were written, but not as the format says.
    Malformed(&'static str),
}

/// A chunk that cannot be used. Everything that does not need it can still be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Damage {
    /// The section that it is in.
    pub section: Section,
    /// Its position in the section.
    pub chunk: u32,
    /// Why it cannot be used.
    pub cause: Cause,
}

impl Damage {
    /// Whether the bytes are wrong. Else a read failed, and may succeed later.
    pub fn is_lasting(&self) -> bool {
        !matches!(self.cause, Cause::Read(_))
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunk {} of section {} ", self.chunk, self.section)?;
        match &self.cause {
            Cause::Read(error) => write!(f, "cannot be read: {error}"),
            Cause::Checksum => f.write_str("has a wrong checksum"),
            Cause::Malformed(what) => write!(f, "is malformed: {what}"),
        }
    }
}

/// Why a segment cannot be opened, written or merged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("failed to read: {0}")]
    Read(#[source] io::Error),
    /// The output cannot be written.
    #[error("failed to write: {0}")]
    Write(#[source] io::Error),
    /// The file is not a segment, or its end is missing or damaged.
    #[error("not a whole segment: {0}")]
    NotASegment(&'static str),
    /// The file is a segment of another version of the format.
    #[error("a segment of format version {found}, and this server reads version {known}")]
    Version {
        /// The file's version.
        found: u32,
        /// The version of this crate.
        known: u32,
    },
    /// A chunk is damaged.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// A chunk of one of the segments that are merged is damaged.
    #[error("input {input}: {damage}")]
    Input {
        /// Position of the segment.
        input: usize,
        /// The damaged chunk.
        damage: Damage,
    },
    /// A segment differs from the windows that it was made from.
    #[error("not what the segment was made from: {0} differs")]
    Differs(String),
    /// A window has more than the format can hold.
    #[error("too large for a segment: {0}")]
    TooLarge(&'static str),
}

/// The readable part of an answer, and the damaged chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partial<T> {
    /// The readable part.
    pub value: T,
    /// The damaged chunks, whose contents are missing in the value.
    pub damage: Vec<Damage>,
}

impl<T> Partial<T> {
    /// The value, if nothing is missing.
    ///
    /// # Errors
    /// The first damage.
    pub fn whole(self) -> Result<T, Damage> {
        match self.damage.into_iter().next() {
            None => Ok(self.value),
            Some(damage) => Err(damage),
        }
    }
}
