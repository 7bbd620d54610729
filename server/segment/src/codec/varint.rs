//! Numbers as bytes: little-endian base 128 in 1 to 10 bytes, zigzag for signed numbers.

use crate::error::Malformed;

/// Bytes that a number takes at most: 64 bits, 7 in each.
pub(crate) const NUMBER_BYTES_MAX: usize = 10;

pub(crate) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Maps numbers near 0 to small ones: 0, -1, 1, -2, 2 become 0, 1, 2, 3, 4.
pub(crate) fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

/// The reverse of [`zigzag`].
pub(crate) fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// Reads bytes from front to back.
pub(crate) struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Reads a number.
    #[inline]
    pub(crate) fn take(&mut self) -> Result<u64, Malformed> {
        // Most numbers are differences of a few units.
        if let Some((first @ ..0x80, rest)) = self.rest.split_first() {
            self.rest = rest;
            return Ok(u64::from(*first));
        }
        self.take_long()
    }

    fn take_long(&mut self) -> Result<u64, Malformed> {
        let mut number = 0_u64;
        for (at, byte) in self.rest.iter().enumerate().take(NUMBER_BYTES_MAX) {
            let bits = u64::from(byte & 0x7f);
            if at == NUMBER_BYTES_MAX - 1 && bits > 1 {
                break;
            }
            number |= bits << (7 * at);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Ok(number);
            }
        }
        Err(Malformed("a number has no end"))
    }

    /// Reads a number of at most `max`.
    pub(crate) fn take_at_most(&mut self, max: usize) -> Result<usize, Malformed> {
        match usize::try_from(self.take()?) {
            Ok(number) if number <= max => Ok(number),
            _ => Err(Malformed("a number is larger than its limit")),
        }
    }

    /// Reads a number of entries that take at least one byte each, so that it cannot ask for more memory than in proportion to
    /// the bytes.
    pub(crate) fn take_count(&mut self) -> Result<usize, Malformed> {
        self.take_at_most(self.rest.len())
    }

    /// Reads bytes as they are.
    pub(crate) fn take_raw(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(Malformed("the bytes end too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// Reads an array of bytes as they are.
    pub(crate) fn take_array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(Malformed("the bytes end too early"))?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Bytes that are left.
    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    /// Checks that nothing is left.
    pub(crate) fn finish(self) -> Result<(), Malformed> {
        match self.rest {
            [] => Ok(()),
            _ => Err(Malformed("bytes are left over")),
        }
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
            1 << 32,
            1 << 62,
            u64::MAX - 1,
            u64::MAX,
        ];
        let mut bytes = Vec::new();
        for number in numbers {
            put(&mut bytes, number);
        }
        let mut from = Bytes::new(&bytes);
        for number in numbers {
            assert_eq!(from.take().unwrap(), number);
        }
        from.finish().unwrap();
        for number in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(number)), number);
        }
        assert_eq!([0, -1, 1, -2].map(zigzag), [0, 1, 2, 3]);
    }

    #[test]
    fn malformed_numbers_are_refused() {
        assert!(Bytes::new(&[0xff; 11]).take().is_err());
        let too_large = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        assert!(Bytes::new(&too_large).take().is_err());
        assert!(Bytes::new(&[]).take().is_err());
        assert!(Bytes::new(&[0x80]).take().is_err());
        assert!(Bytes::new(&[5, 1]).take_count().is_err());
        assert!(Bytes::new(&[1]).finish().is_err());
    }
}
