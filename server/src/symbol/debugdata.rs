//! The symbol table that distributions leave in stripped programs, packed by `xz` (`.gnu_debugdata`, "MiniDebugInfo").
//!
//! In: an ELF file's bytes, which anybody may have sent. Out: the bytes of the small ELF file in that section. Never takes
//! more memory than below, whatever it says of its size.
//!
//! Source: GDB manual, "Debugging information in a special section".

use std::io::Read;

use symbolic_debuginfo::dwarf::Dwarf as _;
use symbolic_debuginfo::elf::ElfObject;
use xz2::read::XzDecoder;
use xz2::stream::Stream;

/// Bytes of the unpacked file. A browser's has 60 MB; the section has symbols of functions only.
const UNPACKED_BYTES_MAX: u64 = 256 << 20;

/// Bytes that unpacking may take beside: `xz -9` wants 65 MiB.
const DICTIONARY_BYTES_MAX: u64 = 128 << 20;

/// What is in the section.
pub(super) enum DebugData {
    /// There is none.
    None,
    /// It is larger than it may be, or cannot be read.
    Unreadable,
    /// An ELF file.
    Unpacked(Vec<u8>),
}

/// Unpacks the section of a file.
pub(super) fn read_debug_data(elf: &ElfObject<'_>) -> DebugData {
    // Without the dot, which `symbolic` adds.
    let Some(section) = elf.section("gnu_debugdata") else {
        return DebugData::None;
    };
    unpack(&section.data, UNPACKED_BYTES_MAX).map_or(DebugData::Unreadable, DebugData::Unpacked)
}

/// Unpacks at most `bytes_max` bytes; `None` if there are more, or it cannot be read. Pure.
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

    /// Check that what is packed is unpacked, up to its limit, and that anything else is refused.
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
