//! Numbers and strings as bytes: little-endian base 128, zigzag for signed numbers. Pure.

#[cfg(any(test, feature = "test-support"))]
use model::tables::StringId;
use model::tables::Tables;

/// Bytes that cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged record: {0}")]
pub struct Damaged(pub &'static str);

/// Collects encoded columns.
#[cfg(any(test, feature = "test-support"))]
#[derive(Default)]
pub struct ColumnWriter {
    bytes: Vec<u8>,
}

#[cfg(any(test, feature = "test-support"))]
impl ColumnWriter {
    /// The encoded bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Writes a number in 1 to 10 bytes.
    pub fn put(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    /// Writes a number that may be negative.
    pub fn put_signed(&mut self, number: i64) {
        self.put((number << 1 ^ number >> 63) as u64);
    }

    /// Writes bytes as they are.
    pub fn put_raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes a string and its length.
    pub fn put_text(&mut self, text: &str) {
        self.put(text.len() as u64);
        self.put_raw(text.as_bytes());
    }

    /// Writes a column of numbers.
    pub fn put_column(&mut self, numbers: impl Iterator<Item = u64>) {
        numbers.for_each(|number| self.put(number));
    }

    /// Writes a column as differences from one number to the next.
    pub fn put_deltas(&mut self, numbers: impl Iterator<Item = u64>) {
        let mut before = 0_u64;
        for number in numbers {
            self.put_signed(number.wrapping_sub(before) as i64);
            before = number;
        }
    }
}

/// Reads encoded columns, and never beyond their end.
pub struct ColumnReader<'a> {
    rest: &'a [u8],
}

impl<'a> ColumnReader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Reads a number.
    ///
    /// # Errors
    /// The bytes end, or the number has more than 64 bits.
    pub fn take(&mut self) -> Result<u64, Damaged> {
        // Most numbers are differences of a few units.
        if let Some((first @ ..0x80, rest)) = self.rest.split_first() {
            self.rest = rest;
            return Ok(u64::from(*first));
        }
        let mut number = 0_u64;
        for (at, byte) in self.rest.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if at == 9 && bits > 1 {
                break;
            }
            number |= bits << (7 * at);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Ok(number);
            }
        }
        Err(Damaged("a number has no end"))
    }

    /// Reads a number that may be negative.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn take_signed(&mut self) -> Result<i64, Damaged> {
        let number = self.take()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// Reads a number of entries. Each takes a byte or more, so a wrong count cannot ask for more memory than there
    /// are bytes.
    ///
    /// # Errors
    /// There are fewer bytes than entries.
    pub fn take_count(&mut self) -> Result<usize, Damaged> {
        let count = self.take()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.rest.len() => Ok(count),
            _ => Err(Damaged("a count is larger than the rest")),
        }
    }

    /// Reads a list: the number of entries, then each.
    ///
    /// # Errors
    /// As [`Self::take_count`], or an entry is wrong.
    pub fn take_list<T, L: FromIterator<T>>(
        &mut self,
        mut take_entry: impl FnMut(&mut Self) -> Result<T, Damaged>,
    ) -> Result<L, Damaged> {
        let count = self.take_count()?;
        (0..count).map(|_| take_entry(self)).collect()
    }

    /// Reads bytes as they are.
    ///
    /// # Errors
    /// There are fewer.
    pub fn take_raw(&mut self, length: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(Damaged("the bytes end too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// Reads a string and its length.
    ///
    /// # Errors
    /// There are fewer bytes, or they are not UTF-8.
    pub fn take_text(&mut self) -> Result<&'a str, Damaged> {
        let length = self.take_count()?;
        std::str::from_utf8(self.take_raw(length)?).map_err(|_| Damaged("a text is not UTF-8"))
    }

    /// Reads a column of numbers.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn take_column(&mut self, count: usize) -> Result<Vec<u64>, Damaged> {
        (0..count).map(|_| self.take()).collect()
    }

    /// Reads a column of numbers that each must be smaller than `bound`.
    ///
    /// # Errors
    /// As [`Self::take`], or a number is not smaller.
    pub fn take_references(&mut self, count: usize, bound: usize) -> Result<Vec<u32>, Damaged> {
        let mut column = Vec::with_capacity(count);
        for _ in 0..count {
            column.push(check_reference(self.take()?, bound)?);
        }
        Ok(column)
    }

    /// Reads a column of differences, each result smaller than `bound`.
    ///
    /// # Errors
    /// As [`Self::take`], or a number is not smaller.
    pub fn take_delta_references(
        &mut self,
        count: usize,
        bound: usize,
    ) -> Result<Vec<u32>, Damaged> {
        let mut column = Vec::with_capacity(count);
        let mut before = 0_u64;
        for _ in 0..count {
            before = before.wrapping_add(self.take_signed()? as u64);
            column.push(check_reference(before, bound)?);
        }
        Ok(column)
    }

    /// Reads a column of differences.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn take_deltas(&mut self, count: usize) -> Result<Vec<u64>, Damaged> {
        let mut before = 0_u64;
        let mut next = || {
            before = before.wrapping_add(self.take_signed()? as u64);
            Ok(before)
        };
        (0..count).map(|_| next()).collect()
    }

    /// Reads strings that were written by [`put_strings`] into empty tables.
    ///
    /// # Errors
    /// There are fewer bytes, or they are not UTF-8.
    pub fn take_strings(&mut self, into: &mut Tables) -> Result<(), Damaged> {
        let count = self.take_count()?;
        let lengths = self.take_column(count)?;
        let length = lengths
            .iter()
            .try_fold(0_u64, |sum, length| sum.checked_add(*length));
        let length = length.and_then(|length| usize::try_from(length).ok());
        let length = length.ok_or(Damaged("the texts are too long"))?;
        // Checked as a whole, which is several times as fast as one by one.
        let mut rest = std::str::from_utf8(self.take_raw(length)?)
            .map_err(|_| Damaged("a text is not UTF-8"))?;
        for length in lengths {
            let (text, after) = rest
                .split_at_checked(length as usize)
                .ok_or(Damaged("a text is not UTF-8"))?;
            into.push_string(text);
            rest = after;
        }
        Ok(())
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// Something is left.
    pub fn finish(self) -> Result<(), Damaged> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Damaged("bytes are left over"))
        }
    }
}

/// Writes the strings of tables: all lengths, then all text, which compresses better than a mixture.
#[cfg(any(test, feature = "test-support"))]
pub fn put_strings(writer: &mut ColumnWriter, tables: &Tables) {
    let texts = || (1..tables.string_count() as u32).map(|n| tables.string(StringId(n)));
    writer.put(tables.string_count() as u64 - 1);
    writer.put_column(texts().map(|text| text.len() as u64));
    texts().for_each(|text| writer.put_raw(text.as_bytes()));
}

fn check_reference(number: u64, bound: usize) -> Result<u32, Damaged> {
    match u32::try_from(number) {
        Ok(small) if (small as usize) < bound => Ok(small),
        _ => Err(Damaged("a reference points outside its table")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let numbers = [
            0,
            1,
            127,
            128,
            300,
            u64::from(u32::MAX),
            1 << 62,
            u64::MAX - 1,
            u64::MAX,
        ];
        let signed = [0, -1, 1, i64::MIN, i64::MAX, -300];
        let mut writer = ColumnWriter::default();
        writer.put_column(numbers.into_iter());
        writer.put_deltas(numbers.into_iter());
        signed
            .into_iter()
            .for_each(|number| writer.put_signed(number));
        writer.put_text("näme");
        let bytes = writer.into_bytes();
        let mut reader = ColumnReader::new(&bytes);
        assert_eq!(reader.take_column(numbers.len()).unwrap(), numbers);
        assert_eq!(reader.take_deltas(numbers.len()).unwrap(), numbers);
        assert!(
            signed
                .into_iter()
                .all(|number| reader.take_signed() == Ok(number))
        );
        assert_eq!(reader.take_text().unwrap(), "näme");
        reader.finish().unwrap();
    }

    #[test]
    fn invalid_numbers_are_refused() {
        let too_long = [0xff; 11];
        assert!(ColumnReader::new(&too_long).take().is_err());
        let too_large = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        assert!(ColumnReader::new(&too_large).take().is_err());
        assert!(ColumnReader::new(&[]).take().is_err());
        assert!(ColumnReader::new(&[5, 1]).take_count().is_err());
        assert!(ColumnReader::new(&[3]).take_references(1, 3).is_err());
        assert!(ColumnReader::new(&[2, 0xff, 0xfe]).take_text().is_err());
        assert!(ColumnReader::new(&[1]).finish().is_err());
    }
}
