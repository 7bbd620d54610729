//! Scans a message in memory: its fields are numbers and parts of its bytes. Allocates nothing, and does not panic on any bytes.

use super::super::refusal::Refusal;
use super::super::wire::decode_number;
use super::refuse;

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

impl From<Malformed> for Refusal {
    fn from(Malformed(what): Malformed) -> Self {
        refuse(format!("not a pprof: {what}"))
    }
}

const NO_END: Malformed = Malformed("a number has no end");
const TOO_LONG: Malformed = Malformed("a field is longer than its message");
/// Protobuf has given up groups, and has no other types.
pub(super) const GROUP: Malformed = Malformed("a field has no known type");
const OTHER_TYPE: Malformed = Malformed("a field has another type than pprof says");

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// A number of 4 or 8 bytes, which pprof has nowhere.
    Fixed,
}

impl<'a> Value<'a> {
    pub(super) fn number(self) -> Result<u64, Malformed> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Bytes(_) | Self::Fixed => Err(OTHER_TYPE),
        }
    }

    pub(super) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) | Self::Fixed => Err(OTHER_TYPE),
        }
    }

    /// Appends the numbers of a repeated field: one, or several that are packed.
    pub(super) fn append_to<T>(
        self,
        numbers: &mut Vec<T>,
        convert: impl Fn(u64) -> T,
    ) -> Result<(), Malformed> {
        match self {
            Self::Number(number) => numbers.push(convert(number)),
            Self::Bytes(packed) => {
                let mut packed = Scan(packed);
                while !packed.0.is_empty() {
                    numbers.push(convert(packed.take_number()?));
                }
            }
            Self::Fixed => return Err(OTHER_TYPE),
        }
        Ok(())
    }
}

/// Rest of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scan<'a>(&'a [u8]);

impl<'a> Scan<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    /// The next field; `None` at the end of the message.
    #[inline]
    pub(super) fn next_field(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = u32::try_from(self.take_number()?).unwrap_or(0);
        if key < 8 {
            return Err(Malformed("a field has no number"));
        }
        let value = match key & 7 {
            0 => Value::Number(self.take_number()?),
            1 => self.take_bytes(8).map(|_| Value::Fixed)?,
            2 => {
                let bytes = self.take_number()?;
                Value::Bytes(self.take_bytes(bytes)?)
            }
            5 => self.take_bytes(4).map(|_| Value::Fixed)?,
            _ => return Err(GROUP),
        };
        Ok(Some((key >> 3, value)))
    }

    fn take_bytes(&mut self, bytes: u64) -> Result<&'a [u8], Malformed> {
        let bytes = usize::try_from(bytes).map_err(|_| TOO_LONG)?;
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(TOO_LONG)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    fn take_number(&mut self) -> Result<u64, Malformed> {
        let (number, length) = decode_number(self.0).ok_or(NO_END)?;
        self.0 = &self.0[length..];
        Ok(number)
    }
}

/// Reads a message whose fields 1 to `N` are numbers.
pub(super) fn read_numbers<const N: usize>(message: &[u8]) -> Result<[u64; N], Malformed> {
    let mut numbers = [0; N];
    let mut scan = Scan::new(message);
    while let Some((field, value)) = scan.next_field()? {
        if let Some(number) = numbers.get_mut(field as usize - 1) {
            *number = value.number()?;
        }
    }
    Ok(numbers)
}
