//! Columns of numbers, side by side.

use crate::codec::varint::{self, Bytes, unzigzag, zigzag};
use crate::error::Malformed;

/// Writes columns, each with its length.
pub(super) fn put_columns<const N: usize>(out: &mut Vec<u8>, columns: [Vec<u8>; N]) {
    for column in columns {
        varint::put(out, column.len() as u64);
        out.extend_from_slice(&column);
    }
}

/// Reads columns.
pub(super) fn take_columns<'a, const N: usize>(
    from: &mut Bytes<'a>,
) -> Result<[Bytes<'a>; N], Malformed> {
    let mut columns = [(); N].map(|()| Bytes::new(&[]));
    for column in &mut columns {
        let length = from.take_count()?;
        *column = Bytes::new(from.take_raw(length)?);
    }
    Ok(columns)
}

/// Checks that nothing is left of columns.
pub(super) fn finish<const N: usize>(columns: [Bytes<'_>; N]) -> Result<(), Malformed> {
    columns.into_iter().try_for_each(Bytes::finish)
}

pub(super) fn put_signed(column: &mut Vec<u8>, number: i64) {
    varint::put(column, zigzag(number));
}

pub(super) fn take_signed(column: &mut Bytes<'_>) -> Result<i64, Malformed> {
    Ok(unzigzag(column.take()?))
}

pub(super) fn take_u32(column: &mut Bytes<'_>) -> Result<u32, Malformed> {
    u32::try_from(column.take()?).map_err(|_| Malformed("a number has more than 32 bits"))
}

/// Numbers of which each is coded as the difference to the one before, modulo 2^64.
#[derive(Clone, Default)]
pub(super) struct Deltas {
    before: u64,
}

impl Deltas {
    pub(super) fn put(&mut self, column: &mut Vec<u8>, number: u64) {
        put_signed(column, number.wrapping_sub(self.before) as i64);
        self.before = number;
    }

    pub(super) fn take(&mut self, column: &mut Bytes<'_>) -> Result<u64, Malformed> {
        self.before = self.before.wrapping_add(take_signed(column)? as u64);
        Ok(self.before)
    }

    /// Reads a number below `bound`.
    pub(super) fn take_below(
        &mut self,
        column: &mut Bytes<'_>,
        bound: u32,
    ) -> Result<u32, Malformed> {
        let number = self.take(column)?;
        check_below(number, bound)
    }
}

/// A number as that of an entry of `bound`.
pub(super) fn check_below(number: u64, bound: u32) -> Result<u32, Malformed> {
    match u32::try_from(number) {
        Ok(number) if number < bound => Ok(number),
        _ => Err(Malformed("a number refers to nothing")),
    }
}

/// Codes the numbers of entries, of which many are used for the first time and in their order: those are 0, others their distance to the
/// next new one.
pub(super) struct FirstUses {
    next: u32,
}

impl FirstUses {
    /// `next` is the first new entry.
    pub(super) fn new(next: u32) -> Self {
        Self { next }
    }

    pub(super) fn code(&mut self, number: u32) -> u64 {
        let distance = i64::from(self.next) - i64::from(number);
        self.next = self.next.max(number.wrapping_add(1));
        zigzag(distance)
    }

    /// The number of a code, below `bound`.
    pub(super) fn number(&mut self, code: u64, bound: u32) -> Result<u32, Malformed> {
        let number = i64::from(self.next).wrapping_sub(unzigzag(code));
        let number = check_below(number as u64, bound)?;
        self.next = self.next.max(number + 1);
        Ok(number)
    }

    pub(super) fn put(&mut self, column: &mut Vec<u8>, number: u32) {
        varint::put(column, self.code(number));
    }

    pub(super) fn take(&mut self, column: &mut Bytes<'_>, bound: u32) -> Result<u32, Malformed> {
        self.number(column.take()?, bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let numbers = [5, 6, 7, 2, 8, 0, 12, 11, 13, u32::MAX - 1];
        let (mut first, mut deltas) = (Vec::new(), Vec::new());
        let (mut uses, mut differences) = (FirstUses::new(5), Deltas::default());
        for number in numbers {
            uses.put(&mut first, number);
            differences.put(&mut deltas, u64::from(number));
        }
        assert_eq!(first[..3], [0, 0, 0]);
        let mut out = Vec::new();
        put_columns(&mut out, [first, deltas]);
        let mut from = Bytes::new(&out);
        let [mut first, mut deltas] = take_columns(&mut from).unwrap();
        let (mut uses, mut differences) = (FirstUses::new(5), Deltas::default());
        for number in numbers {
            assert_eq!(uses.take(&mut first, u32::MAX).unwrap(), number);
            assert_eq!(
                differences.take_below(&mut deltas, u32::MAX).unwrap(),
                number
            );
        }
        finish([first, deltas]).unwrap();
        assert!(FirstUses::new(5).number(zigzag(6), 5).is_err());
        assert!(FirstUses::new(5).number(0, 5).is_err());
        assert!(FirstUses::new(5).number(u64::MAX, 5).is_err());
    }
}
