//! The callees of a segment, read when the tree needs them.

use crate::chunk::callees::{CHUNK_CALLERS, CalleeSource, Callees};
use crate::error::{Damage, Malformed};
use crate::read::{Scratch, Segment};
use crate::read_at::ReadAt;
use crate::section::Section;

/// The chunks of callees that were needed so far.
pub(crate) struct CalleeCache<'a, R> {
    segment: &'a Segment<R>,
    scratch: Scratch,
    chunks: Vec<Option<Callees>>,
}

impl<'a, R> CalleeCache<'a, R> {
    pub(crate) fn new(segment: &'a Segment<R>) -> Self {
        let chunks = segment.chunks(Section::Callees).len();
        Self {
            segment,
            scratch: Scratch::default(),
            chunks: vec![None; chunks],
        }
    }
}

impl<R: ReadAt> CalleeSource for CalleeCache<'_, R> {
    #[inline]
    fn callees(&mut self, caller: u32) -> Result<&[u32], Damage> {
        let (number, position) = (
            caller as usize / CHUNK_CALLERS,
            caller as usize % CHUNK_CALLERS,
        );
        if self.chunks[number].is_none() {
            self.read(number)?;
        }
        Ok(self.chunks[number]
            .as_ref()
            .map_or(&[], |chunk| chunk.of(position)))
    }
}

impl<R: ReadAt> CalleeCache<'_, R> {
    #[cold]
    fn read(&mut self, number: usize) -> Result<(), Damage> {
        let last = self.chunks.len() - 1;
        let counts = (
            self.segment.count(Section::Locations),
            self.segment.count(Section::Tree),
        );
        let read = self.segment.read(
            Section::Callees,
            number,
            &mut self.scratch,
            |bytes, chunk, unpacker| {
                // So that a caller's chunk can be computed.
                if number < last && chunk.items as usize != CHUNK_CALLERS {
                    return Err(Malformed("a chunk of callees is not full"));
                }
                Callees::decode(bytes, chunk.first, chunk.items as usize, counts, unpacker)
            },
        )?;
        self.chunks[number] = Some(read);
        Ok(())
    }
}
