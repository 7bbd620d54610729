//! Digests of windows.

use std::hash::{Hash, Hasher};

use crate::window::{Window, WindowHead};

/// Bytes that are hashed at a time: BLAKE3 is many times faster with several KiB than with the four bytes of a number. It hashes up to 16
/// chunks of 1 KiB together, if it gets all of them at once.
const BUFFER_BYTES: usize = 16 << 10;

/// A hasher whose result depends on the bytes alone, and is long enough to tell contents apart.
struct ContentHasher {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
}

impl ContentHasher {
    fn new() -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            buffer: Vec::with_capacity(BUFFER_BYTES),
        }
    }

    /// Writes bytes for which the buffer has no room. Hashes it whenever it is full, and never before.
    #[cold]
    fn write_through(&mut self, mut bytes: &[u8]) {
        while let Some((now, later)) = bytes.split_at_checked(BUFFER_BYTES - self.buffer.len()) {
            self.buffer.extend_from_slice(now);
            self.hasher.update(&self.buffer);
            self.buffer.clear();
            bytes = later;
        }
        self.buffer.extend_from_slice(bytes);
    }

    fn digest(&mut self) -> [u8; 16] {
        self.hasher.update(&self.buffer);
        self.buffer.clear();
        let digest = self.hasher.finalize();
        *digest.as_bytes().first_chunk().unwrap_or(&[0; 16])
    }
}

impl Hasher for ContentHasher {
    /// Of what was hashed by now; nobody asks for it.
    fn finish(&self) -> u64 {
        let digest = self.hasher.finalize();
        u64::from_le_bytes(*digest.as_bytes().first_chunk().unwrap_or(&[0; 8]))
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        if self.buffer.len() + bytes.len() < BUFFER_BYTES {
            self.buffer.extend_from_slice(bytes);
        } else {
            self.write_through(bytes);
        }
    }
}

impl Window {
    /// A digest of all that the window has: equal for a message that is sent again, and different for another content. 128 bits of
    /// BLAKE3. A later version of this crate may give another digest.
    pub fn digest(&self) -> [u8; 16] {
        let Self {
            head,
            series,
            tables,
            rows,
            containers,
        } = self;
        let WindowHead {
            key,
            node,
            window_ms,
            account,
            profile,
        } = head;
        let mut hasher = ContentHasher::new();
        (key, node, window_ms, account, profile).hash(&mut hasher);
        (series, tables, rows, containers).hash(&mut hasher);
        hasher.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::window;

    /// Check that the digest depends on the bytes alone, however they are cut.
    #[test]
    fn a_digest_is_that_of_all_bytes() {
        let bytes = [1, 2, 3, 4, 5, 6, 7].repeat(14_000);
        let expected = blake3::hash(&bytes);
        for length in [1, 1000, BUFFER_BYTES, BUFFER_BYTES + 1, 50_000] {
            let mut hasher = ContentHasher::new();
            bytes.chunks(length).for_each(|part| hasher.write(part));
            assert_eq!(hasher.digest(), expected.as_bytes()[..16], "{length}");
        }
    }

    /// Check that equal windows have equal digests, and that each part of a window is in it.
    #[test]
    fn digests_are_of_the_content() {
        let text = "comm=a | main 0x1f@/lib/b.so | 3 | thread=x";
        let first = window(text);
        assert_eq!(first.digest(), window(text).digest());
        for other in [
            "comm=a | main 0x1f@/lib/b.so | 4 | thread=x",
            "comm=a | main 0x1f@/lib/b.so | 3 | thread=y",
            "comm=a | main 0x2f@/lib/b.so | 3 | thread=x",
            "comm=b | main 0x1f@/lib/b.so | 3 | thread=x",
        ] {
            assert_ne!(first.digest(), window(other).digest(), "{other}");
        }
        let mut other = first.clone();
        other.head.account.stolen_ns = 1;
        assert_ne!(first.digest(), other.digest());
        let mut other = first.clone();
        other.head.key.sequence += 1;
        assert_ne!(first.digest(), other.digest());
    }
}
