//! Messages of a bounded size, in postcard's form. Pure.
//!
//! An empty entry of a list takes a byte on the wire and 24 or more in memory, so that a frame of 8 MB could become 200 MB.
//! The lists of a message are decoded with [`at_most`], which refuses one that is too long before it is allocated.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

/// Fields that always take the bytes of their type, as `#[serde(with = "sandbox::fixed")]`: many small numbers would otherwise
/// take four times their bytes on the wire in memory.
pub use postcard::fixint::le as fixed;

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    /// It is not of this type, or a list is over its limit.
    #[error("message is malformed or over a limit: {0}")]
    Malformed(#[from] postcard::Error),
    /// Bytes follow it.
    #[error("message has {0} bytes too many")]
    TooLong(usize),
}

/// Encodes a message.
///
/// # Errors
/// Its type has a form of its own, and that fails.
pub fn encode_message(message: &impl Serialize) -> Result<Vec<u8>, MessageError> {
    Ok(postcard::to_allocvec(message)?)
}

/// Decodes a message, which takes all the bytes.
///
/// # Errors
/// The bytes are not such a message, or it is over a limit.
pub fn decode_message<'a, M: Deserialize<'a>>(bytes: &'a [u8]) -> Result<M, MessageError> {
    let (message, rest) = postcard::take_from_bytes(bytes)?;
    match rest.len() {
        0 => Ok(message),
        rest => Err(MessageError::TooLong(rest)),
    }
}

/// Deserializes a list of at most `MAX` entries, as `#[serde(deserialize_with = "at_most::<MAX, _, _>")]`.
///
/// # Errors
/// It has more, or is malformed.
pub fn at_most<'de, const MAX: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_seq(AtMost::<MAX, T>(PhantomData))
}

struct AtMost<const MAX: usize, T>(PhantomData<T>);

impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for AtMost<MAX, T> {
    type Value = Vec<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "a list of at most {MAX} entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<T>, A::Error> {
        let claimed = entries.size_hint().unwrap_or_default();
        let mut list = Vec::with_capacity(claimed.min(MAX));
        while let Some(entry) = entries.next_element()? {
            if list.len() == MAX {
                return Err(A::Error::invalid_length(claimed, &self));
            }
            list.push(entry);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Inner {
        #[serde(with = "fixed")]
        number: u32,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Outer {
        id: u64,
        #[serde(deserialize_with = "at_most::<3, _, _>")]
        names: Vec<String>,
        #[serde(deserialize_with = "at_most::<2, _, _>")]
        inner: Vec<Inner>,
    }

    fn message() -> Outer {
        Outer {
            id: u64::MAX,
            names: vec!["name".to_owned(), "ü".to_owned(), String::new()],
            inner: vec![Inner { number: 7 }, Inner { number: 0 }],
        }
    }

    fn encode(message: &Outer) -> Vec<u8> {
        encode_message(message).unwrap()
    }

    fn decode(bytes: &[u8]) -> Result<Outer, MessageError> {
        decode_message(bytes)
    }

    /// Check that a message at its limits is decoded as it was encoded, and that one cut anywhere or with a byte more is not.
    #[test]
    fn a_message_within_its_limits_is_decoded() {
        let bytes = encode(&message());
        assert_eq!(decode(&bytes), Ok(message()));
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "{end}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(decode(&longer), Err(MessageError::TooLong(1)));
    }

    /// Check each list with an entry more, and a length that is claimed.
    #[test]
    fn limits_are_kept() {
        let refused = Err(MessageError::Malformed(postcard::Error::SerdeDeCustom));
        let check = |change: fn(&mut Outer)| {
            let mut message = message();
            change(&mut message);
            assert_eq!(decode(&encode(&message)), refused);
        };
        check(|outer| outer.names.push(String::new()));
        check(|outer| outer.inner.push(Inner { number: 1 }));
        let claims = [&[0][..], &[0xff; 9], &[1], &[0; 8]].concat();
        assert_eq!(decode(&claims), refused);
    }

    /// Check a string that is not UTF-8, and numbers of more than 64 bits and without an end.
    #[test]
    fn other_bytes_are_refused() {
        for bytes in [
            &[0, 1, 1, 0xff, 0][..],
            &[&[0xff; 9][..], &[2, 0, 0]].concat(),
            &[0x80; 11],
            &[0x80; 3],
        ] {
            assert!(decode(bytes).is_err(), "{bytes:x?}");
        }
    }
}
