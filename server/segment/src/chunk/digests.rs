//! Chunks of digests: those of the messages that brought a chunk of windows.

use crate::chunk::windows::CHUNK_MESSAGES_MAX;
use crate::codec::column::{ChunkReader, Packer, Unpacker};
use crate::error::Malformed;

/// A digest of a message's content: the store's own, which a segment only keeps.
pub type Digest = [u8; 16];

/// Encodes the digests of messages; none for those that have none.
pub(crate) fn encode_digests(
    digests: impl Iterator<Item = Option<Digest>> + Clone,
    packer: &mut Packer,
) -> Vec<u8> {
    let mut out = Vec::new();
    let is_there = digests.clone().map(|digest| u64::from(digest.is_some()));
    packer.put_numbers(&mut out, is_there);
    let known: Vec<Digest> = digests.flatten().collect();
    packer.put_raw(&mut out, known.as_flattened());
    out
}

/// Reads the digests of `messages` messages.
pub(crate) fn decode_digests(
    bytes: &[u8],
    messages: usize,
    unpacker: &mut Unpacker,
) -> Result<Vec<Option<Digest>>, Malformed> {
    if messages > CHUNK_MESSAGES_MAX {
        return Err(Malformed("a chunk has too many messages"));
    }
    let mut from = ChunkReader::new(bytes, unpacker);
    let mut is_there = from.take_numbers(messages)?;
    let known = from.take_raw(size_of::<Digest>() * messages)?;
    from.finish()?;
    let (known, []) = known.as_chunks() else {
        return Err(Malformed("a digest is cut"));
    };
    let mut known = known.iter().copied();
    let mut digests = Vec::with_capacity(messages);
    for _ in 0..messages {
        digests.push(match is_there.next_below(2)? {
            0 => None,
            _ => Some(known.next().ok_or(Malformed("a digest is missing"))?),
        });
    }
    is_there.finish()?;
    if known.next().is_some() {
        return Err(Malformed("a chunk has more digests than messages"));
    }
    Ok(digests)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that digests come back, and that damaged bytes never panic.
    #[test]
    fn digests_come_back() {
        let mut unpacker = Unpacker::default();
        let some = |number: u8| Some([number; 16]);
        for digests in [
            vec![],
            vec![None, None],
            vec![some(1), some(255)],
            vec![None, some(1), some(2), None],
        ] {
            let bytes = encode_digests(digests.iter().copied(), &mut Packer::new(1));
            let read = decode_digests(&bytes, digests.len(), &mut unpacker);
            assert_eq!(read, Ok(digests.clone()));
            assert!(decode_digests(&bytes, 1, &mut unpacker) != Ok(digests.clone()));
            for at in 0..8 * bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at / 8] ^= 1 << (at % 8);
                drop(decode_digests(&damaged, digests.len(), &mut unpacker));
            }
        }
    }
}
