//! The symbol table that distributions leave in stripped programs, packed by `xz` (`.gnu_debugdata`, "MiniDebugInfo").
//!
//! In: the untrusted section. Out: the bytes of the small ELF file in it, within the memory limits below.
//!
//! Source: GDB manual, "Debugging information in a special section".

use std::io::Read;

use xz2::read::XzDecoder;
use xz2::stream::Stream;

/// Bytes of the unpacked file. A browser's has 60 MB: it only has symbols of functions.
const UNPACKED_BYTES_MAX: u64 = 256 << 20;

/// Bytes of xz's dictionary: `xz -9` needs 65 MiB.
const DICTIONARY_BYTES_MAX: u64 = 128 << 20;

/// Unpacks the contents of the section; `None` if they are over the limit or cannot be read.
pub(super) fn unpack_debug_data(packed: &[u8]) -> Option<Vec<u8>> {
    unpack(packed, UNPACKED_BYTES_MAX)
}

fn unpack(packed: &[u8], bytes_max: u64) -> Option<Vec<u8>> {
    let stream = Stream::new_stream_decoder(DICTIONARY_BYTES_MAX, 0).ok()?;
    let mut unpacked = Vec::new();
    let read = XzDecoder::new_stream(packed, stream)
        .take(bytes_max + 1)
        .read_to_end(&mut unpacked)
        .ok()?;
    (read as u64 <= bytes_max).then_some(unpacked)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use xz2::write::XzEncoder;

    use super::*;

    fn pack(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = XzEncoder::new(Vec::new(), 6);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Check that a packed file is unpacked up to the limit, and that anything else is refused.
    #[test]
    fn only_what_is_whole_and_small_is_unpacked() {
        let bytes = b"symbols".repeat(1000);
        let packed = pack(&bytes);
        assert_eq!(unpack(&packed, 7000).as_deref(), Some(&*bytes));
        assert_eq!(unpack(&packed, 6999), None);
        assert_eq!(unpack(&[], 7000), None);
        assert_eq!(unpack(b"\xfd7zXZ\0 and then nothing", 7000), None);
        for len in 0..packed.len() {
            assert_eq!(unpack(&packed[..len], 7000), None, "{len}");
        }
        // 64 MB of zeros are 10 KB, and are not unpacked whole to be refused.
        assert_eq!(unpack(&pack(&vec![0; 64 << 20]), 1 << 20), None);
    }
}
