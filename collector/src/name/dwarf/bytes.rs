//! Bytes of a file's section, which keep alive what they lie in. Nothing here is unsafe, and nothing is copied.

use std::borrow::Cow;
use std::fmt;

use gimli::{Error, LittleEndian, Reader, ReaderOffsetId, Result};
use symbolic_common::ByteView;

/// Part of a mapped file, or of an unpacked section.
#[derive(Clone)]
pub(super) struct Bytes {
    whole: ByteView<'static>,
    start: usize,
    end: usize,
}

impl Bytes {
    /// The part of `whole` from `start` on, `len` bytes long; empty if that is not within it.
    pub(super) fn new(whole: ByteView<'static>, start: usize, len: usize) -> Self {
        let end = start.checked_add(len).filter(|it| *it <= whole.len());
        let (start, end) = end.map_or((0, 0), |end| (start, end));
        Self { whole, start, end }
    }

    /// No bytes.
    pub(super) fn none() -> Self {
        Self::new(ByteView::from_slice(b""), 0, 0)
    }

    fn slice(&self) -> &[u8] {
        self.whole.get(self.start..self.end).unwrap_or_default()
    }

    fn too_short(&self) -> Error {
        Error::UnexpectedEof(self.offset_id())
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Bytes({}..{})", self.start, self.end)
    }
}

impl Reader for Bytes {
    type Endian = LittleEndian;
    type Offset = usize;

    fn endian(&self) -> LittleEndian {
        LittleEndian
    }

    fn len(&self) -> usize {
        self.end - self.start
    }

    fn empty(&mut self) {
        self.end = self.start;
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        if len > self.len() {
            return Err(self.too_short());
        }
        self.end = self.start + len;
        Ok(())
    }

    fn offset_from(&self, base: &Self) -> usize {
        self.start.saturating_sub(base.start)
    }

    fn offset_id(&self) -> ReaderOffsetId {
        ReaderOffsetId(self.start as u64)
    }

    fn lookup_offset_id(&self, id: ReaderOffsetId) -> Option<usize> {
        let offset = usize::try_from(id.0).ok()?.checked_sub(self.start)?;
        (offset <= self.len()).then_some(offset)
    }

    fn find(&self, byte: u8) -> Result<usize> {
        let found = self.slice().iter().position(|it| *it == byte);
        found.ok_or_else(|| self.too_short())
    }

    fn skip(&mut self, len: usize) -> Result<()> {
        if len > self.len() {
            return Err(self.too_short());
        }
        self.start += len;
        Ok(())
    }

    fn split(&mut self, len: usize) -> Result<Self> {
        let mut head = self.clone();
        head.truncate(len)?;
        self.start += len;
        Ok(head)
    }

    fn to_slice(&self) -> Result<Cow<'_, [u8]>> {
        Ok(self.slice().into())
    }

    fn to_string(&self) -> Result<Cow<'_, str>> {
        let text = std::str::from_utf8(self.slice());
        text.map(Cow::from).map_err(|_| Error::BadUtf8)
    }

    fn to_string_lossy(&self) -> Result<Cow<'_, str>> {
        Ok(String::from_utf8_lossy(self.slice()))
    }

    fn read_slice(&mut self, buffer: &mut [u8]) -> Result<()> {
        let bytes = self.slice().get(..buffer.len());
        buffer.copy_from_slice(bytes.ok_or_else(|| self.too_short())?);
        self.start += buffer.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that what lies outside is never given, and that reading goes on where it stopped.
    #[test]
    fn nothing_outside_is_read() {
        let whole = || ByteView::from_slice(b"\x01\x02\x03ab\0cd");
        for (start, len) in [(0, 9), (8, 1), (9, 0), (1, usize::MAX)] {
            assert!(Bytes::new(whole(), start, len).is_empty(), "{start} {len}");
        }
        let section = Bytes::new(whole(), 1, 5);
        let mut rest = section.clone();
        assert_eq!(rest.read_u16(), Ok(0x0302));
        assert_eq!(rest.offset_from(&section), 2);
        assert_eq!(rest.lookup_offset_id(rest.offset_id()), Some(0));
        let end = rest.find(0).unwrap();
        let text = rest.split(end).unwrap();
        assert_eq!(text.to_string().unwrap(), "ab");
        assert_eq!((rest.len(), rest.read_u8()), (1, Ok(0)));
        assert!(rest.read_u8().is_err() && rest.skip(1).is_err());
        assert!(rest.truncate(1).is_err() && rest.find(0).is_err());
        rest.empty();
        assert!(rest.is_empty() && Bytes::none().is_empty());
    }
}
