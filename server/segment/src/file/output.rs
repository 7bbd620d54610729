//! A segment being written: chunk after chunk, then the footer.

use std::io::Write;

use crate::chunk::EncodedChunk;
use crate::error::Error;
use crate::file::footer::{self, Chunk, HEADER, Summary};
use crate::section::Section;

/// Writes chunks and remembers where they are.
pub(crate) struct Output<W> {
    out: W,
    offset: u64,
    sections: Vec<(Section, Vec<Chunk>)>,
}

impl<W: Write> Output<W> {
    pub(crate) fn new(mut out: W) -> Result<Self, Error> {
        out.write_all(&HEADER).map_err(Error::Write)?;
        Ok(Self {
            out,
            offset: HEADER.len() as u64,
            sections: Vec::new(),
        })
    }

    /// Writes a chunk. The chunks of a section follow each other.
    pub(crate) fn put(&mut self, section: Section, chunk: &EncodedChunk) -> Result<(), Error> {
        let EncodedChunk {
            bytes,
            first,
            items,
        } = chunk;
        let (first, items) = (*first, *items);
        let length = u32::try_from(bytes.len()).map_err(|_| Error::TooLarge("a chunk"))?;
        if self
            .sections
            .last()
            .is_none_or(|(last, _)| *last != section)
        {
            debug_assert!(self.sections.iter().all(|(before, _)| *before != section));
            self.sections.push((section, Vec::new()));
        }
        let chunk = Chunk {
            offset: self.offset,
            length,
            crc: crc32c::crc32c(bytes),
            first,
            items,
        };
        if let Some((_, chunks)) = self.sections.last_mut() {
            chunks.push(chunk);
        }
        self.offset += u64::from(length);
        self.out.write_all(bytes).map_err(Error::Write)
    }

    /// Writes the footer. Returns the length of the file.
    pub(crate) fn finish(mut self, summary: &Summary) -> Result<u64, Error> {
        let footer = footer::encode(summary, &self.sections);
        self.out.write_all(&footer).map_err(Error::Write)?;
        self.out.flush().map_err(Error::Write)?;
        Ok(self.offset + footer.len() as u64)
    }
}
