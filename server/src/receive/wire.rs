//! Protobuf's wire format, for counting before a message is decoded. Pure.
//!
//! A decoder allocates for each entry of a repeated field. An entry takes two bytes on the wire and up to two hundred in
//! memory, so entries are counted first, in memory that does not grow with the message.

use std::io::{self, BufRead};

/// Why a walk over a message failed.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The bytes are not a message.
    #[error("not a protobuf message: {0}")]
    Malformed(&'static str),
    /// The source of the bytes failed.
    #[error(transparent)]
    Source(#[from] io::Error),
}

/// The value after a field's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Number(u64),
    /// This many bytes, which come next.
    Bytes(u64),
    /// A number of 4 or 8 bytes, which was skipped.
    Fixed,
}

/// Walks the fields of a message.
pub struct Wire<R> {
    from: R,
    left: u64,
}

/// Bytes of the enclosing message after the one that was entered.
#[must_use]
pub struct Outer(u64);

impl<R: BufRead> Wire<R> {
    /// A walk over a message of `bytes` bytes.
    pub fn new(from: R, bytes: u64) -> Self {
        Self { from, left: bytes }
    }

    /// The next field; `None` at the end of the message.
    ///
    /// # Errors
    /// The bytes are not a message, or their source failed.
    pub fn next_field(&mut self) -> Result<Option<(u32, Value)>, WireError> {
        if self.left == 0 {
            return Ok(None);
        }
        let key = self.take_number()?;
        let field = u32::try_from(key >> 3).unwrap_or(0);
        if field == 0 {
            return Err(WireError::Malformed("a field has no number"));
        }
        let value = match key & 7 {
            0 => Value::Number(self.take_number()?),
            1 => self.skip(8).map(|()| Value::Fixed)?,
            2 => {
                let bytes = self.take_number()?;
                if bytes > self.left {
                    return Err(WireError::Malformed("a field is longer than its message"));
                }
                Value::Bytes(bytes)
            }
            5 => self.skip(4).map(|()| Value::Fixed)?,
            _ => return Err(WireError::Malformed("a field has no known type")),
        };
        Ok(Some((field, value)))
    }

    /// Enters the message that comes next.
    pub fn enter(&mut self, bytes: u64) -> Outer {
        let outer = Outer(self.left - bytes);
        self.left = bytes;
        outer
    }

    /// Returns to the enclosing message, at the end of the entered one.
    pub fn leave(&mut self, outer: Outer) {
        self.left = outer.0;
    }

    /// Whether the source is at its end.
    ///
    /// # Errors
    /// The source failed.
    pub fn is_at_end_of_source(&mut self) -> io::Result<bool> {
        Ok(self.from.fill_buf()?.is_empty())
    }

    /// Skips bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn skip(&mut self, bytes: u64) -> Result<(), WireError> {
        self.each_chunk(bytes, |_| ())
    }

    /// Reads bytes in place of what is in `out`.
    ///
    /// # Errors
    /// There are fewer.
    pub fn read(&mut self, bytes: u64, out: &mut Vec<u8>) -> Result<(), WireError> {
        out.clear();
        self.each_chunk(bytes, |chunk| out.extend_from_slice(chunk))
    }

    /// Counts packed numbers: each ends with a byte below 0x80.
    ///
    /// # Errors
    /// There are fewer bytes.
    pub fn count_numbers(&mut self, bytes: u64) -> Result<u64, WireError> {
        let mut count = 0;
        self.each_chunk(bytes, |chunk| {
            count += chunk.iter().filter(|byte| **byte < 0x80).count() as u64;
        })?;
        Ok(count)
    }

    fn each_chunk(&mut self, mut bytes: u64, mut each: impl FnMut(&[u8])) -> Result<(), WireError> {
        if bytes > self.left {
            return Err(WireError::Malformed("a field is longer than its message"));
        }
        self.left -= bytes;
        while bytes > 0 {
            let chunk = self.from.fill_buf()?;
            if chunk.is_empty() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let length = chunk
                .len()
                .min(usize::try_from(bytes).unwrap_or(usize::MAX));
            each(&chunk[..length]);
            self.from.consume(length);
            bytes -= length as u64;
        }
        Ok(())
    }

    fn take_number(&mut self) -> Result<u64, WireError> {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let chunk = self.from.fill_buf()?;
        let chunk = &chunk[..chunk.len().min(left)];
        if let Some((number, length)) = decode_number(chunk) {
            self.from.consume(length);
            self.left -= length as u64;
            return Ok(number);
        }
        // It may go on in the next chunk.
        let mut bytes = [0; NUMBER_BYTES_MAX];
        for at in 0..NUMBER_BYTES_MAX {
            if self.left == 0 {
                break;
            }
            self.each_chunk(1, |chunk| bytes[at] = chunk[0])?;
            if let Some((number, _)) = decode_number(&bytes[..=at]) {
                return Ok(number);
            }
        }
        Err(WireError::Malformed("a number has no end"))
    }
}

/// 64 bits, seven a byte.
const NUMBER_BYTES_MAX: usize = 10;

/// The number in base 128 that bytes begin with, and its length; `None` if it does not end, or has more than 64 bits.
#[inline]
pub fn decode_number(bytes: &[u8]) -> Option<(u64, usize)> {
    // Nearly all keys, lengths and ids have one or two bytes.
    match *bytes {
        [byte @ ..0x80, ..] => return Some((byte.into(), 1)),
        [low, high @ ..0x80, ..] => {
            return Some((u64::from(low & 0x7f) | u64::from(high) << 7, 2));
        }
        _ => {}
    }
    let mut number = 0;
    for (at, byte) in bytes.iter().take(NUMBER_BYTES_MAX).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if *byte < 0x80 {
            let is_whole = at + 1 < NUMBER_BYTES_MAX || *byte < 2;
            return is_whole.then_some((number, at + 1));
        }
    }
    None
}

/// Appends a number in base 128, as keys and lengths are written.
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The fields of a message whose entries are counted.
#[derive(Debug)]
pub struct Schema(pub &'static [Field]);

/// A field that is counted, or contains one.
#[derive(Debug)]
pub struct Field {
    /// Its number.
    pub number: u32,
    /// The place of its count; `None` for a field that is not repeated.
    pub place: Option<usize>,
    /// Type of its entries.
    pub content: Content,
}

/// Type of entries.
#[derive(Debug)]
pub enum Content {
    /// A number; several of them may be packed together.
    Number,
    /// A string, or a message that has no repeated fields.
    Bytes,
    /// A message.
    Message(&'static Schema),
}

/// Counts the entries of each repeated field, also of those in nested messages, and adds them to `counts` at their places.
///
/// # Errors
/// The bytes are not a message, or their source failed.
pub fn count_entries<R: BufRead>(
    wire: &mut Wire<R>,
    schema: &Schema,
    counts: &mut [u64],
) -> Result<(), WireError> {
    while let Some((number, value)) = wire.next_field()? {
        let field = schema.0.iter().find(|field| field.number == number);
        let mut entries = 1;
        match (value, field.map(|field| &field.content)) {
            (Value::Number(_) | Value::Fixed, _) => {}
            (Value::Bytes(bytes), Some(Content::Number)) => entries = wire.count_numbers(bytes)?,
            (Value::Bytes(bytes), Some(Content::Message(inner))) => {
                let outer = wire.enter(bytes);
                count_entries(wire, inner, counts)?;
                wire.leave(outer);
            }
            (Value::Bytes(bytes), Some(Content::Bytes) | None) => wire.skip(bytes)?,
        }
        if let Some(place) = field.and_then(|field| field.place) {
            counts[place] += entries;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1;

    use crate::receive::entries::{PUSH, PushPlace};

    fn count(bytes: &[u8]) -> Result<Vec<u64>, WireError> {
        let mut counts = vec![0; PUSH.fields.len()];
        count_entries(
            &mut Wire::new(bytes, bytes.len() as u64),
            PUSH.schema,
            &mut counts,
        )?;
        Ok(counts)
    }

    /// Check that the counts are those of the decoded message, packed numbers and nested messages included.
    #[test]
    fn entries_are_counted_as_a_decoder_makes_them() {
        let set = |labels| v1::LabelSet {
            labels: vec![v1::Label::default(); labels],
        };
        let request = v1::PushRequest {
            series: vec![set(0), set(3), set(4)],
            unnamed_location_ids: vec![1, 300, u64::MAX],
            unnamed_reasons: vec![1, -1, 3],
            account: Some(v1::WindowAccount {
                dropped: vec![Default::default(); 5],
                ..Default::default()
            }),
            ..Default::default()
        };
        let counts = count(&prost::Message::encode_to_vec(&request)).unwrap();
        let expected = [
            (PushPlace::Series, 3),
            (PushPlace::Labels, 7),
            (PushPlace::UnnamedLocationIds, 3),
            (PushPlace::UnnamedReasons, 3),
            (PushPlace::Dropped, 5),
            (PushPlace::FileLayouts, 0),
        ];
        for (place, count) in expected {
            assert_eq!(counts[place as usize], count, "{place:?}");
        }
        // Numbers need not be packed.
        assert_eq!(
            count(&[0x50, 7, 0x50, 8]).unwrap()[PushPlace::UnnamedLocationIds as usize],
            2
        );
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        for bytes in [
            &[0x00, 1][..],
            &[0x07, 1],
            &[0x0b],
            &[0x32],
            &[0x32, 2, 0],
            &[0x08, 0xff],
            &[0x09, 1, 2, 3],
            &[0x32, 2, 0x0a, 5],
            &[0xff; 11],
        ] {
            let err = count(bytes).unwrap_err();
            assert!(matches!(err, WireError::Malformed(_)), "{bytes:x?}: {err}");
        }
    }
}
