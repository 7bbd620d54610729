//! Columns: numbers or text of one kind, packed together.
//!
//! A chunk is a series of single numbers and columns. A column of equal numbers takes two bytes, however long it is.

use crate::codec::varint::{self, Bytes, NUMBER_BYTES_MAX, unzigzag, zigzag};
use crate::error::Malformed;

/// All numbers are equal.
const CONSTANT: u8 = 0;
/// The bytes as they are.
const PLAIN: u8 = 1;
/// A zstd frame of the bytes.
const ZSTD: u8 = 2;

/// Follows each text; no UTF-8 has this byte. A column of lengths would take 5 % more than texts with ends.
const TEXT_END: u8 = 0xff;

/// Bytes that a column of text may have without regard to its packed length: [`TEXT_RATIO_MAX`] of 16 KiB.
const TEXT_BYTES_FREE: usize = 1 << 20;

/// A text that packs better is stored plain, so that a reader never needs more memory than this many times what it read. Symbols
/// pack 5 to 8 times.
const TEXT_RATIO_MAX: usize = 64;

/// A column of numbers being collected.
#[derive(Default)]
pub(crate) struct Column {
    bytes: Vec<u8>,
    count: usize,
    first: u64,
    differs: bool,
}

impl Column {
    #[inline]
    pub(crate) fn push(&mut self, number: u64) {
        if self.count == 0 {
            self.first = number;
        }
        self.differs |= number != self.first;
        self.count += 1;
        varint::put(&mut self.bytes, number);
    }

    #[inline]
    pub(crate) fn push_signed(&mut self, number: i64) {
        self.push(zigzag(number));
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        (self.count, self.first, self.differs) = (0, 0, false);
    }
}

/// Packs columns.
pub(crate) struct Packer {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    column: Column,
    packed: Vec<u8>,
}

impl Packer {
    /// A packer with a level of zstd.
    pub(crate) fn new(level: i32) -> Self {
        Self {
            // It fails when there is no memory; columns are stored plain then.
            compressor: zstd::bulk::Compressor::new(level).ok(),
            column: Column::default(),
            packed: Vec::new(),
        }
    }

    /// Writes a collected column, and empties it.
    pub(crate) fn put(&mut self, out: &mut Vec<u8>, column: &mut Column) {
        if column.differs {
            self.put_bytes(out, &column.bytes, usize::MAX);
        } else {
            out.push(CONSTANT);
            varint::put(out, column.first);
        }
        column.clear();
    }

    /// Writes a column of numbers.
    pub(crate) fn put_numbers(
        &mut self,
        out: &mut Vec<u8>,
        numbers: impl IntoIterator<Item = u64>,
    ) {
        let mut column = std::mem::take(&mut self.column);
        numbers.into_iter().for_each(|number| column.push(number));
        self.put(out, &mut column);
        self.column = column;
    }

    /// Writes a column of numbers of which any can be negative.
    pub(crate) fn put_signed(&mut self, out: &mut Vec<u8>, numbers: impl IntoIterator<Item = i64>) {
        self.put_numbers(out, numbers.into_iter().map(zigzag));
    }

    /// Writes a column of differences from one number to the next.
    pub(crate) fn put_deltas(&mut self, out: &mut Vec<u8>, numbers: impl IntoIterator<Item = u64>) {
        let mut before = 0_u64;
        let delta = |number: u64| {
            let delta = number.wrapping_sub(before) as i64;
            before = number;
            delta
        };
        self.put_signed(out, numbers.into_iter().map(delta));
    }

    /// Writes a column of texts.
    pub(crate) fn put_texts<'a>(
        &mut self,
        out: &mut Vec<u8>,
        texts: impl Iterator<Item = &'a str>,
    ) {
        let mut all = Vec::new();
        for text in texts {
            all.extend_from_slice(text.as_bytes());
            all.push(TEXT_END);
        }
        self.put_bytes(out, &all, TEXT_RATIO_MAX);
    }

    /// Writes a column of bytes that have no meaning here.
    pub(crate) fn put_raw(&mut self, out: &mut Vec<u8>, bytes: &[u8]) {
        self.put_bytes(out, bytes, usize::MAX);
    }

    fn put_bytes(&mut self, out: &mut Vec<u8>, bytes: &[u8], ratio_max: usize) {
        if let Some(packed_len) = self.pack(bytes)
            && packed_len < bytes.len()
            && (bytes.len() <= TEXT_BYTES_FREE || bytes.len() / packed_len < ratio_max)
        {
            out.push(ZSTD);
            varint::put(out, bytes.len() as u64);
            varint::put(out, packed_len as u64);
            out.extend_from_slice(&self.packed[..packed_len]);
        } else {
            out.push(PLAIN);
            varint::put(out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
    }

    fn pack(&mut self, bytes: &[u8]) -> Option<usize> {
        self.packed.clear();
        self.packed
            .reserve(zstd::zstd_safe::compress_bound(bytes.len()));
        self.compressor
            .as_mut()?
            .compress_to_buffer(bytes, &mut self.packed)
            .ok()
    }
}

/// Unpacks columns.
pub(crate) struct Unpacker {
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
}

impl Default for Unpacker {
    fn default() -> Self {
        Self {
            decompressor: zstd::bulk::Decompressor::new().ok(),
        }
    }
}

/// Reads the columns of a chunk.
pub(crate) struct ChunkReader<'a> {
    bytes: Bytes<'a>,
    unpacker: &'a mut Unpacker,
}

impl<'a> ChunkReader<'a> {
    pub(crate) fn new(bytes: &'a [u8], unpacker: &'a mut Unpacker) -> Self {
        Self {
            bytes: Bytes::new(bytes),
            unpacker,
        }
    }

    /// Reads a number of at most `max`.
    pub(crate) fn take_at_most(&mut self, max: usize) -> Result<usize, Malformed> {
        self.bytes.take_at_most(max)
    }

    /// Reads a column of at most `count_max` numbers.
    pub(crate) fn take_numbers(&mut self, count_max: usize) -> Result<Numbers, Malformed> {
        match self.take_byte()? {
            CONSTANT => Ok(Numbers::constant(self.bytes.take()?)),
            codec => {
                let bytes_max = count_max.saturating_mul(NUMBER_BYTES_MAX);
                let bytes = self.take_bytes(codec, |_| bytes_max)?;
                Ok(Numbers {
                    constant: None,
                    bytes,
                    at: 0,
                })
            }
        }
    }

    /// Reads a column of at most `bytes_max` bytes.
    pub(crate) fn take_raw(&mut self, bytes_max: usize) -> Result<Vec<u8>, Malformed> {
        let codec = self.take_byte()?;
        self.take_bytes(codec, |_| bytes_max)
    }

    /// Reads a column of `count` texts.
    pub(crate) fn take_texts(&mut self, count: usize) -> Result<Texts, Malformed> {
        let codec = self.take_byte()?;
        let bytes_max = |packed: usize| TEXT_BYTES_FREE.max(packed.saturating_mul(TEXT_RATIO_MAX));
        let bytes = self.take_bytes(codec, bytes_max)?;
        let mut text = Vec::with_capacity(bytes.len());
        let mut ends = Vec::new();
        let mut rest = &bytes[..];
        while let Some(length) = rest.iter().position(|byte| *byte == TEXT_END) {
            text.extend_from_slice(&rest[..length]);
            ends.push(text.len() as u32);
            rest = &rest[length + 1..];
        }
        if ends.len() != count || !rest.is_empty() || u32::try_from(bytes.len()).is_err() {
            return Err(Malformed("a column has another number of texts"));
        }
        // Checked as a whole, which is several times as fast as one by one.
        let text = String::from_utf8(text).map_err(|_| Malformed("a text is not UTF-8"))?;
        if !ends.iter().all(|end| text.is_char_boundary(*end as usize)) {
            return Err(Malformed("a text is not UTF-8"));
        }
        Ok(Texts { text, ends })
    }

    fn take_byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.bytes.take_array::<1>()?[0])
    }

    /// Reads the bytes of a column, at most as many as `bytes_max` says of their packed length.
    fn take_bytes(
        &mut self,
        codec: u8,
        bytes_max: impl Fn(usize) -> usize,
    ) -> Result<Vec<u8>, Malformed> {
        let length = self.bytes.take()?;
        let length = usize::try_from(length).map_err(|_| Malformed("a column is too long"))?;
        match codec {
            PLAIN => Ok(self.bytes.take_raw(length)?.to_vec()),
            ZSTD => {
                let packed_len = self.bytes.take_count()?;
                let packed = self.bytes.take_raw(packed_len)?;
                if length > bytes_max(packed_len) {
                    return Err(Malformed("a column is too long"));
                }
                let mut bytes = Vec::with_capacity(length);
                let decompressor = self.unpacker.decompressor.as_mut();
                let unpacked = decompressor
                    .ok_or(Malformed("zstd has no memory"))?
                    .decompress_to_buffer(packed, &mut bytes);
                match unpacked {
                    Ok(unpacked) if unpacked == length => Ok(bytes),
                    _ => Err(Malformed("a column does not unpack")),
                }
            }
            _ => Err(Malformed("a column has an unknown codec")),
        }
    }

    /// Checks that nothing is left.
    pub(crate) fn finish(self) -> Result<(), Malformed> {
        self.bytes.finish()
    }
}

/// A column of numbers, read from front to back.
#[derive(Default)]
pub(crate) struct Numbers {
    constant: Option<u64>,
    bytes: Vec<u8>,
    at: usize,
}

impl Numbers {
    pub(crate) fn constant(number: u64) -> Self {
        Self {
            constant: Some(number),
            bytes: Vec::new(),
            at: 0,
        }
    }

    /// The next number.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<u64, Malformed> {
        if let Some(number) = self.constant {
            return Ok(number);
        }
        match self.bytes.get(self.at) {
            Some(byte @ ..0x80) => {
                self.at += 1;
                Ok(u64::from(*byte))
            }
            _ => self.next_long(),
        }
    }

    fn next_long(&mut self) -> Result<u64, Malformed> {
        let rest = &self.bytes[self.at..];
        let mut from = Bytes::new(rest);
        let number = from.take()?;
        self.at = self.bytes.len() - from.len();
        Ok(number)
    }

    #[inline]
    pub(crate) fn next_signed(&mut self) -> Result<i64, Malformed> {
        Ok(unzigzag(self.next()?))
    }

    /// The next number, which must have at most 32 bits.
    #[inline]
    pub(crate) fn next_u32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.next()?).map_err(|_| Malformed("a number has more than 32 bits"))
    }

    /// The next number, which must be smaller than `bound`.
    #[inline]
    pub(crate) fn next_below(&mut self, bound: usize) -> Result<u32, Malformed> {
        check_below(self.next()?, bound)
    }

    /// The next number as difference to the one `before`; it must be smaller than `bound`.
    #[inline]
    pub(crate) fn next_delta_below(&mut self, before: u32, bound: usize) -> Result<u32, Malformed> {
        let number = u64::from(before).wrapping_add(self.next_signed()? as u64);
        check_below(number, bound)
    }

    /// The next number as distance from `next` on; the sum must be smaller than `bound`.
    #[inline]
    pub(crate) fn next_gap_below(&mut self, next: u32, bound: usize) -> Result<u32, Malformed> {
        check_below(u64::from(next).saturating_add(self.next()?), bound)
    }

    /// Shows the next `count` numbers.
    #[inline]
    pub(crate) fn take(
        &mut self,
        count: u32,
        mut visit: impl FnMut(u64) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        if let Some(number) = self.constant {
            return (0..count).try_for_each(|_| visit(number));
        }
        // In a register while it is in the loop.
        let mut at = self.at;
        for _ in 0..count {
            if let Some(byte @ ..0x80) = self.bytes.get(at) {
                at += 1;
                visit(u64::from(*byte))?;
            } else {
                self.at = at;
                visit(self.next_long()?)?;
                at = self.at;
            }
        }
        self.at = at;
        Ok(())
    }

    /// Whether all numbers are 0.
    pub(crate) fn is_zero(&self) -> bool {
        self.constant == Some(0)
    }

    /// Checks that all numbers were taken.
    pub(crate) fn finish(&self) -> Result<(), Malformed> {
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(Malformed("a column has more numbers than entries"))
        }
    }
}

/// A number as reference to one of `bound` entries.
pub(crate) fn check_below(number: u64, bound: usize) -> Result<u32, Malformed> {
    match u32::try_from(number) {
        Ok(small) if (small as usize) < bound => Ok(small),
        _ => Err(Malformed("a reference points outside its table")),
    }
}

/// Texts one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Texts {
    text: String,
    ends: Vec<u32>,
}

impl Texts {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn get(&self, position: usize) -> &str {
        let start = match position {
            0 => 0,
            _ => self.ends[position - 1] as usize,
        };
        &self.text[start..self.ends[position] as usize]
    }

    pub(crate) fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len() as u32);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        (0..self.len()).map(|position| self.get(position))
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.text.capacity() + 4 * self.ends.capacity()
    }
}
